"""What a search is asked to do: the request, its defaults, and its file."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from cmtscale.arch.base import BASE_DISTANCE, default_base, require_distance, require_reach
from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import Stage, Variant, fit_to_data, variant_from_table
from cmtscale.arch.variant import variant as read_variant
from cmtscale.data.sources import one_spelling
from cmtscale.record.files import read_toml, write_text_atomically
from cmtscale.record.identity import identity, network_fields
from cmtscale.train.recipe import AUGMENTED_EPOCHS, LARGEST_SEED, Attention, Recipe

Sampler = Literal["grid", "tpe", "gp", "random"]
Precision = Literal["fp32", "bf16"]
SAMPLERS: tuple[Sampler, ...] = ("grid", "tpe", "gp", "random")
TOUR_DATA = "digits"
LEAST_PROXY_PX = 64  # below, stage 4 has one key and its attention no gradient
PROXY_DISTANCE = 6.25  # the twin base's: two 32 px steps of resolution fit into it
TRIALS = 20
IMAGES_SEEN = 25_600  # in a run, whatever the size of the data set
SCHEMA = 2  # of request.toml; 1, without a number, was that of 0.1.0
TOUR_TRIALS, TOUR_DISTANCE, TOUR_EPOCHS = 9, 4.5, 3  # three minutes on two cores
# The twin base: small enough for a laptop, and at 64 px still a CMT (2.3 M MACs at 10 classes).
PROXY_BASE = Variant(
    name="cmt-proxy",
    resolution_px=LEAST_PROXY_PX,
    stem_channels=4,
    stages=(
        Stage(dim=8, depth=1, heads=1, reduction=8, expansion=4.0),
        Stage(dim=16, depth=1, heads=2, reduction=4, expansion=4.0),
        Stage(dim=32, depth=4, heads=4, reduction=2, expansion=4.0),
        Stage(dim=64, depth=1, heads=8, reduction=1, expansion=4.0),
    ),
)

_WHOLE = ("budget_macs", "trials", "proxy_macs", "epochs", "seeds", "seed", "split_seed")


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search: the budget, the images, how candidates are found, trained and where.

    None and 0 stand for defaults, which `resolve` fills in. MACs may be written 4e9. `epochs`,
    `train_images`, `batch_size`, `lr`, `augment` and `attention` override the `recipe`.
    `split_seed` draws the splits of the data set, `seed` is the sampler's. `device`, `workers`,
    `out` and `cache_dir` say where it runs; the results do not depend on them (on the CPU).
    """

    budget_macs: int
    data: str = TOUR_DATA
    split_seed: int = 0
    base: Variant | None = None
    sampler: Sampler = "grid"
    trials: int = 0
    proxy: bool = True
    proxy_base: Variant | None = None
    proxy_macs: int = 0
    recipe: Recipe | None = None
    epochs: int = 0
    train_images: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    augment: bool | None = None
    attention: Attention | None = None
    seeds: int = 0
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    out: Path | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if isinstance(self.base, str):
            object.__setattr__(self, "base", read_variant(self.base))
        for name in ("out", "cache_dir"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))
        for name in ("budget_macs", "proxy_macs"):
            value = getattr(self, name)
            if isinstance(value, float) and value.is_integer():  # 4e9
                object.__setattr__(self, name, int(value))
        for name in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                example = "e.g. 4_000_000_000" if name.endswith("_macs") else "0 or more"
                raise RequestError(
                    f"{name} {value!r} is not a whole number from 0 on; use {example}"
                )
        for name in ("seed", "split_seed"):
            if getattr(self, name) > LARGEST_SEED:
                raise RequestError(
                    f"{name} {getattr(self, name)} is out of range; use 0 to {LARGEST_SEED}"
                )
        if self.sampler not in SAMPLERS:
            raise RequestError(f"sampler {self.sampler!r} is not one of {', '.join(SAMPLERS)}")
        if self.budget_macs < 1:
            raise RequestError(f"budget {self.budget_macs} is not positive; use e.g. 4000000000")
        if not self.proxy and self.proxy_macs:
            raise RequestError("proxy_macs and no proxy contradict each other; drop one of them")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A resolved request, no defaults left: what is searched, and how much of it.

    What is searched: the images (`data_hash` covers them and their splits), `base` and budget,
    what candidates grow from when they are trained (`trained_base`: the twin base, or `base`
    without proxies) to `trained_macs`, and the recipe without its horizon. `precision` and
    `pack_px` (the side that images are packed for) are fixed when a folder is first opened. The
    rest says how much of it to do: `epochs` and `train_images` of the recipe, `sampler`, `trials`,
    `seeds`, and the sampler's `seed`.
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
    tour: bool = field(default=False)

    def __post_init__(self) -> None:
        whole = ("budget_macs", "split_seed", "trained_macs", "pack_px", "trials", "seeds", "seed")
        for name in whole:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise RequestError(f"{name} {value!r} is not a whole number from 0 on")
        if self.sampler not in SAMPLERS or self.precision not in ("fp32", "bf16"):
            raise RequestError(
                f"sampler {self.sampler!r} or precision {self.precision!r} is none; use one of "
                f"{', '.join(SAMPLERS)}, and fp32 or bf16"
            )

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
        data = self.data.replace(":", "-").replace("/", "_").strip("_")[-40:]
        return f"{data}-{self.base.name}-{format_macs(self.budget_macs)}-{self.identity}"

    @property
    def horizon(self) -> tuple[int, int]:
        """(epochs, training images of an epoch) of the runs that are asked for."""
        return self.recipe.epochs, self.recipe.train_images

    @property
    def run_recipe(self) -> Recipe:
        """The recipe as runs get it: in the folder's precision."""
        return replace(self.recipe, precision=self.precision)

    def to_toml(self) -> str:
        """The request as TOML; `read_settings` gives back an equal one."""
        return tomli_w.dumps({"schema": SCHEMA, **asdict(self)})

    def as_request(self) -> SearchRequest:
        """A request that resolves to these settings: the way to repeat a search from its file."""
        return SearchRequest(
            budget_macs=self.budget_macs,
            data=self.data,
            split_seed=self.split_seed,
            base=self.base,
            sampler=self.sampler,
            trials=self.trials,
            proxy=self.proxy,
            proxy_base=self.trained_base if self.proxy else None,
            proxy_macs=self.trained_macs if self.proxy else 0,
            recipe=self.recipe,
            seeds=self.seeds,
            seed=self.seed,
        )

    def save(self, path: Path) -> None:
        """Write the request as TOML, atomically."""
        write_text_atomically(path, self.to_toml())


def resolve(
    request: SearchRequest,
    *,
    num_classes: int,
    channels: int,
    train_images: int,
    data_hash: str = "",
    precision: Precision = "fp32",
    pack_px: int = 0,
) -> Settings:
    """Fill in the defaults; the networks get the data set's classes and channels.

    `train_images` are those of the data set's training split. A recipe that wants more trains on
    all of them, for so many more epochs that a run sees as many images. Unless the request says
    otherwise, images are flipped and shifted where the split is so small that the default horizon
    sees each often: at every horizon of a search alike. Raises `RequestError` where the base is too
    near to the budget, or the twins cannot be built.
    """
    data = one_spelling(request.data)  # one folder name
    tour = data == TOUR_DATA
    default = default_base(request.budget_macs, num_classes, channels)
    base = fit_to_data(request.base or default, num_classes, channels)
    require_distance(base, request.budget_macs, better=default)
    require_reach(base, request.budget_macs)
    if request.proxy:
        trained_base = fit_to_data(request.proxy_base or PROXY_BASE, num_classes, channels)
        # Shares carry over from twin to candidate, the amount of growth need not.
        ratio = request.budget_macs / cost(base).macs
        growth = TOUR_DISTANCE if tour else max(ratio, PROXY_DISTANCE)
        trained_macs = request.proxy_macs or round(cost(trained_base).macs * growth)
        require_proxy(trained_base, trained_macs)
    else:
        trained_base, trained_macs = base, request.budget_macs
    usual = _fitted(default_recipe(data), train_images)
    wanted = _overridden(request.recipe or default_recipe(data), request)
    recipe = _fitted(wanted, train_images)
    if request.epochs:
        recipe = replace(recipe, epochs=request.epochs)
    if request.augment is not None:
        recipe = recipe.augmented(request.augment)
    elif request.recipe is None:
        recipe = recipe.augmented(usual.epochs >= AUGMENTED_EPOCHS)
    return Settings(
        budget_macs=request.budget_macs,
        data=data,
        data_hash=data_hash,
        split_seed=request.split_seed,
        base=base,
        proxy=request.proxy,
        trained_base=trained_base,
        trained_macs=trained_macs,
        recipe=recipe,
        precision=precision,
        pack_px=pack_px,
        sampler=request.sampler,
        trials=request.trials or (TOUR_TRIALS if tour and request.proxy else TRIALS),
        seeds=request.seeds or 1,
        seed=request.seed,
        tour=tour,
    )


def default_recipe(data: str) -> Recipe:
    """A tour trains minutes on the digits; else 25,600 images a run, half of them new."""
    if data == TOUR_DATA:
        return Recipe(epochs=TOUR_EPOCHS)
    return Recipe(epochs=2, train_images=IMAGES_SEEN // 2)


def _fitted(recipe: Recipe, train_images: int) -> Recipe:
    """The recipe on a split of so many images: as many are seen, in more epochs if need be."""
    if recipe.train_images > train_images:
        epochs = math.ceil(recipe.epochs * recipe.train_images / train_images)
        return replace(recipe, train_images=train_images, epochs=epochs)
    return replace(recipe, train_images=recipe.train_images or train_images)


def _overridden(recipe: Recipe, request: SearchRequest) -> Recipe:
    names = ("train_images", "batch_size", "lr", "attention")
    wanted = {name: getattr(request, name) for name in names}
    return replace(recipe, **{name: value for name, value in wanted.items() if value is not None})


def require_proxy(trained_base: Variant, trained_macs: int) -> None:
    """Refuse twins whose attention degenerates or that leave no room to scale."""
    if trained_base.resolution_px < LEAST_PROXY_PX:
        raise RequestError(
            f"proxy base at {trained_base.resolution_px} px: below {LEAST_PROXY_PX} px the last "
            f"stage's attention has one key and no gradient; use {LEAST_PROXY_PX} px or more"
        )
    least = BASE_DISTANCE * cost(trained_base).macs
    if trained_macs < least:
        raise RequestError(
            f"proxy MACs {format_macs(trained_macs)} leave no room to scale the twin base "
            f"({format_macs(cost(trained_base).macs)}); use {format_macs(least * 1.01)} or more"
        )


def read_settings(path: Path) -> Settings:
    """Read a `request.toml`; raises `FileNotFoundError`, or a `CmtscaleError` if it is not one."""
    table = read_toml(path)
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
        return Settings(**table)
    except KeyError as error:
        raise RequestError(f"{path} lacks {error}; restore it") from error
    except (ValueError, TypeError) as error:  # all CmtscaleErrors of a variant or recipe are ones
        raise RequestError(f"{path} is no request: {error}; restore it") from error
