"""Images streamed one by one: folders of any size, and packed sets alike."""

import multiprocessing
import os
import pickle
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cmtscale.arch.errors import DataError, TrainingError
from cmtscale.data import stream
from cmtscale.data.loaders import PlainImages, plain_loader, read_batches, workers_watched
from cmtscale.data.preprocess import Preprocess
from cmtscale.data.sources import open_source
from cmtscale.data.stream import estimate_moments, fixed_subset, packed_images
from cmtscale.record.model_folder import Preprocessing

CPU = torch.device("cpu")


def preprocess(image_set, side=32):
    return Preprocess(
        Preprocessing(
            channels=image_set.channels,
            resolution_px=side,
            stored_px=side,
            crop_fraction=0.875,
            mean=(0.5,) * image_set.channels,
            std=(0.25,) * image_set.channels,
        )
    )


def batches(image_set, indices, *, workers=0):
    images = PlainImages(image_set, indices, preprocess(image_set))
    loader = plain_loader(images, batch_size=3, workers=workers, device=CPU)
    return list(read_batches(loader, CPU))


def test_a_folder_streams_in_the_splits_that_packing_gives_it(pets, tmp_path):
    for seed in (0, 1):
        source = open_source(f"folder:{pets}", split_seed=seed, cache_dir=tmp_path / "cache")
        streamed, packed = source.stream(), source.pack(32)
        assert streamed.splits.hash == packed.splits.hash
        assert np.array_equal(streamed.labels, packed.labels)
        assert streamed.class_names == packed.class_names
        assert (streamed.channels, streamed.native_px) == (packed.channels, packed.native_px)


def test_streaming_packs_nothing(pets, tmp_path):
    open_source(f"folder:{pets}", cache_dir=tmp_path / "cache").stream()
    assert not (tmp_path / "cache").exists()


def test_other_files_and_other_splits_are_other_images(pets):
    first = open_source(f"folder:{pets}").stream().content_hash
    assert open_source(f"folder:{pets}").stream().content_hash == first
    assert open_source(f"folder:{pets}", split_seed=1).stream().content_hash != first
    Image.new("RGB", (40, 40)).save(pets / "cat" / "new.png")
    assert open_source(f"folder:{pets}").stream().content_hash != first


def test_images_come_at_their_own_size_and_names_need_not_be_ascii(pets, write_images):
    write_images(pets / "Käfer", 4, size=(70, 50))
    Image.new("RGB", (70, 50), "red").save(pets / "Käfer" / "größer.png")
    image_set = open_source(f"folder:{pets}").stream()
    label = image_set.class_names.index("Käfer")
    ours = [int(index) for index in np.flatnonzero(image_set.labels == label)]
    images = [image_set.images.open(index) for index in ours]
    assert {image.size for image in images} == {(70, 50)}
    assert sum(image.getpixel((0, 0)) == (255, 0, 0) for image in images) == 1


def test_a_grey_folder_is_grey_by_its_sample(tmp_path, write_images, monkeypatch):
    for name in ("a", "b"):
        write_images(tmp_path / name, 10, mode="L")
    monkeypatch.setattr(stream, "HEADER_IMAGES", 5)
    image_set = open_source(f"folder:{tmp_path}").stream()
    assert image_set.channels == 1
    assert image_set.images.open(0).mode == "L"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cut_file_is_named_in_one_line(pets, workers):
    image_set = open_source(f"folder:{pets}").stream()
    path = pets / "cat" / "007.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TrainingError, match=r"cat/007\.png cannot be read: .*replace") as caught:
        batches(image_set, np.arange(40), workers=workers)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1
    with pytest.raises(DataError, match=r"007\.png"):
        image_set.images.open(7)


def test_workers_read_the_same_batches(pets):
    image_set = open_source(f"folder:{pets}").stream()
    alone = batches(image_set, np.arange(8))
    for (images, labels), (theirs, their_labels) in zip(
        alone, batches(image_set, np.arange(8), workers=2), strict=True
    ):
        assert torch.equal(images, theirs)
        assert torch.equal(labels, their_labels)
    assert [len(labels) for _, labels in alone] == [3, 3, 2]


def test_images_can_be_sent_to_another_process(digits, pets):
    for image_set in (packed_images(digits), open_source(f"folder:{pets}").stream()):
        sent = pickle.loads(pickle.dumps(image_set.images))
        assert np.array_equal(np.asarray(sent.open(3)), np.asarray(image_set.images.open(3)))
    assert len(pickle.dumps(packed_images(digits).images)) < 1000  # not the images themselves


def test_moments_are_those_of_the_sample_as_evaluation_sees_it(pets, monkeypatch):
    image_set = open_source(f"folder:{pets}").stream()
    mean, std = estimate_moments(image_set, side_px=32, crop_fraction=0.875)
    inputs = torch.cat([images for images, _ in batches(image_set, image_set.splits.train)])
    pixels = inputs.double() * 0.25 + 0.5
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert std == pytest.approx(pixels.std((0, 2, 3), unbiased=False).tolist(), abs=1e-6)
    monkeypatch.setattr(stream, "MOMENT_IMAGES", 5)
    assert estimate_moments(image_set, side_px=32, crop_fraction=0.875) != (mean, std)


def test_images_without_contrast_have_a_deviation(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (40, 40), (10, 20, 30)).save(tmp_path / name / f"{number}.png")
    image_set = open_source(f"folder:{tmp_path}").stream()
    mean, std = estimate_moments(image_set, side_px=32, crop_fraction=1.0)
    assert mean == pytest.approx((10 / 255, 20 / 255, 30 / 255))
    assert std == (1 / 255,) * 3


def test_a_fixed_subset_is_always_the_same_and_never_larger_than_all():
    indices = np.arange(0, 300, 3)
    assert np.array_equal(fixed_subset(indices, 1000), indices)
    some = fixed_subset(indices, 10)
    assert np.array_equal(some, fixed_subset(indices, 10))
    assert len(set(some)) == 10
    assert set(some) <= set(indices)


class Deadly:
    """Images of which each one kills the process that opens it."""

    def open(self, index: int) -> Image.Image:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError(index)


def test_a_reading_process_that_is_killed_ends_the_training_in_one_line(digits):
    image_set = replace(packed_images(digits), images=Deadly())
    message = "a process that reads images has ended"
    with pytest.raises(TrainingError, match=message) as caught, workers_watched():
        batches(image_set, np.arange(8), workers=1)
    assert "\n" not in str(caught.value)
    assert "use fewer --workers" in str(caught.value)


class SomeError(Exception):
    pass


@pytest.fixture
def fail_while_reading(digits):
    """Raises an error while two processes read images, which ends them."""
    handler = signal.getsignal(signal.SIGCHLD)

    def call(just_before=lambda: None):
        image_set = packed_images(digits)
        images = PlainImages(image_set, np.arange(60), preprocess(image_set))
        reading = read_batches(plain_loader(images, batch_size=2, workers=2, device=CPU), CPU)
        others = multiprocessing.active_children()
        readers = []

        def read():
            next(reading)
            readers.extend(x for x in multiprocessing.active_children() if x not in others)
            just_before()
            raise SomeError

        with pytest.raises(SomeError), workers_watched():
            read()
        assert len(readers) == 2
        assert not any(reader.is_alive() for reader in readers)

    yield call
    signal.signal(signal.SIGCHLD, handler)


def test_an_error_ends_the_processes_that_read_images_and_no_others(fail_while_reading):
    other = multiprocessing.Process(target=time.sleep, args=(300,), daemon=True)
    fail_while_reading(other.start)
    assert other.is_alive()
    other.kill()
    other.join()


def test_processes_that_read_images_end_where_the_system_has_no_sigchld(
    fail_while_reading, monkeypatch
):
    def forget():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        monkeypatch.delattr(signal, "SIGCHLD")

    fail_while_reading(forget)
    monkeypatch.undo()


def test_a_handler_that_python_did_not_set_is_no_error(fail_while_reading, monkeypatch):
    set_handler = signal.signal

    def hide():
        monkeypatch.setattr(signal, "signal", lambda *given: (set_handler(*given), None)[1])

    fail_while_reading(hide)
    monkeypatch.undo()
