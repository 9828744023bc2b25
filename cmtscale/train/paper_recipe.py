"""The paper's training, for the published variants and for networks of other sizes."""

import math
from dataclasses import dataclass, replace

from cmtscale.arch import paper
from cmtscale.arch.cost import cost
from cmtscale.arch.network import Network
from cmtscale.arch.variant import Variant, published_variants
from cmtscale.train.full_recipe import FullRecipe


@dataclass(frozen=True, kw_only=True)
class PaperRecipe:
    """A recipe, and the published variant whose recipe it is.

    `is_own` says whether the network that it was asked for is that variant.
    """

    recipe: FullRecipe
    variant: str
    is_own: bool


def paper_recipe(network: Network, macs: int) -> PaperRecipe:
    """The recipe of the published variant that `network` is, or else of the nearest in log MACs.

    `macs` are those of the network at its resolution.
    """
    for variant in published_variants():
        if _same_at_any_size(network, variant):
            recipe = published_recipe(variant.name)
            return PaperRecipe(recipe=recipe, variant=variant.name, is_own=True)
    return nearest_recipe(macs)


def nearest_recipe(macs: int) -> PaperRecipe:
    """The recipe of the published variant that is nearest to so many MACs, in their logarithm."""
    variant = nearest_variant(macs)
    return PaperRecipe(recipe=published_recipe(variant.name), variant=variant.name, is_own=False)


def nearest_variant(macs: int) -> Variant:
    """The published variant that is nearest to so many MACs, in their logarithm."""
    published = published_variants()
    return min(published, key=lambda variant: abs(math.log(cost(variant).macs / macs)))


def _same_at_any_size(network: Network, variant: Variant) -> bool:
    """Whether they differ in nothing but name, input and classes."""
    return isinstance(network, Variant) and (
        (network.stem_channels, network.stages) == (variant.stem_channels, variant.stages)
    )


def published_recipe(name: str) -> FullRecipe:
    """The recipe that a published variant was trained with."""
    row = paper.TRAININGS[name]
    return FullRecipe(
        epochs=row.epochs,
        batch_size=row.gpu_batch_size * paper.TRAINING_GPUS,
        lr=row.lr,
        warmup_epochs=paper.WARMUP_EPOCHS,
        warmup_lr=row.warmup_lr,
        min_lr=row.min_lr,
        weight_decay=row.weight_decay,
        drop_path=row.drop_path,
        dropout=row.dropout,
        ema_decay=row.ema_decay,
    )


def with_epochs(recipe: FullRecipe, epochs: int) -> FullRecipe:
    """The recipe for another length; the warm-up keeps its part of it."""
    warmup = recipe.warmup_epochs * epochs / recipe.epochs
    return replace(recipe, epochs=epochs, warmup_epochs=warmup)
