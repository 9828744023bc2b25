"""Named photo sets: read by torchvision from its own layout, streamed and packed like a folder."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import Flowers102

from cmtscale.arch.errors import DataError
from cmtscale.cli.options import DATA_HELP
from cmtscale.data.cache import cache_report
from cmtscale.data.photos import PHOTOS
from cmtscale.data.sources import NAMES, open_source
from cmtscale.data.stream import ImageSet

SIZES = ((50, 40), (44, 70))  # (width, height) of photos, in turn


def colour(number: int) -> tuple[int, int, int]:
    """Tells photos apart: lossless, for the tests write PNG data under the names of JPEG files."""
    return number, 255 - number, 7


def save_photo(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZES[number % 2], colour(number)).save(path, "PNG")


def write_flowers(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Two photos of each of 102 classes in each split; labels from 0 by number of the photo."""
    folder = root / "flowers-102"
    numbers = np.arange(1, 613)
    for number in numbers:
        save_photo(folder / "jpg" / f"image_{number:05d}.jpg", int(number) % 256)
    labels = (numbers - 1) % 102 + 1
    ids = np.random.RandomState(0).permutation(numbers.reshape(3, 204).T).T
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels.astype(np.uint8)})
    scipy.io.savemat(folder / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))
    files = {"image": ("102flowers.tgz", None)}
    for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat")):
        files[key] = (name, hashlib.md5((folder / name).read_bytes()).hexdigest())
    monkeypatch.setattr(Flowers102, "_file_dict", files)
    return dict(zip(numbers.tolist(), (labels - 1).tolist(), strict=True))


def write_pets(root: Path) -> None:
    """Ten photos of each of two breeds to train and validate on, and three to test."""
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for split, first, count in (("trainval", 1, 10), ("test", 101, 3)):
        lines = []
        for label, breed in ((1, "Abyssinian"), (2, "american_bulldog")):
            for number in range(first, first + count):
                save_photo(folder / "images" / f"{breed}_{number}.jpg", number)
                lines.append(f"{breed}_{number} {label} {label} 1\n")
        (folder / "annotations" / f"{split}.txt").write_text("".join(lines))


def write_cars(root: Path) -> None:
    """Ten photos of each of two cars to train and validate on, and two to test."""
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["AM General Hummer SUV 2000", "Ram C/V Cargo Van 2012"], dtype=object)
    scipy.io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    kind = [("class", "O"), ("fname", "O")]
    for split, count, path in (
        ("train", 20, folder / "devkit" / "cars_train_annos.mat"),
        ("test", 4, folder / "cars_test_annos_withlabels.mat"),
    ):
        rows = np.zeros(count, dtype=kind)
        for number in range(count):
            rows[number] = (np.uint8(number % 2 + 1), f"{number + 1:05d}.jpg")
            save_photo(folder / f"cars_{split}" / f"{number + 1:05d}.jpg", number)
        scipy.io.savemat(path, {"annotations": rows})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data"
    monkeypatch.setenv("CMTSCALE_DATA", str(path))
    return path


def streamed(name: str, **settings: int) -> ImageSet:
    return open_source(name, download=False, **settings).stream()


def counts(image_set: ImageSet) -> list[int]:
    splits = image_set.splits
    return [len(part) for part in (splits.train, splits.val, splits.test)]


def test_flowers_keep_their_three_splits_and_names(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_of = write_flowers(root, monkeypatch)
    image_set = streamed("flowers102")
    assert image_set.class_names == tuple(Flowers102.classes)
    assert counts(image_set) == [204, 204, 204]
    for split in ("train", "val", "test"):
        dataset = Flowers102(root, split=split)
        indices = getattr(image_set.splits, split)
        assert image_set.labels[indices].tolist() == [label for _, label in dataset]
        for position, index in enumerate(indices[:20]):
            assert image_set.images.open(int(index)).tobytes() == dataset[position][0].tobytes()
    assert sorted(label_of.values()) == sorted(image_set.labels.tolist())


def test_pets_and_cars_get_a_validation_split_by_the_seed(root: Path) -> None:
    write_pets(root)
    write_cars(root)
    for name, classes, tested in (
        ("pets", ("Abyssinian", "American Bulldog"), 6),
        ("cars", ("AM General Hummer SUV 2000", "Ram C/V Cargo Van 2012"), 4),
    ):
        image_set, other = streamed(name), streamed(name, split_seed=1)
        assert image_set.class_names == classes
        assert counts(image_set) == [18, 2, tested]
        assert image_set.splits.test.tolist() == list(range(20, 20 + tested))
        assert image_set.splits.val.tolist() != other.splits.val.tolist()
        assert np.bincount(image_set.labels[image_set.splits.val]).tolist() == [1, 1]


def test_photos_come_at_their_own_size_with_their_label(root: Path) -> None:
    write_cars(root)
    image_set = streamed("cars")
    for index in range(20):
        photo = image_set.images.open(index)
        assert (photo.size, photo.getpixel((0, 0))) == (SIZES[index % 2], colour(index))
        assert image_set.labels[index] == index % 2
    assert (image_set.channels, image_set.native_px, image_set.may_flip) == (3, 42, True)


def test_photos_are_packed_like_a_folder(root: Path, tmp_path: Path) -> None:
    write_pets(root)
    source = open_source("pets", cache_dir=tmp_path / "cache", download=False)
    described, packed = source.describe(), source.pack(32)
    assert (described.num_classes, described.channels) == (2, 3)
    assert (described.train_images, described.val_images) == (18, 2)
    assert packed.images.shape == (26, 32, 32, 3)
    assert (packed.images[0, 0, 0]).tolist() == list(colour(1))
    assert packed.splits.hash == source.stream().splits.hash
    assert [entry.name.split("-")[0] for entry in cache_report(tmp_path / "cache")] == ["pets"]


@pytest.mark.parametrize("name", sorted(PHOTOS))
def test_a_set_that_is_not_there_says_what_to_put_where(root: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(name, download=False).stream()
    message = str(caught.value)
    assert message.startswith(f"{name} is n")
    assert f"in {root} " in message
    assert "set CMTSCALE_DATA to a folder that holds " in message
    assert "\n" not in message
    for file in PHOTOS[name].needed:
        assert f"{PHOTOS[name].folder}/{file}" in message


def test_cars_are_never_asked_for_a_download_that_there_is_not(root: Path) -> None:
    with pytest.raises(DataError, match="no site offers it for download; set CMTSCALE_DATA"):
        open_source("cars", download=True).stream()
    write_cars(root)
    assert counts(open_source("cars", download=True).stream()) == [18, 2, 4]


def test_what_is_missing_or_damaged_in_a_set_is_one_line(root: Path) -> None:
    write_cars(root)
    meta = root / "stanford_cars" / "devkit" / "cars_meta.mat"
    content = meta.read_bytes()
    photo = root / "stanford_cars" / "cars_train" / "00003.jpg"
    photo.unlink()
    with pytest.raises(DataError, match=r"cars lacks .*cars_train/00003\.jpg \(No such file"):
        streamed("cars")
    save_photo(photo, 2)
    for damaged in (content[:60], b"<html>404</html>"):
        meta.write_bytes(damaged)
        with pytest.raises(DataError, match="cars is not in") as caught:
            streamed("cars")
        assert "\n" not in str(caught.value)
    save_labels = root / "oxford-iiit-pet" / "annotations" / "test.txt"
    write_pets(root)
    save_labels.write_text("Abyssinian_101 1 1 1\namerican_bulldog_101 3 2 1\n")
    with pytest.raises(DataError, match=r"labels in .*oxford-iiit-pet are not those of pets"):
        streamed("pets")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("error", [MemoryError, AttributeError, NameError])
def test_an_error_that_no_file_leads_to_is_not_said_to_be_one_of_the_files(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet", fail)
    with pytest.raises(error):
        streamed("pets")


def test_the_help_names_every_set() -> None:
    assert f"{', '.join(NAMES)} or folder:PATH." == DATA_HELP
