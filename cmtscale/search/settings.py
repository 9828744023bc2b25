"""A request without defaults left: what is searched, how much of it, and its file."""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tomli_w

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import RequestError, ResultsError
from cmtscale.arch.variant import Variant, variant_from_table
from cmtscale.data.sources import parse_spec
from cmtscale.record.files import read_toml, write_text_atomically
from cmtscale.record.folder import REQUEST, TRIALS
from cmtscale.record.identity import identity, network_fields
from cmtscale.record.row import Row, read_rows
from cmtscale.search.ladder import LONGEST_TARGET, Ladder, horizon_of_rung, ladder_from_table
from cmtscale.search.request import (
    SAMPLERS,
    SECOND_COSTS,
    LimitName,
    Precision,
    Sampler,
    SearchRequest,
    SecondCost,
    require_family,
    require_latency,
    require_tolerance,
)
from cmtscale.train.recipe import Recipe, require_count

SCHEMA = 3  # of request.toml; 2 had no ladder, and 1, of 0.1.0, no number


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A resolved request, no defaults left: what is searched, and how much of it.

    What is searched: the images (`data_hash` covers them and their splits), `base` and budget,
    what candidates grow from when they are trained (`trained_base`: the twin base, or `base`
    without proxies) to `trained_macs`, and the recipe without its horizon. `precision` and
    `pack_px` (the side that images are packed for) are fixed when a folder is first opened. The
    rest says how much of it to do: `epochs` and `train_images` of the recipe, which are those of
    the first rung, `pool_images`, which later rungs draw from, `ladder`, `sampler`, `trials`,
    `seeds`, `seed`, and `max_seconds`, the time there is for all of it; and what is answered:
    `target_images`, `tolerance`, `prefer`, the limits (`max_…`) on the network that is chosen, and
    the `family` of smaller budgets.
    """

    budget_macs: int
    data: str
    data_hash: str
    split_seed: int
    base: Variant
    proxy: bool
    trained_base: Variant
    trained_macs: int
    recipe: Recipe
    precision: Precision
    pack_px: int
    sampler: Sampler
    trials: int
    seeds: int
    seed: int
    pool_images: int
    ladder: Ladder
    target_images: int
    tolerance: float
    prefer: SecondCost
    tour: bool = False
    max_params: int | None = None
    max_activations: int | None = None
    max_latency_seconds: float | None = None
    family: tuple[int, ...] = ()
    max_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.recipe.train_images is None:
            raise RequestError("the recipe lacks train_images; give their number")
        for name in (
            "budget_macs",
            "split_seed",
            "trained_macs",
            "pack_px",
            "trials",
            "seeds",
            "seed",
            "pool_images",
            "target_images",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise RequestError(f"{name} {value!r} is not a whole number from 0 on")
        for name in ("max_params", "max_activations"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        require_latency(self.max_latency_seconds)
        object.__setattr__(self, "family", tuple(self.family))
        require_family(self.family, self.budget_macs)
        if self.sampler not in SAMPLERS or self.precision not in ("fp32", "bf16"):
            raise RequestError(
                f"sampler {self.sampler!r} or precision {self.precision!r} is none; use one of "
                f"{', '.join(SAMPLERS)}, and fp32 or bf16"
            )
        if self.max_seconds is not None:
            require_count("max_seconds", self.max_seconds)
        require_tolerance(self.tolerance)
        if self.prefer not in SECOND_COSTS:
            raise RequestError(f"prefer {self.prefer!r} is not one of {', '.join(SECOND_COSTS)}")

    @property
    def limits(self) -> dict[LimitName, float]:
        """The most that the real network may have of each second cost that is limited."""
        limits: dict[LimitName, float | None] = {
            "params": self.max_params,
            "activations": self.max_activations,
            "latency": self.max_latency_seconds,
        }
        return {name: most for name, most in limits.items() if most is not None}

    @property
    def identity(self) -> str:
        """A hash of what is searched; two searches that share it share their runs."""
        return identity(self.identity_fields(), length=8)

    def identity_fields(self) -> dict[str, Any]:
        """What `identity` covers."""
        recipe = asdict(self.recipe)
        for name in ("epochs", "train_images"):  # the runs'
            del recipe[name]
        return {
            "budget": self.budget_macs,
            "images": self.data_hash,
            "base": network_fields(self.base),
            "twins": self.proxy,
            "twin_base": network_fields(self.trained_base),
            "twin_macs": self.trained_macs,
            "recipe": recipe,
        }

    @property
    def folder_name(self) -> str:
        """`<data>-<base>-<budget>-<identity>`."""
        data = parse_spec(self.data).name
        return f"{data}-{self.base.name}-{format_macs(self.budget_macs)}-{self.identity}"

    @property
    def horizons(self) -> tuple[tuple[int, int], ...]:
        """(epochs, training images of an epoch) of the runs of each rung."""
        assert self.recipe.train_images is not None
        first = (self.recipe.epochs, self.recipe.train_images)
        return tuple(
            horizon_of_rung(rung, first, pool_images=self.pool_images)
            for rung in range(self.ladder.rungs)
        )

    @property
    def images_seen(self) -> tuple[int, ...]:
        """Training images seen in a run of each rung, each pass counted."""
        return tuple(epochs * images for epochs, images in self.horizons)

    def run_recipe(self, rung: int) -> Recipe:
        """The recipe as runs of a rung get it: with its horizon, in the folder's precision."""
        return self._run_recipes[rung]

    @cached_property
    def _run_recipes(self) -> tuple[Recipe, ...]:
        return tuple(
            replace(self.recipe, epochs=epochs, train_images=images, precision=self.precision)
            for epochs, images in self.horizons
        )

    def with_rungs(self, rungs: int, *, keep_target: bool) -> "Settings | None":
        """The same with fewer rungs, for the training that the last of them sees.

        With `keep_target` the target stays; None where fewer rungs say nothing of it.
        """
        shorter = replace(self, ladder=replace(self.ladder, rungs=rungs))
        longest = shorter.images_seen[-1]
        if not keep_target:
            return replace(shorter, target_images=longest)
        is_in_reach = self.target_images == longest or (
            rungs > 1 and self.target_images <= LONGEST_TARGET * longest
        )
        return shorter if is_in_reach else None

    def to_toml(self) -> str:
        """The request as TOML; `read_settings` gives back an equal one.

        What was not asked for is left out, as in files that are older.
        """
        asked = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return tomli_w.dumps({"schema": SCHEMA, **asked})

    def as_request(self) -> SearchRequest:
        """A request that resolves to these settings: the way to repeat a search from its file.

        A target that is the last rung's stays open: it moves on with a longer ladder.
        """
        is_own_target = self.target_images != self.images_seen[-1]
        return SearchRequest(
            budget_macs=self.budget_macs,
            data=self.data,
            split_seed=self.split_seed,
            base=self.base,
            sampler=self.sampler,
            trials=self.trials,
            proxy=self.proxy,
            proxy_base=self.trained_base if self.proxy else None,
            proxy_macs=self.trained_macs if self.proxy else None,
            recipe=self.recipe,
            seeds=self.seeds,
            ladder=self.ladder,
            target_images=self.target_images if is_own_target else None,
            tolerance=self.tolerance,
            prefer=self.prefer,
            max_params=self.max_params,
            max_activations=self.max_activations,
            max_latency_seconds=self.max_latency_seconds,
            family=self.family,
            max_seconds=self.max_seconds,
            seed=self.seed,
        )

    def save(self, path: Path) -> None:
        """Write the request as TOML, atomically."""
        write_text_atomically(path, self.to_toml())


def stored_settings(folder: Path) -> Settings | None:
    """What the folder's search was last asked; None where there is none."""
    try:
        return read_settings(folder / REQUEST)
    except FileNotFoundError:
        return None


def required_settings(folder: Path) -> Settings:
    """What the folder's search was last asked; raises `ResultsError` where there is none."""
    settings = stored_settings(folder)
    if settings is None:
        raise ResultsError(f"{folder} holds no search; name a folder with a request.toml")
    return settings


def recorded_search(folder: Path) -> tuple[Settings, list[Row]]:
    """What the folder's search was last asked, and its rows, without holding the folder.

    Raises `ResultsError` where there is no search, or none of its runs has ended.
    """
    settings = required_settings(folder)
    try:
        return settings, read_rows(folder / TRIALS)
    except FileNotFoundError:
        raise ResultsError(
            f"{folder} has no finished run yet; wait for its search, or go on with it: "
            f"cmtscale search --from {folder}"
        ) from None


def read_settings(path: Path) -> Settings:
    """Read a `request.toml`; raises `FileNotFoundError`, or a `CmtscaleError` if it is not one."""
    table = read_toml(path)
    if not path.read_bytes().endswith(b"\n"):
        raise RequestError(f"{path} is damaged: its end is missing; restore it")
    schema = table.pop("schema", None)
    if schema is None:
        raise RequestError(f"{path} is of cmtscale 0.1.0; search again with another --out")
    if schema != SCHEMA:
        raise RequestError(
            f"{path} has schema {schema}, of another version of cmtscale; this one reads "
            f"schema {SCHEMA}: use that version, or another --out"
        )
    try:
        for name in ("base", "trained_base"):
            table[name] = variant_from_table(table[name], source=name)
        table["recipe"] = Recipe(**table["recipe"])
        ladder = dict(table["ladder"])
        if lacking := sorted(asdict(Ladder()).keys() - ladder.keys()):
            raise ValueError(f"its ladder lacks {', '.join(lacking)}")  # it is what comes last
        table["ladder"] = ladder_from_table(ladder, source=f"{path}, ladder,")
        return Settings(**table)
    except KeyError as error:
        raise RequestError(f"{path} lacks {error}; restore it") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
    ) as error:  # all CmtscaleErrors of a variant or recipe are ones
        raise RequestError(f"{path} is no request: {error}; restore it") from error
