"""Batches: order, augmentation, normalisation and resizing, the same for the same seed."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmtscale.data import batches as batching
from cmtscale.data.batches import (
    DeviceSplit,
    device_split,
    epoch_batches,
    eval_batches,
    read_ahead,
)
from cmtscale.data.dataset import Dataset
from cmtscale.data.epochs import batches_per_epoch
from cmtscale.data.sources import open_source

CPU = torch.device("cpu")


@pytest.fixture
def train(digits: Dataset) -> DeviceSplit:
    return device_split(digits, digits.splits.train, device=CPU)


@pytest.fixture
def photos(pets: Path, tmp_path: Path) -> Dataset:
    """40 RGB noise images, 40 x 40 px."""
    return open_source(f"folder:{pets}", cache_dir=tmp_path / "cache").pack(64)


def epoch(
    split: DeviceSplit,
    *,
    seed: int = 0,
    batch_size: int = 64,
    resolution_px: int = 8,
    flip: bool = False,
    shift: float = 0.0,
    first: int = 0,
) -> list[tuple[Tensor, Tensor]]:
    return list(
        epoch_batches(
            split,
            batch_size=batch_size,
            resolution_px=resolution_px,
            generator=torch.Generator().manual_seed(seed),
            flip=flip,
            shift_px_fraction=shift,
            first_batch=first,
        )
    )


def raw_pixels(split: DeviceSplit, images: Tensor) -> np.ndarray:
    """Batches at the stored side, back to uint8 (B, side, side, C)."""
    pixels = images.permute(0, 2, 3, 1) * split.std + split.mean
    return pixels.round().to(torch.uint8).numpy()


def held(split: DeviceSplit) -> DeviceSplit:
    """The same split with its images in memory, as on an accelerator."""
    return replace(split, images=torch.from_numpy(np.array(split.dataset.images[split.indices])))


def test_eval_batches_are_the_whole_split_in_order(digits: Dataset) -> None:
    split = device_split(digits, digits.splits.val, device=CPU)
    batches = list(eval_batches(split, batch_size=100, resolution_px=8))
    assert [len(labels) for _, labels in batches] == [100, 100, 70]
    images = torch.cat([images for images, _ in batches])
    assert np.array_equal(raw_pixels(split, images), digits.images[digits.splits.val])
    labels = torch.cat([labels for _, labels in batches])
    assert np.array_equal(labels.numpy(), digits.labels[digits.splits.val])


def test_an_epoch_shows_each_image_at_most_once_with_its_own_label(train: DeviceSplit) -> None:
    batches = epoch(train, batch_size=100)
    assert (
        [len(labels) for _, labels in batches]
        == [100] * 12
        == [100] * batches_per_epoch(len(train), 100)
    )
    pixels = np.concatenate([raw_pixels(train, images) for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches]).numpy()
    stored = train.dataset.images[train.indices]
    labels_by_image = {
        image.tobytes(): label for image, label in zip(stored, train.labels, strict=True)
    }
    assert len(labels_by_image) == len(stored)  # no two digits are alike
    assert len({image.tobytes() for image in pixels}) == 1200
    assert all(
        labels_by_image[image.tobytes()] == label
        for image, label in zip(pixels, labels, strict=True)
    )


def test_a_split_smaller_than_a_batch_is_one_batch(digits: Dataset) -> None:
    split = device_split(digits, digits.splits.train[:30], device=CPU)
    assert [len(labels) for _, labels in epoch(split, batch_size=64)] == [30]
    assert batches_per_epoch(len(split), 64) == 1


def test_the_same_generator_state_gives_the_same_batches_bitwise(photos: Dataset) -> None:
    split = device_split(photos, photos.splits.train, device=CPU)
    settings = {"batch_size": 8, "resolution_px": 64, "flip": True, "shift": 0.1}
    first, again, other = (epoch(split, seed=seed, **settings) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])


def test_batches_from_the_file_equal_those_from_memory(photos: Dataset) -> None:
    split = device_split(photos, photos.splits.train, device=CPU)
    assert (
        split.images is None
    )  # on the CPU batches are read from the file, whose pages workers share
    settings = {"batch_size": 8, "resolution_px": 64, "flip": True, "shift": 0.1}
    for (a, x), (b, y) in zip(
        epoch(split, **settings), epoch(held(split), **settings), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(x, y)
    pairs = zip(
        eval_batches(split, batch_size=9, resolution_px=32),
        eval_batches(held(split), batch_size=9, resolution_px=32),
        strict=True,
    )
    assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_the_generator_moves_by_whole_epochs_whatever_the_recipe(train: DeviceSplit) -> None:
    states = []
    for flip, shift, resolution_px in ((False, 0.0, 8), (True, 0.2, 64)):
        generator = torch.Generator().manual_seed(0)
        epoch_batches(
            train,
            batch_size=64,
            resolution_px=resolution_px,
            generator=generator,
            flip=flip,
            shift_px_fraction=shift,
        )  # not iterated
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_augmentation_is_independent_of_the_order_of_images(train: DeviceSplit) -> None:
    plain, shifted = epoch(train), epoch(train, shift=0.2)
    assert all(torch.equal(x, y) for (_, x), (_, y) in zip(plain, shifted, strict=True))


@pytest.mark.parametrize("flip", [False, True])
def test_every_image_is_a_mirrored_and_reflected_shift_of_its_own(
    photos: Dataset, flip: bool
) -> None:
    split = device_split(photos, photos.splits.train, device=CPU)
    plain = raw_pixels(split, epoch(split, batch_size=28, resolution_px=40)[0][0])
    augmented = raw_pixels(
        split, epoch(split, batch_size=28, resolution_px=40, flip=flip, shift=0.05)[0][0]
    )
    shifts = []
    for image, result in zip(plain, augmented, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        shifts += [
            (y, x, mirrored)
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
            if np.array_equal(padded[y : y + 40, x : x + 40][:, :: -1 if mirrored else 1], result)
        ]
    assert len(shifts) == 28
    ys, xs, mirrors = zip(*shifts, strict=True)
    assert set(ys) == set(xs) == {0, 1, 2, 3, 4}
    assert set(mirrors) == ({False, True} if flip else {False})


def test_about_half_of_the_images_are_mirrored(digits: Dataset) -> None:
    free = replace(digits, may_flip=True)
    split = device_split(free, digits.splits.train, device=CPU)
    plain, flipped = epoch(split, batch_size=1257), epoch(split, batch_size=1257, flip=True)
    unequal = (plain[0][0] != flipped[0][0]).flatten(1).any(1)
    mirrored = (plain[0][0].flip(-1) == flipped[0][0]).flatten(1).all(1)
    assert (unequal <= mirrored).all()
    # binomial, n = 1257: five standard deviations are 7 %
    assert 0.43 < unequal.float().mean() < 0.57


def test_digits_are_never_mirrored(train: DeviceSplit) -> None:
    for (plain, _), (asked, _) in zip(epoch(train), epoch(train, flip=True), strict=True):
        assert torch.equal(plain, asked)


def test_training_images_have_zero_mean_and_unit_deviation(
    digits: Dataset, photos: Dataset
) -> None:
    for data in (digits, photos):
        split = device_split(data, data.splits.train, device=CPU)
        side_px = data.images.shape[1]
        ((images, _),) = eval_batches(split, batch_size=len(split), resolution_px=side_px)
        # float32 sums over 10^5 pixels
        assert images.mean((0, 2, 3)).tolist() == pytest.approx([0] * data.channels, abs=1e-5)
        std = images.std((0, 2, 3), unbiased=False)
        assert std.tolist() == pytest.approx([1] * data.channels, abs=1e-5)


@pytest.mark.parametrize("resolution_px", [32, 40, 96])
def test_resizing_is_bilinear_antialiased_and_keeps_channels_last(
    photos: Dataset, resolution_px: int
) -> None:
    split = device_split(photos, photos.splits.val, device=CPU)
    ((images, _),) = eval_batches(split, batch_size=6, resolution_px=resolution_px)
    assert images.shape == (6, 3, resolution_px, resolution_px)
    assert images.is_contiguous(memory_format=torch.channels_last)
    stored = torch.from_numpy(np.array(photos.images[photos.splits.val])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (photos.mean, photos.std))
    # reference: resize first, in double precision, then normalise
    expected = F.interpolate(
        stored.double() / 255,
        size=(resolution_px, resolution_px),
        mode="bilinear",
        antialias=resolution_px < 40,
    )
    # interpolation weights in float32: 1e-5 of values of about 1
    torch.testing.assert_close(images.double(), (expected - mean) / std, rtol=0, atol=1e-4)
    low, high = (0 - mean) / std, (1 - mean) / std
    assert (images >= low - 1e-5).all()
    assert (images <= high + 1e-5).all()


# --- reading ahead, as for CUDA


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Read batches as for CUDA; returns the tensors that the thread pinned."""
    tensors: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:
        assert threading.current_thread() is not threading.main_thread()
        tensors.append(tensor)
        return tensor

    monkeypatch.setattr(batching, "_reads_ahead", lambda _device: True)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    return tensors


def test_batches_read_ahead_equal_the_plain_ones_bitwise(
    photos: Dataset, pinned: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = device_split(photos, photos.splits.train, device=CPU)
    settings = {"batch_size": 8, "resolution_px": 64, "flip": True, "shift": 0.1}

    def all_batches() -> list[tuple[Tensor, Tensor]]:
        evaluated = eval_batches(split, batch_size=9, resolution_px=32)
        return [*epoch(split, **settings), *evaluated]

    threads = threading.active_count()
    ahead = all_batches()
    assert len(pinned) == 2 * len(ahead)
    assert threading.active_count() == threads
    monkeypatch.undo()
    plain = all_batches()
    assert all(
        torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(ahead, plain, strict=True)
    )


def test_a_cpu_reads_without_a_thread(train: DeviceSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "read_ahead", None)
    assert len(epoch(train)) == batches_per_epoch(len(train), 64)


def test_one_part_is_gathered_ahead_and_no_more() -> None:
    gathered: list[int] = []
    begun = {number: threading.Event() for number in range(4)}

    def gather(number: int) -> int:
        gathered.append(number)
        begun[number].set()
        return 10 * number

    results = []
    for result in read_ahead(gather, range(4)):
        results.append(result)
        if result < 30:
            assert begun[result // 10 + 1].wait(
                timeout=10
            )  # the next part is gathered while this one is used
        assert len(gathered) == min(4, result // 10 + 2)
    assert results == [0, 10, 20, 30]
    assert gathered == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [1, 2, 3])
def test_an_epoch_that_is_gone_on_with_has_the_same_batches(
    photos: Dataset, pinned: list[Tensor], first: int
) -> None:
    split = device_split(photos, photos.splits.train, device=CPU)
    settings = {"batch_size": 8, "resolution_px": 64, "flip": True, "shift": 0.1}
    whole = epoch(split, **settings)
    assert len(whole) == 3
    pinned.clear()
    rest = epoch(split, **settings, first=first)
    assert len(pinned) == 2 * len(rest)  # what is left out is not read
    assert all(
        torch.equal(a, b) and torch.equal(x, y)
        for (a, x), (b, y) in zip(whole[first:], rest, strict=True)
    )


@pytest.mark.parametrize("bad", [0, 1, 3])
def test_an_error_in_the_thread_is_raised_at_its_batch(bad: int) -> None:
    def gather(number: int) -> int:
        if number == bad:
            raise OSError(f"part {number} is unreadable")
        return number

    threads = threading.active_count()
    results = []
    with pytest.raises(OSError, match=f"part {bad} is unreadable"):
        results.extend(read_ahead(gather, range(4)))
    assert results == list(range(bad))
    assert threading.active_count() == threads


def test_a_file_that_cannot_be_read_ends_the_epoch_with_its_error(
    train: DeviceSplit, pinned: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> np.ndarray:
        raise OSError("the file is gone")

    threads = threading.active_count()
    monkeypatch.setattr(batching, "_read", read)
    with pytest.raises(OSError, match="the file is gone"):
        epoch(train)
    assert pinned == []
    assert threading.active_count() == threads


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_the_thread_ends_with_an_abandoned_epoch(
    train: DeviceSplit, pinned: list[Tensor], taken: int
) -> None:
    threads = threading.active_count()
    batches = epoch_batches(
        train,
        batch_size=64,
        resolution_px=8,
        generator=torch.Generator(),
        flip=False,
        shift_px_fraction=0.0,
    )
    for _ in range(taken):
        next(batches)
    assert threading.active_count() == threads + bool(taken)
    del batches
    assert threading.active_count() == threads
    assert len(pinned) == (2 * (taken + 1) if taken else 0)


@pytest.mark.gpu
def test_batches_read_ahead_for_a_gpu_equal_those_it_holds(photos: Dataset) -> None:
    holding = device_split(photos, photos.splits.train, device=torch.device("cuda"))
    reading = replace(holding, images=None, labels=holding.labels.cpu())
    images, labels = batching._gather(reading, torch.arange(3), pinned=True)
    assert images.is_pinned()
    assert labels.is_pinned()
    settings = {"batch_size": 8, "resolution_px": 64, "flip": True, "shift": 0.1}
    for (a, x), (b, y) in zip(epoch(holding, **settings), epoch(reading, **settings), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(x, y)


@pytest.mark.gpu
def test_batches_on_the_gpu_equal_those_on_the_cpu(photos: Dataset) -> None:
    on_cpu = device_split(photos, photos.splits.train, device=CPU)
    on_gpu = device_split(photos, photos.splits.train, device=torch.device("cuda"))
    assert on_gpu.images is not None
    settings = {"batch_size": 8, "resolution_px": 64, "flip": True, "shift": 0.1}
    for (a, x), (b, y) in zip(epoch(on_cpu, **settings), epoch(on_gpu, **settings), strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=0, atol=1e-5)
        assert torch.equal(x, y.cpu())
