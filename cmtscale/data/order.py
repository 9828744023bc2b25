"""Which images each step of a training sees: one list per epoch, whoever trains."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

from cmtscale.data.draws import Purpose, derived_seed
from cmtscale.data.epochs import batches_per_epoch


class Draw(NamedTuple):
    """An image of a data set, and where in the training it is seen."""

    image: int
    epoch: int
    position: int  # in the epoch's order


@dataclass(frozen=True, kw_only=True)
class TrainingOrder:
    """The images of all steps.

    An epoch has as many places as there are `images`; with `repeats` an image has several of them
    in a row, and so many fewer are seen (timm's RepeatAugSampler). A step takes `batch_images`; the
    last, smaller batch is dropped. A step's images are dealt to `parts`, one after the other, so
    that repeats of an image are spread over them.
    """

    images: int
    batch_images: int
    parts: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        assert self.batch_images % self.parts == 0
        assert self.batch_images <= self.images

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return batches_per_epoch(self.images, self.batch_images)

    def epoch(self, epoch: int) -> list[int]:
        """The images (from 0) in the order of an epoch."""
        seed = derived_seed(self.seed, Purpose.ORDER, epoch)
        if self.repeats == 1:
            generator = torch.Generator().manual_seed(seed)
            return torch.randperm(self.images, generator=generator).tolist()
        from timm.data.distributed_sampler import RepeatAugSampler

        sampler = RepeatAugSampler(
            range(self.images),
            num_replicas=1,
            rank=0,
            num_repeats=self.repeats,
            selected_round=0,
        )
        sampler.set_epoch(seed)
        return list(sampler)

    def part(self, order: list[int], step: int, part: int) -> list[Draw]:
        """What one of the parts of a step sees; `order` is that of the step's epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        first = number * self.batch_images
        positions = range(first + part, first + self.batch_images, self.parts)
        return [Draw(order[position], epoch, position) for position in positions]


class PartSampler(Sampler[list[Draw]]):
    """The batches of one process: `parts` of each step from `first_step` to before `last_step`."""

    def __init__(
        self, order: TrainingOrder, *, parts: range, first_step: int, last_step: int
    ) -> None:
        self.order = order
        self.parts = parts
        self.first_step = first_step
        self.last_step = last_step

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * len(self.parts)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, images = -1, list[int]()
        for step in range(self.first_step, self.last_step):
            if step // self.order.steps_per_epoch != epoch:
                epoch = step // self.order.steps_per_epoch
                images = self.order.epoch(epoch)
            for part in self.parts:
                yield self.order.part(images, step, part)
