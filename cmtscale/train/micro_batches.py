"""Batches in parts, where a GPU's memory is too small for whole ones."""

import gc
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cmtscale.arch.variant import Variant
from cmtscale.model.cmt import stage_of_one_value

Outcome = TypeVar("Outcome")


@dataclass(kw_only=True)
class MicroBatches:
    """How many `images` a network sees at once: `whole` batches, until memory is short.

    Fewer than `fewest` cannot train.
    """

    whole: int
    images: int
    fewest: int = 1

    @classmethod
    def of(cls, variant: Variant, batch: int) -> "MicroBatches":
        """Whole batches of a network's training."""
        side = variant.resolution_px
        fewest = 1 if stage_of_one_value(variant, side, side) is None else 2
        return cls(whole=batch, images=batch, fewest=fewest)

    def at_most(self, images: int) -> None:
        """No more than so many from now on."""
        self.images = min(self.images, images)

    def count(self, images: int) -> int:
        """In how many parts so many images are seen."""
        if self.images == self.whole:
            return 1
        return max(1, min(math.ceil(images / self.images), images // self.fewest))

    def parts(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images, or what there is of each, in parts that are as good as equal."""
        return torch.tensor_split(images, self.count(len(images)))

    def words(self, batch: int) -> str:
        """What training has seen at once where that is less than a batch of so many; else empty."""
        count = self.count(batch)
        if count == 1:
            return ""
        least, most = batch // count, math.ceil(batch / count)
        size = f"{most}" if least == most else f"{least} to {most}"
        images = "image" if most == 1 else "images"
        return (
            f"memory: batches of {batch} in micro-batches of {size}; "
            f"BatchNorm saw {size} {images} at a time"
        )

    def refusal(self, variant: Variant, device: torch.device) -> str:
        """Why a network whose fewest images are too many is not trained."""
        side = variant.resolution_px
        count = "one image" if self.fewest == 1 else "two images, the fewest for BatchNorm,"
        verb = "does" if self.fewest == 1 else "do"
        return (
            f"memory: {count} of {variant.in_channels}x{side}x{side} {verb} not fit into that of "
            f"{device}"
        )


def halved_until_it_fits(attempt: Callable[[], Outcome], micro_batches: MicroBatches) -> Outcome:
    """What `attempt` returns, after as many halvings of `micro_batches` as its memory needs.

    What a failed attempt held is given back first. Raises `torch.OutOfMemoryError` where the fewest
    images do not fit.
    """
    while True:
        try:
            return attempt()
        except torch.OutOfMemoryError as error:
            traceback.clear_frames(error.__traceback__)  # a network and a half-built graph
            gc.collect()
            torch.cuda.empty_cache()
            if micro_batches.images <= micro_batches.fewest:
                raise
            micro_batches.at_most(max(micro_batches.images // 2, micro_batches.fewest))
