"""What a check of the learning rate found: `check.json`, and `rates.csv`, its lines."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cmtscale.record.check_files import read_check, write_check, write_lines
from cmtscale.record.folder import RATE_TABLE, RATES

RateVerdict = Literal["one rate serves all", "another rate is wanted", "cannot be told"]


@dataclass(frozen=True, kw_only=True)
class RateLine:
    """A network at one peak rate, `factor` times the search's.

    `loss` is the geometric mean over `seeds` runs; None where one `diverged` or was `infeasible`,
    which the others would flatter, or none is complete. `change` is its ln from the search's rate,
    `error` the standard error of that; None where it is not measured, and at the search's rate.
    """

    network: str
    role: str
    factor: float
    lr: float
    seeds: int
    diverged: int
    infeasible: int
    loss: float | None
    change: float | None
    error: float | None

    @property
    def is_sound(self) -> bool:
        """Whether no run diverged or was infeasible."""
        return not (self.diverged or self.infeasible)


@dataclass(frozen=True, kw_only=True)
class AnchorFound:
    """What a network makes of the rates: the factors of its lowest loss and of one it wants.

    It wants (None: none) the rate with the lowest loss, if that is lower than at the search's by
    more than the noise, or if it is not sound there. `hidden` is the most that the ranking at the
    search's rate may understate it by, in ln loss: two standard errors beyond the largest change;
    None where that is not measured.
    """

    network: str
    role: str
    lowest: float | None
    wants: float | None
    hidden: float | None


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Two networks, by role: at `factor` the `first` one leads, at the search's rate the `second`.

    `by_noise` says whether noise alone may have done that.
    """

    factor: float
    first: str
    second: str
    by_noise: bool


@dataclass(frozen=True, kw_only=True)
class NoiseAlone:
    """What a check would find on average if the rate made no difference.

    `gain` is how much lower the lowest of the rates looks, `regret` what the choice seems to lose,
    both in parts of the loss; `chance` the probability that some network seems to want another
    rate.
    """

    gain: float
    regret: float
    chance: float


@dataclass(frozen=True, kw_only=True)
class RateCheck:
    """How a search's anchors do at half, once and twice its peak rate, `lr`.

    `noise` is that of a run between seeds, in ln loss, of all rates together. `regret` is what the
    network that is best at the search's rate loses, in parts of the loss, where each has its own
    best rate; `may_lose` the most that noise hides of it, and `tolerance` what of that is no loss.
    None where it is not measured.
    """

    lr: float
    images_seen: int
    seeds: int
    noise: float | None
    degrees: int
    lines: tuple[RateLine, ...]
    anchors: tuple[AnchorFound, ...]
    swaps: tuple[Swap, ...]
    regret: float | None
    may_lose: float | None
    alone: NoiseAlone | None
    tolerance: float
    verdict: RateVerdict
    tour: bool

    def __post_init__(self) -> None:
        rates = {(line.network, line.factor) for line in self.lines}
        factors = {factor for _, factor in rates}
        lacking = {(x.network, factor) for x in self.anchors for factor in factors} - rates
        if not (self.anchors and 1 in factors) or lacking:
            raise ValueError(f"{len(self.lines)} lines are not each network at each rate")

    @property
    def wanting(self) -> tuple[AnchorFound, ...]:
        """The networks that want another rate."""
        return tuple(anchor for anchor in self.anchors if anchor.wants is not None)

    def line(self, network: str, factor: float) -> RateLine:
        """The line of a network at a rate."""
        return next(x for x in self.lines if (x.network, x.factor) == (network, factor))


def write_rate_check(folder: Path, check: RateCheck) -> None:
    """Write both files into the search's folder, each atomically."""
    write_lines(folder / RATES / RATE_TABLE, RateLine, check.lines)
    write_check(folder / RATES, asdict(check))


def read_rate_check(folder: Path) -> RateCheck | None:
    """What was found of a search's rate; None before, `ResultsError` if the file is damaged."""
    return read_check(folder / RATES, RateCheck)
