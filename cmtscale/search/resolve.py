"""A request's defaults, filled in for a data set that is known by its description."""

import math
from dataclasses import replace

from cmtscale.arch.base import BASE_DISTANCE, default_base, require_distance, require_reach
from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.twins import LEAST_PROXY_PX, PROXY_BASE
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Description
from cmtscale.search.family import member_base
from cmtscale.search.ladder import LONGEST_TARGET, PRESETS, horizon_of_rung
from cmtscale.search.request import ALL_IMAGES, TOUR_DATA, SearchRequest
from cmtscale.search.settings import Settings
from cmtscale.train.recipe import AUGMENTED_EPOCHS, Recipe

PROXY_DISTANCE = 6.25  # the twin base's: two 32 px steps of resolution fit into it
TRIALS = 20
IMAGES_SEEN = 6_000  # in a run of the first rung, whatever the size of the data set
TOLERANCE = 0.01  # of the loss: what is as good as the best
TOUR_TRIALS, TOUR_DISTANCE, TOUR_EPOCHS = 5, 4.5, 3  # two minutes on two cores


def resolve(request: SearchRequest, data: Description) -> Settings:
    """Fill in the defaults; the networks get the data set's classes and channels.

    A recipe that wants more training images than there are trains on all of them, for so many more
    epochs that a run sees as many images. Unless the request says otherwise, images are flipped and
    shifted where the split is so small that the default horizon sees each often: at every horizon
    of a search alike. `data_hash`, `pack_px` and `precision` stay empty: the packed images and the
    device decide them (`prepare`). Raises `RequestError` where the base is too near to the searched
    budget or too far from one of the family, or the twins cannot be built.
    """
    tour = request.data == TOUR_DATA
    if request.base is None:
        base = default_base(request.budget_macs, data.num_classes, data.channels)
    else:
        base = fit_to_data(request.base, data.num_classes, data.channels)
    require_distance(base, request.budget_macs)
    for macs in (request.budget_macs, *request.family):
        require_reach(base, macs)
    for macs in request.family:
        member_base(base, request.budget_macs, macs)  # refused now, not when all is trained
    if request.proxy:
        twin_base = request.proxy_base or PROXY_BASE
        trained_base = fit_to_data(twin_base, data.num_classes, data.channels)
        # Shares carry over from twin to candidate, the amount of growth need not.
        ratio = request.budget_macs / cost(base).macs
        if ratio < 1:
            raise RequestError(
                f"base {base.name} ({format_macs(cost(base).macs)}) is above the budget "
                f"{format_macs(request.budget_macs)}: twins grow, and their shares say nothing "
                f"about what to take away; leave --base away, or train the real ones (--no-proxy)"
            )
        growth = TOUR_DISTANCE if tour else max(ratio, PROXY_DISTANCE)
        trained_macs = request.proxy_macs or round(cost(trained_base).macs * growth)
        require_proxy(trained_base, trained_macs)
    else:
        trained_base, trained_macs = base, request.budget_macs
    recipe = _recipe(request, data.train_images)
    assert recipe.train_images is not None
    settings = Settings(
        budget_macs=request.budget_macs,
        data=request.data,
        data_hash="",
        split_seed=request.split_seed,
        base=base,
        proxy=request.proxy,
        trained_base=trained_base,
        trained_macs=trained_macs,
        recipe=recipe,
        precision="fp32",
        pack_px=0,
        sampler=request.sampler,
        trials=request.trials or (TOUR_TRIALS if tour and request.proxy else TRIALS),
        seeds=request.seeds or 1,
        seed=request.seed,
        pool_images=data.train_images if recipe.epochs == 1 else recipe.train_images,
        ladder=request.ladder or PRESETS["flat" if tour else "standard"],
        target_images=0,
        tolerance=request.tolerance or TOLERANCE,
        prefer=request.prefer or "latency",
        max_seconds=request.max_seconds,
        tour=tour,
        max_params=request.max_params,
        max_activations=request.max_activations,
        max_latency_seconds=request.max_latency_seconds,
        family=request.family,
    )
    target_images = _target_images(request, settings, data.train_images)
    return replace(settings, target_images=target_images)


def default_recipe(data: str) -> Recipe:
    """A tour trains minutes on the digits; else a run of the first rung sees 6,000 images."""
    if data == TOUR_DATA:
        return Recipe(epochs=TOUR_EPOCHS)
    return Recipe(epochs=1, train_images=IMAGES_SEEN)


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


def _recipe(request: SearchRequest, train_images: int) -> Recipe:
    """The recipe of the request for a training split of so many images."""
    default = _fitted(default_recipe(request.data), train_images)
    recipe = _fitted(request.recipe or default, train_images)
    names = ("epochs", "batch_size", "lr", "attention")
    asked = {name: getattr(request, name) for name in names}
    recipe = replace(recipe, **{name: value for name, value in asked.items() if value is not None})
    if request.train_images is not None:
        count = train_images if request.train_images == ALL_IMAGES else request.train_images
        if count > train_images:
            raise RequestError(
                f"train_images {count} are more than the {train_images} of the training split; "
                f"use {train_images} or fewer, or 'all'"
            )
        if request.epochs is None and request.recipe is None and request.data != TOUR_DATA:
            recipe = replace(recipe, epochs=math.ceil(IMAGES_SEEN / count))
        recipe = replace(recipe, train_images=count)
    if request.augment is not None:
        return recipe.augmented(request.augment)
    if request.recipe is None:
        epochs = _default_epochs(request.data, default, train_images)
        return recipe.augmented(epochs >= AUGMENTED_EPOCHS)
    return recipe


def _default_epochs(data: str, default: Recipe, train_images: int) -> int:
    """How often a run of the last rung of the default ladder sees an image."""
    assert default.train_images is not None
    ladder = PRESETS["flat" if data == TOUR_DATA else "standard"]
    pool = train_images if default.epochs == 1 else default.train_images
    first = (default.epochs, default.train_images)
    return horizon_of_rung(ladder.rungs - 1, first, pool_images=pool)[0]


def _target_images(request: SearchRequest, settings: Settings, train_images: int) -> int:
    """The images seen in the training that is asked about; by default those of the last rung."""
    shortest, longest = settings.images_seen[0], settings.images_seen[-1]
    target = request.target_images
    if request.target_epochs is not None:
        target = request.target_epochs * train_images
    if target is None:
        return longest
    if target != longest and settings.ladder.rungs == 1:
        raise RequestError(
            f"runs of one length say nothing of a target of {target:,} images; use {longest:,}, or "
            f"a ladder with more rungs (--ladder)"
        )
    if target > LONGEST_TARGET * longest:
        raise RequestError(
            f"a target of {target:,} images is more than {LONGEST_TARGET} times the {longest:,} "
            f"that the longest runs see; use {LONGEST_TARGET * longest:,} or fewer, or a ladder "
            f"with more rungs (--ladder)"
        )
    if target < shortest:
        raise RequestError(
            f"a target of {target:,} images is below the {shortest:,} that the shortest runs see; "
            f"use {shortest:,} or more, or shorter runs (--train-images)"
        )
    return target


def _fitted(recipe: Recipe, train_images: int) -> Recipe:
    """The recipe on a split of so many images: as many are seen, in more epochs if need be."""
    wanted = recipe.train_images or train_images
    if wanted <= train_images:
        return replace(recipe, train_images=wanted)
    epochs = math.ceil(recipe.epochs * wanted / train_images)
    return replace(recipe, train_images=train_images, epochs=epochs)
