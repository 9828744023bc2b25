"""Batches on the device: selection, flip, shift, normalisation and resizing.

Random numbers are drawn on the CPU, once per epoch and always the same amount, so that the order
and the augmentation depend on neither the device nor the resolution.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cmtscale.data.dataset import Dataset
from cmtscale.data.decode import to_input
from cmtscale.data.epochs import batches_per_epoch
from cmtscale.data.splits import IntArray

HELD_FRACTION = 0.25  # of the free device memory: train, val and test still leave room to train

Batch = tuple[Tensor, Tensor]
Part = TypeVar("Part")
Gathered = TypeVar("Gathered")


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceSplit:
    """Some images of a data set, ready to be batched on `device`.

    `images` is uint8 (n, side, side, C) on the device if they take less than a quarter of its free
    memory. Otherwise, and always on the CPU, it is None and batches are read from the
    memory-mapped file, whose pages all workers of a machine share; for a CUDA device a thread reads
    one batch ahead. `labels` lie beside them.
    `mean` and `std` are (C,), for pixels in [0, 255].
    """

    dataset: Dataset
    indices: IntArray
    device: torch.device
    images: Tensor | None
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.indices)


def device_split(dataset: Dataset, indices: IntArray, *, device: torch.device) -> DeviceSplit:
    """Bring the images at `indices` to the device, or leave them in the file."""
    size_bytes = len(indices) * dataset.images[0].nbytes
    is_held = _is_held(size_bytes, _free_bytes(device))
    labels = torch.from_numpy(dataset.labels[indices])
    return DeviceSplit(
        dataset=dataset,
        indices=indices,
        device=device,
        images=torch.from_numpy(_read(dataset, indices)).to(device) if is_held else None,
        labels=labels.to(device) if is_held else labels,
        mean=torch.tensor(dataset.mean, device=device) * 255,
        std=torch.tensor(dataset.std, device=device) * 255,
    )


def held_bytes(dataset: Dataset, counts: Iterable[int], *, free_bytes: int) -> int:
    """What splits of so many images take of a device with so much free memory."""
    sizes = [count * dataset.images[0].nbytes for count in counts]
    return sum(size for size in sizes if _is_held(size, free_bytes))


def epoch_batches(
    split: DeviceSplit,
    *,
    batch_size: int,
    resolution_px: int,
    generator: torch.Generator,
    flip: bool,
    shift_px_fraction: float,
    first_batch: int = 0,
) -> Iterator[Batch]:
    """One shuffled epoch of (float images (B, C, S, S), channels last, normalised; labels (B,)).

    Each image is mirrored with probability ½ if `flip` is set and the data set allows it, and
    moved by whole stored pixels, up to `shift_px_fraction` of its side each way, with reflection
    at the edges. The last, smaller batch is dropped. `generator` is a CPU generator; it has
    advanced by the whole epoch when this function returns. Batches before `first_batch` are drawn
    and left out.
    """
    count, home = len(split), split.labels.device
    reach_px = round(shift_px_fraction * split.dataset.images.shape[1])
    assert 0 <= reach_px < split.dataset.images.shape[1]
    order = torch.randperm(count, generator=generator).to(home)
    mirrored = (torch.rand(count, generator=generator) < 0.5).to(split.device)
    moves = torch.rand(count, 2, generator=generator).to(split.device)
    moves_px = (moves * (2 * reach_px + 1)).long() - reach_px
    mirrored &= flip and split.dataset.may_flip

    parts = [
        slice(number * batch_size, (number + 1) * batch_size)
        for number in range(first_batch, batches_per_epoch(count, batch_size))
    ]

    def batches() -> Iterator[Batch]:
        with closing(_selections(split, [order[part] for part in parts])) as selections:
            for part, (images, labels) in zip(parts, selections, strict=True):
                if flip or reach_px:
                    images = _augment(images, mirrored[part], moves_px[part])
                yield _to_input(split, images, resolution_px), labels

    return batches()


def eval_batches(split: DeviceSplit, *, batch_size: int, resolution_px: int) -> Iterator[Batch]:
    """The whole split in order, without augmentation; the last batch may be smaller."""
    order = torch.arange(len(split), device=split.labels.device)
    yield from plain_batches(split, order.split(batch_size), resolution_px=resolution_px)


def plain_batches(
    split: DeviceSplit, parts: Sequence[Tensor], *, resolution_px: int
) -> Iterator[Batch]:
    """A batch of each part, rows of the split on the device of its labels; not augmented."""
    with closing(_selections(split, parts)) as selections:
        for images, labels in selections:
            yield _to_input(split, images, resolution_px), labels


def read_ahead(
    gather: Callable[[Part], Gathered], parts: Sequence[Part]
) -> Generator[Gathered, None, None]:
    """`gather(part)` of each part in order; a thread gathers the next while one is used.

    An error in the thread is raised here, in the place of its part. The thread ends with the
    iterator, also with one that is closed early.
    """
    if not parts:
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        following = thread.submit(gather, parts[0])
        for part in parts[1:]:
            gathered = following.result()
            following = thread.submit(gather, part)
            yield gathered
        yield following.result()


def _read(dataset: Dataset, indices: IntArray) -> npt.NDArray[np.uint8]:
    return np.asarray(dataset.images[indices])


def _is_held(size_bytes: int, free_bytes: int) -> bool:
    return size_bytes < HELD_FRACTION * free_bytes


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0


def _selections(split: DeviceSplit, parts: Sequence[Tensor]) -> Generator[Batch, None, None]:
    """The rows of each part: images (B, side, side, C) uint8 and labels (B,) on the device."""
    if split.images is not None:
        for rows in parts:
            yield split.images[rows], split.labels[rows]
    elif _reads_ahead(split.device):
        with closing(read_ahead(partial(_gather, split, pinned=True), parts)) as gathered:
            for images, labels in gathered:
                yield (
                    images.to(split.device, non_blocking=True),
                    labels.to(split.device, non_blocking=True),
                )
    else:
        for rows in parts:
            images, labels = _gather(split, rows, pinned=False)
            yield images.to(split.device), labels.to(split.device)


def _reads_ahead(device: torch.device) -> bool:
    """Whether a thread reads and the device copies while it computes: on CUDA alone."""
    return device.type == "cuda"


def _gather(split: DeviceSplit, rows: Tensor, *, pinned: bool) -> Batch:
    """Images and labels in the host's memory; `pinned`, a GPU copies them by itself."""
    images = torch.from_numpy(_read(split.dataset, split.indices[rows.numpy()]))
    labels = split.labels[rows]
    return (images.pin_memory(), labels.pin_memory()) if pinned else (images, labels)


def _augment(images: Tensor, mirrored: Tensor, moves_px: Tensor) -> Tensor:
    """Mirror and move (B, side, side, C) images in one indexing, reflecting at the edges."""
    last = images.shape[1] - 1
    side = torch.arange(last + 1, device=images.device)
    ys, xs = (last - (last - (side + move[:, None]).abs()).abs() for move in moves_px.unbind(1))
    xs = torch.where(mirrored[:, None], last - xs, xs)
    batch = torch.arange(len(images), device=images.device)
    return images[batch[:, None, None], ys[:, :, None], xs[:, None, :]]


def _to_input(split: DeviceSplit, images: Tensor, resolution_px: int) -> Tensor:
    return to_input(images, mean=split.mean, std=split.std, resolution_px=resolution_px)
