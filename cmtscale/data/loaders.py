"""Batches of images that worker processes open and augment, or this one with 0 workers.

Images are (B, C, S, S) float, normalised; labels (B,) int64. Nothing depends on the number of
workers.
"""

import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cmtscale.arch.errors import DataError, TrainingError, first_line
from cmtscale.data.batches import Batch
from cmtscale.data.draws import Purpose, derived_seed, drawing
from cmtscale.data.order import Draw, PartSampler
from cmtscale.data.preprocess import Preprocess
from cmtscale.data.splits import IntArray
from cmtscale.data.stream import ImageSet

PREFETCHED = 4  # batches of each worker

Item = tuple[Tensor, int]


@dataclass(frozen=True)
class Unreadable:
    """What stands for an image that cannot be opened; workers cannot raise a one-line error."""

    message: str


class TrainingImages(Dataset[Item | Unreadable]):
    """Augmented images of a training split, addressed by what is drawn."""

    def __init__(
        self,
        image_set: ImageSet,
        indices: IntArray,
        augment: Callable[[Image.Image], Tensor],
        *,
        seed: int,
    ) -> None:
        self.images = image_set.images
        self.labels = image_set.labels
        self.indices = indices
        self.augment = augment
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Item | Unreadable:
        index = int(self.indices[draw.image])
        try:
            image = self.images.open(index)
        except DataError as error:
            return Unreadable(str(error))
        with drawing(derived_seed(self.seed, Purpose.SAMPLE, draw.epoch, draw.position)):
            return self.augment(image), int(self.labels[index])


class PlainImages(Dataset[Item | Unreadable]):
    """Images as a trained network takes them, in order."""

    def __init__(self, image_set: ImageSet, indices: IntArray, preprocess: Preprocess) -> None:
        self.images = image_set.images
        self.labels = image_set.labels
        self.indices = indices
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item | Unreadable:
        index = int(self.indices[position])
        try:
            return self.preprocess(self.images.open(index)), int(self.labels[index])
        except DataError as error:
            return Unreadable(str(error))


def training_loader(
    images: TrainingImages, sampler: PartSampler, *, workers: int, device: torch.device
) -> DataLoader[Any]:
    """One pass over a sampler's batches; workers read on across epochs."""
    return DataLoader(
        images,
        batch_sampler=sampler,
        **_options(workers, device),
    )


def plain_loader(
    images: PlainImages, *, batch_size: int, workers: int, device: torch.device
) -> DataLoader[Any]:
    """The images in order; the last batch may be smaller."""
    return DataLoader(
        images,
        batch_size=batch_size,
        **_options(workers, device),
    )


def read_batches(loader: DataLoader[Any], device: torch.device) -> Generator[Batch, None, None]:
    """The loader's batches on the device, channels last.

    Raises `TrainingError` for an image that cannot be read and where a worker was killed.
    """
    try:
        for batch in loader:
            if isinstance(batch, Unreadable):
                raise TrainingError(f"{batch.message}; then the same command goes on")
            images, labels = batch
            yield (
                images.to(device, non_blocking=True, memory_format=torch.channels_last),
                labels.to(device, non_blocking=True),
            )
    except RuntimeError as error:
        if isinstance(error, TrainingError) or "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads images has ended ({first_line(error)}); use fewer --workers if "
            "memory is short, the same command goes on"
        ) from error


def _options(workers: int, device: torch.device) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "prefetch_factor": PREFETCHED if workers else None,
        "pin_memory": device.type == "cuda",
        "collate_fn": _collate,
        "worker_init_fn": _leave_signals_to_the_parent,
        "generator": torch.Generator(),  # else each pass draws from that of the training
    }


def _collate(items: Sequence[Item | Unreadable]) -> Batch | Unreadable:
    read: list[Item] = []
    for item in items:
        if isinstance(item, Unreadable):
            return item
        read.append(item)
    return torch.stack([image for image, _ in read]), torch.tensor([label for _, label in read])


def _leave_signals_to_the_parent(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
