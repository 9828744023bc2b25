"""Batches of images that worker processes open and augment, or this one with 0 workers.

Images are (B, C, S, S) float, normalised; labels (B,) int64. Nothing depends on the number of
workers.
"""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
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
READER = "reads images"  # the name of each worker, which tells it from other processes

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

    Raises `TrainingError` for an image that cannot be read.
    """
    for batch in loader:
        if isinstance(batch, Unreadable):
            raise TrainingError(f"{batch.message}; then the same command goes on")
        images, labels = batch
        yield (
            images.to(device, non_blocking=True, memory_format=torch.channels_last),
            labels.to(device, non_blocking=True),
        )


@contextmanager
def workers_watched() -> Iterator[None]:
    """Raises `TrainingError` where a worker was killed; no error leaves workers behind.

    torch tells of a dead worker by an error in the main thread, whatever that is doing.
    """
    others = multiprocessing.active_children()
    try:
        yield
    except BaseException as error:
        _end_workers(others)
        if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that reads images has ended ({first_line(error)}); use fewer --workers if "
            "memory is short, the same command goes on"
        ) from error


def _end_workers(others: list[BaseProcess]) -> None:
    """End the processes that read images, but the others; they ignore SIGTERM."""
    with _without_handler_of_ended_workers():
        for child in multiprocessing.active_children():
            if child.name == READER and child not in others:
                child.kill()
                child.join()


@contextmanager
def _without_handler_of_ended_workers() -> Iterator[None]:
    """Torch's handler raises an error for each worker that was killed."""
    number = getattr(signal, "SIGCHLD", None)  # Windows has none
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(number, handler or signal.SIG_DFL)  # None: Python did not set it


def _options(workers: int, device: torch.device) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "multiprocessing_context": _readers() if workers else None,
        "prefetch_factor": PREFETCHED if workers else None,
        "pin_memory": device.type == "cuda",
        "collate_fn": _collate,
        "worker_init_fn": _leave_signals_to_the_parent,
        "generator": torch.Generator(),  # else each pass draws from that of the training
    }


def _readers() -> BaseContext:
    """Starts processes as multiprocessing does here, under the name of those that read images."""
    context: Any = copy(multiprocessing.get_context())
    context.Process = partial(context.Process, name=READER)
    assert isinstance(context, BaseContext)
    return context


def _collate(items: Sequence[Item | Unreadable]) -> Batch | Unreadable:
    read: list[Item] = []
    for item in items:
        if isinstance(item, Unreadable):
            return item
        read.append(item)
    return torch.stack([image for image, _ in read]), torch.tensor([label for _, label in read])


def _leave_signals_to_the_parent(_: int) -> None:
    """Signals often go to all processes at once, and the parent still needs images to stop well."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
