"""What a check of twins found: `check.json`, and `twins.csv` with a line per network and size."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cmtscale.record.check_files import read_check, write_check, write_lines
from cmtscale.record.folder import TWIN_TABLE, TWINS

TwinVerdict = Literal["refuted", "not refuted", "cannot be told", "not measured", "the largest"]


@dataclass(frozen=True, kw_only=True)
class Tau:
    """Kendall's τ of a size and the largest one, with its 95 % interval.

    `alone` is what it would be, on average, if noise alone told the two rankings apart, with 95 %
    of its range; None where seeds do not measure the noise. `regret` is how much more the network
    that is best at this size loses at the largest one than the best there, in parts of the loss.
    """

    networks: int
    tau: float
    low: float
    high: float
    alone: tuple[float, float, float] | None
    regret: float


@dataclass(frozen=True, kw_only=True)
class SizeFound:
    """Twins of one size: what they cost and grow from, their noise and spread in ln loss.

    `tau` is None for the largest size, and where fewer than four networks have runs at both. The
    verdict cannot be told where τ is below the threshold, and noise alone would leave it there.
    """

    macs: int
    base: str
    base_macs: int
    noise: float | None
    degrees: int
    spread: float | None
    tau: Tau | None
    verdict: TwinVerdict


@dataclass(frozen=True, kw_only=True)
class TwinCheck:
    """How the twins of several sizes, the smallest first, rank the same networks.

    `own_macs` is the size that the search trains; `smallest_macs` the smallest one whose τ reaches
    the threshold (None: none does). `is_above` says whether its whole interval does.
    """

    threshold: float
    images_seen: int
    seeds: int
    own_macs: int
    sizes: tuple[SizeFound, ...]
    smallest_macs: int | None
    is_above: bool
    tour: bool

    def __post_init__(self) -> None:
        if len(self.sizes) < 2:
            raise ValueError(f"{len(self.sizes)} sizes are nothing to compare")

    @property
    def own(self) -> SizeFound | None:
        """What was found of the size that the search trains."""
        return next((size for size in self.sizes if size.macs == self.own_macs), None)


@dataclass(frozen=True, kw_only=True)
class TwinLine:
    """A network as a twin of one size: `distance` is that of its shares from those of `network`.

    `network` names what the search calls it, `loss` is the geometric mean over `seeds` runs.
    """

    network: str
    role: str
    depth: float
    width: float
    resolution: float
    size_macs: int
    twin: str
    twin_macs: int
    distance: float
    stray: float
    seeds: int
    loss: float | None
    error: float | None


def write_twin_check(folder: Path, check: TwinCheck, lines: Iterable[TwinLine]) -> None:
    """Write both files into the search's folder, each atomically."""
    write_lines(folder / TWINS / TWIN_TABLE, TwinLine, lines)
    write_check(folder / TWINS, asdict(check))


def read_twin_check(folder: Path) -> TwinCheck | None:
    """What was found of a search's twins; None before, `ResultsError` if the file is damaged."""
    return read_check(folder / TWINS, TwinCheck)
