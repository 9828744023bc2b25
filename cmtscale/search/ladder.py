"""How long a search trains: rungs of longer and longer runs, and how much of each."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cmtscale.arch.errors import RequestError
from cmtscale.record.files import read_toml
from cmtscale.train.recipe import require_count

GROWTH = 3  # images seen, from one rung to the next
SEEDS_A_RUNG = 100  # seeds of rung r begin at 100 r, so that no two rungs share one
SURE = 0.8  # the probability from which a candidate counts as near the best
LONGEST_TARGET = GROWTH  # times the images of the last rung: a forecast goes no further
REFERENCE_SEEDS = 3  # of the search without a ladder that `spend` is a share of
Preset = Literal["flat", "quick", "standard", "thorough"]


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Rungs at T, 3 T, 9 T, … training images seen; T is what the search's recipe sees.

    Each run of a rung has its own full schedule. Every candidate trains at the first rung, and the
    anchors (the corners of the triangle and its centre) at all rungs. They are repeated at the
    first one until the noise between seeds has `noise_degrees` degrees of freedom. Then the
    forecast decides, `batch` runs at a time, until all runs together cost `spend` times what every
    candidate would at the last rung with three seeds (with few candidates what is certain may cost
    more, and nothing is decided), or some candidate is near the best with the probability `enough`.
    """

    rungs: int = 3
    noise_degrees: int = 10
    spend: float = 0.3
    batch: int = 4
    enough: float = 0.95

    def __post_init__(self) -> None:
        for name in ("rungs", "batch"):
            require_count(name, getattr(self, name))
        if self.rungs > 6:
            raise RequestError(f"rungs {self.rungs} is out of range; use 1 to 6")
        degrees = self.noise_degrees
        if isinstance(degrees, bool) or not isinstance(degrees, int) or not 0 <= degrees <= 100:
            raise RequestError(f"noise_degrees {degrees!r} is out of range; use 0 to 100")
        for name, low, high in (("spend", 0, 100), ("enough", SURE, 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RequestError(
                    f"{name} {value!r} is not a number; use one such as {getattr(Ladder, name)}"
                )
            if not low <= value <= high:
                raise RequestError(f"{name} {value:g} is out of range; use {low} to {high}")


PRESETS: dict[Preset, Ladder] = {
    "flat": Ladder(rungs=1, noise_degrees=0, spend=0.0),  # every candidate once, and no more
    "quick": Ladder(rungs=2, spend=0.5),  # what is certain costs 0.3 already
    "standard": Ladder(),
    "thorough": Ladder(rungs=4),
}


def read_ladder(name_or_path: str) -> Ladder:
    """A preset by its name, or the ladder in a TOML file; raises `RequestError` for neither."""
    if name_or_path in get_args(Preset):
        return PRESETS[name_or_path]  # type: ignore[index]
    presets = ", ".join(get_args(Preset))
    try:
        return ladder_from_table(read_toml(Path(name_or_path)), source=name_or_path)
    except FileNotFoundError:
        raise RequestError(
            f"ladder {name_or_path!r} is neither one of {presets} nor a file; use one of them, or "
            f"a TOML file with {', '.join(asdict(Ladder()))}"
        ) from None


def ladder_from_table(table: dict[str, Any], *, source: str) -> Ladder:
    """The ladder of a table; raises `RequestError` for fields that it does not have."""
    unknown = [name for name in table if name not in asdict(Ladder())]
    if unknown:
        raise RequestError(
            f"{source} has {', '.join(unknown)}, which no ladder has; use some of "
            f"{', '.join(asdict(Ladder()))}"
        )
    return Ladder(**table)


def horizon_of_rung(rung: int, first: tuple[int, int], *, pool_images: int) -> tuple[int, int]:
    """(epochs, images of each) of a rung, from 0; `first` is that of the first one.

    While the `pool_images` that runs may draw from last, every image is seen once; then all of them
    are seen in as many epochs as come nearest.
    """
    if rung == 0:
        return first
    images = first[0] * first[1] * GROWTH**rung
    if images <= pool_images:
        return 1, images
    return round(images / pool_images), pool_images


def seed_of(rung: int, replicate: int) -> int:
    """The seed of the `replicate`-th run (from 0) of a candidate at a rung."""
    assert replicate < SEEDS_A_RUNG
    return SEEDS_A_RUNG * rung + replicate
