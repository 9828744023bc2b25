"""Augmentation as a recipe says, of timm's parts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cmtscale.data.batches import Batch
from cmtscale.data.draws import drawing
from cmtscale.record.model_folder import Preprocessing
from cmtscale.train.full_recipe import FullRecipe


def make_augment(
    recipe: FullRecipe, preprocessing: Preprocessing, *, may_flip: bool
) -> Callable[[Image.Image], Tensor]:
    """From an image at its own size to a normalised (C, S, S), as DeiT does it.

    Draws from the generators of Python, numpy and torch.
    """
    from timm.data.transforms_factory import create_transform

    side = preprocessing.resolution_px
    transform: Callable[[Image.Image], Tensor] = create_transform(
        input_size=(preprocessing.channels, side, side),
        is_training=True,
        scale=(recipe.smallest_crop, 1.0),
        hflip=0.5 if recipe.flip and may_flip else 0.0,
        color_jitter=recipe.colour_jitter,
        auto_augment=recipe.rand_augment,
        interpolation="bicubic",
        mean=preprocessing.mean,
        std=preprocessing.std,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
    )
    for part in transform.transforms:  # type: ignore[attr-defined]  # a Compose
        for operation in getattr(part, "ops", ()):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = partial(_posterize, operation.aug_fn)
    return transform


def _posterize(
    posterize: Callable[..., Image.Image], image: Image.Image, bits: int, **details: Any
) -> Image.Image:
    """At least one bit: timm's largest magnitude asks for none, which Pillow 13 refuses."""
    return posterize(image, max(1, bits), **details)


class Mix:
    """Mixup and CutMix of batches, and the loss of what they give."""

    def __init__(self, recipe: FullRecipe, num_classes: int) -> None:
        from timm.data.mixup import Mixup

        self.smoothing = recipe.label_smoothing
        self._mixup: Any = None
        if recipe.mixes:
            self._mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                prob=recipe.mix_probability,
                switch_prob=0.5,
                mode="batch",
                label_smoothing=recipe.label_smoothing,
                num_classes=num_classes,
            )

    def mixed(self, images: Tensor, labels: Tensor, *, seed: int) -> Batch:
        """Images and, where batches are mixed, labels (B, classes); draws begin with `seed`."""
        if self._mixup is None:
            return images, labels
        with drawing(seed):
            mixed: Batch = self._mixup(images, labels)
        return mixed

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats; mixed targets are smoothed already."""
        smoothing = 0.0 if self._mixup is not None else self.smoothing
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
