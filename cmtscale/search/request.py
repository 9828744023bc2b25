"""What a search is asked to do, as a user says it: everything but the budget may be left open."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import Variant
from cmtscale.arch.variant import variant as read_variant
from cmtscale.data.sources import parse_spec
from cmtscale.train.recipe import Attention, Recipe, require_count, require_seed

Sampler = Literal["grid", "tpe", "gp", "random"]
Precision = Literal["fp32", "bf16"]
SAMPLERS: tuple[Sampler, ...] = ("grid", "tpe", "gp", "random")
ALL_IMAGES: Literal["all"] = "all"
TOUR_DATA = "digits"


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search: the budget, the images, how candidates are chosen, trained and where.

    None leaves a choice open: `resolve` fills in the default. MACs may be written 4e9, `base` and
    paths as text. `epochs`, `train_images` ("all": the whole training split), `batch_size`, `lr`,
    `augment` and `attention` override the `recipe`. `split_seed` draws the splits of the data set,
    `seed` is the sampler's. `device`, `workers`, `out` and `cache_dir` say where it runs; the
    results do not depend on them (on the CPU).
    """

    budget_macs: int
    data: str = TOUR_DATA
    split_seed: int = 0
    base: Variant | None = None
    sampler: Sampler = "grid"
    trials: int | None = None
    proxy: bool = True
    proxy_base: Variant | None = None
    proxy_macs: int | None = None
    recipe: Recipe | None = None
    epochs: int | None = None
    train_images: int | Literal["all"] | None = None
    batch_size: int | None = None
    lr: float | None = None
    augment: bool | None = None
    attention: Attention | None = None
    seeds: int | None = None
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    out: Path | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", parse_spec(self.data).text)
        if isinstance(self.base, str):
            object.__setattr__(self, "base", read_variant(self.base))
        for name in ("out", "cache_dir"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("budget_macs", "proxy_macs"):
            value = getattr(self, name)
            if isinstance(value, float) and value.is_integer():  # 4e9
                object.__setattr__(self, name, int(value))
        require_count("budget_macs", self.budget_macs)
        for name in ("trials", "proxy_macs", "epochs", "seeds", "workers", "batch_size"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        if self.train_images not in (None, ALL_IMAGES):
            if isinstance(self.train_images, str):
                raise RequestError(
                    f"train_images {self.train_images!r} is neither a number nor 'all'; use one"
                )
            require_count("train_images", self.train_images)
        for name in ("seed", "split_seed"):
            require_seed(name, getattr(self, name))
        if self.sampler not in SAMPLERS:
            raise RequestError(f"sampler {self.sampler!r} is not one of {', '.join(SAMPLERS)}")
        if not self.proxy and self.proxy_macs:
            raise RequestError("proxy_macs and no proxy contradict each other; drop one of them")
