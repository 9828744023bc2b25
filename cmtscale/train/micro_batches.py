"""Batches in parts, where a GPU's memory is too small for whole ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from cmtscale.arch.variant import Variant
from cmtscale.model.cmt import stage_of_one_value
from cmtscale.train.out_of_memory import give_back, may_fit_when_smaller

Outcome = TypeVar("Outcome")


@dataclass(kw_only=True)
class AtOnce:
    """How many `images` a network sees at once: halved where memory is short, to `fewest`."""

    images: int
    fewest: int = 1

    def at_most(self, images: int) -> None:
        """No more than so many from now on."""
        self.images = min(self.images, images)

    def count(self, images: int) -> int:
        """In how many parts so many images are seen; none has fewer than `fewest`."""
        return max(1, min(math.ceil(images / self.images), images // self.fewest))

    def largest(self, images: int) -> int:
        """The size of the largest of these parts."""
        return math.ceil(images / self.count(images))

    def parts(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images, or what there is of each, in parts that are as good as equal."""
        return torch.tensor_split(images, self.count(len(images)))


@dataclass(kw_only=True)
class MicroBatches(AtOnce):
    """How many images of a `batch` training sees at once."""

    batch: int

    @classmethod
    def of(cls, variant: Variant, batch: int) -> "MicroBatches":
        """Whole batches of a network's training."""
        return cls(batch=batch, images=batch, fewest=fewest_in_training(variant))

    def words(self, stretches: Sequence[tuple[int, int]]) -> str:
        """What training has seen at once in its `stretches`; see `Progress`."""
        sizes = ", ".join(
            f"{f'from step {first} on ' if first > 1 else ''}in micro-batches of "
            + replace(self, images=images).size()
            for first, images in stretches
        )
        return f"batches of {self.batch} {sizes}; BatchNorm saw as many images at a time"

    def size(self) -> str:
        """How many images micro-batches have: `8`, or `8 to 9`."""
        least, most = self.batch // self.count(self.batch), self.largest(self.batch)
        return f"{most}" if least == most else f"{least} to {most}"

    def refusal(self, variant: Variant, device: torch.device) -> str:
        """Why a network whose fewest images are too many is not trained."""
        side = variant.resolution_px
        shape = f"{variant.in_channels}x{side}x{side}"
        tried = self.largest(self.batch)
        what = f"one image of {shape} does"
        if tried > 1:
            what = (
                f"{tried} images of {shape}, the fewest that BatchNorm trains with in batches of "
                f"{self.batch}, do"
            )
        return f"memory: {what} not fit into that of {_memory(device)}"


def fewest_in_training(variant: Variant) -> int:
    """How many images BatchNorm needs at least, to see two values of each channel."""
    side = variant.resolution_px
    return 1 if stage_of_one_value(variant, side, side) is None else 2


def halved_until_it_fits(attempt: Callable[[], Outcome], at_once: AtOnce) -> Outcome:
    """What `attempt` returns, after as many halvings of `at_once` as the device's memory needs.

    What a failed attempt held is given back first. Raises `torch.OutOfMemoryError` where the fewest
    images do not fit.
    """
    while True:
        try:
            return attempt()
        except RuntimeError as error:
            if not may_fit_when_smaller(error):
                raise
            give_back(error)
            if at_once.images <= at_once.fewest:
                raise torch.OutOfMemoryError(str(error)) from error
            at_once.at_most(max(at_once.images // 2, at_once.fewest))


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    return f"{device}, {total_bytes / 1e9:.1f} GB"
