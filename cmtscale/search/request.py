"""What a search is asked to do, as a user says it: everything but the budget may be left open."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cmtscale.arch.budget import format_duration, format_macs
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import Variant
from cmtscale.arch.variant import variant as read_variant
from cmtscale.data.sources import parse_spec
from cmtscale.search.executors.engine import LOCAL, Engine
from cmtscale.search.ladder import SEEDS_A_RUNG, Ladder
from cmtscale.train.recipe import Attention, Recipe, require_count, require_seed

Sampler = Literal["grid", "tpe", "gp", "random"]
Precision = Literal["fp32", "bf16"]
SecondCost = Literal["latency", "params", "activations", "macs"]
LimitName = Literal["params", "activations", "latency"]
SAMPLERS: tuple[Sampler, ...] = ("grid", "tpe", "gp", "random")
SECOND_COSTS: tuple[SecondCost, ...] = ("latency", "params", "activations", "macs")
ALL_IMAGES: Literal["all"] = "all"
TOUR_DATA = "digits"


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search: the budget, the images, how candidates are chosen, trained and where.

    None leaves a choice open: `resolve` fills in the default. MACs may be written 4e9, `base` and
    paths as text. `epochs`, `train_images` ("all": the whole training split), `batch_size`, `lr`,
    `augment` and `attention` override the `recipe`, whose length is that of the first rung of the
    `ladder`; `seeds` are the runs of each candidate there. The answer is for a training of
    `target_images` seen (or `target_epochs` of the training split): a set of candidates within
    `tolerance` of the lowest loss, and in it the one that `prefer` finds cheapest. `max_params`,
    `max_activations` (of one image) and `max_latency_seconds` (measured here) are limits on the
    real network: what exceeds one is not chosen. `family` are smaller budgets, in MACs, that are
    solved with the shares of the choice; neither they nor the limits change what is searched.
    `max_seconds` is all the time there is: the twins and the lengths of runs that are left open are
    chosen to fit, and the search ends in time. `split_seed`
    draws the splits of the data set, `seed` is that of the sampler and of the decisions. `device`,
    `workers`, `engine`, `out` and `cache_dir` say where it runs; the result of a run does not
    depend on them (on the CPU), which runs are asked for depends on how long they take. A folder
    whose runs were trained by other code, or another torch, is gone on with only if
    `accept_changes`.
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
    ladder: Ladder | None = None
    target_images: int | None = None
    target_epochs: int | None = None
    tolerance: float | None = None
    prefer: SecondCost | None = None
    max_params: int | None = None
    max_activations: int | None = None
    max_latency_seconds: float | None = None
    family: tuple[int, ...] = ()
    max_seconds: int | None = None
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    engine: Engine = LOCAL
    out: Path | None = None
    cache_dir: Path | None = None
    accept_changes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", parse_spec(self.data).text)
        if isinstance(self.base, str):
            object.__setattr__(self, "base", read_variant(self.base))
        for name in ("out", "cache_dir"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("budget_macs", "proxy_macs", "max_params", "max_activations"):
            object.__setattr__(self, name, _whole(getattr(self, name)))
        object.__setattr__(self, "family", tuple(sorted(map(_whole, self.family))))
        require_count("budget_macs", self.budget_macs)
        require_family(self.family, self.budget_macs)
        require_latency(self.max_latency_seconds)
        for name in (
            "trials",
            "proxy_macs",
            "epochs",
            "seeds",
            "target_images",
            "target_epochs",
            "max_seconds",
            "workers",
            "batch_size",
            "max_params",
            "max_activations",
        ):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        if self.seeds is not None and self.seeds > SEEDS_A_RUNG:
            raise RequestError(f"seeds {self.seeds} is out of range; use 1 to {SEEDS_A_RUNG}")
        if self.target_images is not None and self.target_epochs is not None:
            raise RequestError("target_images and target_epochs are two targets; drop one of them")
        if self.tolerance is not None:
            require_tolerance(self.tolerance)
        if self.prefer is not None and self.prefer not in SECOND_COSTS:
            raise RequestError(f"prefer {self.prefer!r} is not one of {', '.join(SECOND_COSTS)}")
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

    @property
    def timed_folder_name(self) -> str:
        """`<data>-<budget>-in-2h`, of a search that has only so much time."""
        assert self.max_seconds is not None
        data, budget = parse_spec(self.data).name, format_macs(self.budget_macs)
        return f"{data}-{budget}-in-{format_duration(self.max_seconds)}"


def require_family(family: Sequence[object], budget_macs: int) -> None:
    """Raise `RequestError` unless these are budgets below the searched one, each written once.

    Budgets that are one in three digits are one: networks are filed under them.
    """
    written: set[str] = {format_macs(budget_macs)}
    for macs in family:
        require_count("a budget of the family", macs)
        assert isinstance(macs, int)
        if format_macs(macs) in written:
            raise RequestError(f"budget {format_macs(macs)} is given twice; give it once")
        if macs > budget_macs:
            raise RequestError(
                f"budget {format_macs(macs)} of the family is above the searched one, "
                f"{format_macs(budget_macs)}; search at the largest"
            )
        written.add(format_macs(macs))


def require_latency(value: object) -> None:
    """Raise `RequestError` unless `value` is a time in seconds that a limit can be, or None."""
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:  # type: ignore[operator]
        raise RequestError(
            f"max_latency_seconds {value!r} is not a time; use seconds such as 0.008"
        )


def _whole(value: Any) -> Any:
    """4e9 as the whole number that it is; anything else as it came."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def require_tolerance(value: object) -> None:
    """Raise `RequestError` unless `value` is a part of the loss that can be tolerated."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= 1:  # type: ignore[operator]
        raise RequestError(f"tolerance {value!r} is out of range; use a part such as 0.01")
