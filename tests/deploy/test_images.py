"""Which images of a folder a model is evaluated on: never those that it was trained on, unsaid."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmtscale.arch.errors import DataError
from cmtscale.data.dataset import Dataset
from cmtscale.data.folders import scan_folder
from cmtscale.data.sources import open_source
from cmtscale.data.splits import Splits
from cmtscale.data.tree import ImageTree, set_hash
from cmtscale.deploy.images import LabelledImages, open_images
from cmtscale.record.model_folder import ModelDescription, read_description

EACH = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 20 grey images, not split."""
    random = np.random.default_rng(0)
    for name in ("7", "3"):
        (tmp_path / "pool" / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pool" / name / f"{number:02}.png")
    return tmp_path / "pool"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def packed(folder: Path, cache: Path) -> Dataset:
    return open_source(f"folder:{folder}", split_seed=5, cache_dir=cache).pack(64)


@pytest.fixture
def description(trained: Path, folder: Path, packed: Dataset) -> ModelDescription:
    """A model that says it was trained on the folder."""
    read = read_description(trained / "model")[0]
    return replace(
        read,
        training=replace(
            read.training,
            data=f"folder:{folder}",
            data_hash=packed.set_hash,
            split_seed=5,
        ),
        scores=replace(
            read.scores, val_images=len(packed.splits.val), test_images=len(packed.splits.test)
        ),
    )


def numbers(images: LabelledImages, folder: Path) -> list[int]:
    """The positions of images among all files of a folder, as they are packed."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    return [files.index(name) for name in images.names]


def test_the_splits_are_those_of_the_training(
    description: ModelDescription, folder: Path, packed: Dataset, cache: Path
) -> None:
    for split in (None, "val", "test", "train"):
        images = open_images(description, f"folder:{folder}", split=split, cache_dir=cache)
        assert images.is_own
        assert images.caution == ""
        indices = getattr(packed.splits, split or "val")
        assert numbers(images, folder) == indices.tolist()
        assert images.labels.tolist() == [(3, 7)[label] for label in packed.labels[indices]]
        assert [images.read(n) for n in range(len(indices))] == [
            folder / name for name in images.names
        ]


def test_a_folder_that_has_moved_is_known_by_its_files(
    description: ModelDescription, folder: Path, packed: Dataset, cache: Path, tmp_path: Path
) -> None:
    moved = Path(folder.rename(tmp_path / "elsewhere"))
    images = open_images(description, f"folder:{moved}", split=None, cache_dir=cache)
    assert images.is_own
    assert numbers(images, moved) == packed.splits.val.tolist()


def test_a_folder_that_has_grown_is_refused_where_its_split_would_be_drawn_anew(
    description: ModelDescription, folder: Path, cache: Path
) -> None:
    for number in range(20):
        shutil.copy(folder / "3" / "00.png", folder / "3" / f"new{number}.png")
    for split in ("val", "test"):
        with pytest.raises(DataError, match="val had 6 images and would have 9, most of which"):
            open_images(description, f"folder:{folder}", split=split, cache_dir=cache)
    trained_on = open_images(description, f"folder:{folder}", split="train", cache_dir=cache)
    assert len(trained_on.labels) == 42


def test_where_the_files_have_changed_the_doubt_is_said(
    description: ModelDescription, folder: Path, packed: Dataset, cache: Path
) -> None:
    Image.new("L", (8, 8)).save(folder / "3" / "00.png")
    images = open_images(description, f"folder:{folder}", split="test", cache_dir=cache)
    assert images.is_own
    assert numbers(images, folder) == packed.splits.test.tolist()
    assert "test holds images that were trained on" in images.caution


def test_files_of_the_same_names_are_not_taken_for_those_of_the_training(
    description: ModelDescription, folder: Path, cache: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    Image.new("L", (8, 8)).save(other / "3" / "00.png")
    images = open_images(description, f"folder:{other}", split=None, cache_dir=cache)
    assert (images.is_own, images.split, len(images.labels)) == (False, "all", 2 * EACH)


def test_a_streamed_data_set_is_known_as_the_packed_one(
    description: ModelDescription, folder: Path, packed: Dataset, tmp_path: Path
) -> None:
    streamed = open_source(f"folder:{folder}", split_seed=5).stream()
    assert streamed.set_hash == packed.set_hash == description.training.data_hash
    again = open_source(f"folder:{folder}", split_seed=5, cache_dir=tmp_path / "2").pack(32)
    assert again.set_hash == packed.set_hash
    assert open_source(f"folder:{folder}").stream().set_hash != packed.set_hash


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_split_s_own_folder_is_that_split_of_the_training(
    description: ModelDescription, folder: Path, cache: Path, tmp_path: Path, part: str
) -> None:
    pool = Path(folder.rename(tmp_path / "moved"))
    for split in ("train", "val", "test"):
        shutil.copytree(pool, folder / split, ignore=shutil.ignore_patterns("00.png"))
    whole = open_images(description, f"folder:{folder}", split=part, cache_dir=cache)
    for asked in (None, part, "all"):
        images = open_images(description, f"folder:{folder}/{part}", split=asked, cache_dir=cache)
        assert (images.split, images.is_own, images.caution) == (part, True, "")
        assert (images.data, images.names) == (f"folder:{folder}", whole.names)
    with pytest.raises(DataError, match=rf"/{part} is the {part} split of folder:.*/pool; leave"):
        open_images(description, f"folder:{folder}/{part}", split="train", cache_dir=cache)


def test_a_folder_called_train_that_was_trained_on_has_the_splits_of_then(
    description: ModelDescription, folder: Path, packed: Dataset, cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    pool = Path(folder.rename(tmp_path / "tree" / "train"))
    shutil.copytree(pool, pool.parent / "test", ignore=shutil.ignore_patterns("00.png"))
    images = open_images(description, f"folder:{pool}", split=None, cache_dir=cache)
    assert (images.split, images.is_own) == ("val", True)
    assert numbers(images, pool) == packed.splits.val.tolist()
    tested = open_images(description, f"folder:{pool.parent}/test", split=None, cache_dir=cache)
    assert (tested.split, tested.is_own, len(tested.labels)) == ("test", False, 2 * (EACH - 1))


@pytest.mark.parametrize("outer_is_split", [True, False])
def test_each_folder_is_listed_once_and_the_outer_one_only_if_it_is_a_tree_of_splits(
    description: ModelDescription,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outer_is_split: bool,
) -> None:
    outer = tmp_path / "outer"
    shutil.copytree(folder, outer / "val", ignore=shutil.ignore_patterns("00.png"))
    shutil.copytree(folder, outer / ("train" if outer_is_split else "elsewhere"))
    listed, hashed = [], []

    def scan(root: Path) -> ImageTree:
        listed.append(root)
        return scan_folder(root)

    def hash_files(files_hash: str, splits: Splits) -> str:
        hashed.append(files_hash)
        return set_hash(files_hash, splits)

    monkeypatch.setattr("cmtscale.data.folders.scan_folder", scan)
    monkeypatch.setattr("cmtscale.deploy.images.set_hash", hash_files)
    open_images(description, f"folder:{outer}/val", split=None, cache_dir=tmp_path / "empty")
    assert listed == [outer / "val", outer][: 2 if outer_is_split else 1]
    assert len(hashed) == len(listed)


def test_splits_that_are_folders_need_no_doubt(
    description: ModelDescription, folder: Path, tmp_path: Path
) -> None:
    pool = Path(folder.rename(tmp_path / "moved"))
    for split in ("train", "val", "test"):
        shutil.copytree(pool, folder / split)
    images = open_images(
        description, f"folder:{folder}", split="test", cache_dir=tmp_path / "empty"
    )
    assert (images.is_own, images.caution, len(images.labels)) == (True, "", 2 * EACH)


def test_named_images_of_another_training_are_said_to_be_others(
    description: ModelDescription, cache_dir: Path
) -> None:
    images = open_images(description, "digits", split="val", cache_dir=cache_dir)
    assert not images.is_own
    assert "not on digits; scores are too high where both hold the same images" in images.caution
    with pytest.raises(DataError, match="digits has no all split; it has train, val, test"):
        open_images(description, "digits", split="all", cache_dir=cache_dir)
