"""A packed data set: one uint8 array of images with labels and splits, memory-mapped."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cmtscale.arch.errors import DataError
from cmtscale.data.splits import SPLIT_NAMES, IntArray, Splits, stratified_draw

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class DataRef:
    """Which images a run reads: the folder they are packed in, and the hash they must have.

    Enough for another process to open the same arrays. `content_hash` covers images, labels and
    splits.
    """

    path: Path
    content_hash: str


@dataclass(frozen=True, kw_only=True)
class Description:
    """What decides which networks can be trained, before any image is read."""

    num_classes: int
    channels: int
    train_images: int
    val_images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A packed data set: everything that training needs to know about the images.

    `images` is uint8 (N, side, side, C), memory-mapped and read-only; `labels` int64 (N,).
    `native_px` is the native short side (the median for folders). `may_flip` is False where
    mirroring changes the class. `mean` and `std` are per channel over the training split, for
    pixels in [0, 1]. `content_hash` covers images as they are packed, labels and splits; `set_hash`
    names the files and their splits, at whatever side they are packed (a set without files: the
    content). Another process opens the data set by its `ref`: pickling would copy the images.
    """

    path: Path
    name: str
    images: npt.NDArray[np.uint8]
    labels: IntArray
    class_names: tuple[str, ...]
    splits: Splits
    native_px: int
    may_flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content_hash: str
    set_hash: str

    @property
    def ref(self) -> DataRef:
        """What a run needs to open this data set."""
        return DataRef(path=self.path, content_hash=self.content_hash)

    @property
    def channels(self) -> int:
        """1 (greyscale) or 3 (RGB)."""
        return int(self.images.shape[-1])

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


def open_dataset(ref: DataRef) -> Dataset:
    """The data set that `ref` names; raises `DataError` if it is gone or has been replaced."""
    dataset = read_packed(ref.path)
    if dataset is None:
        raise DataError(
            f"the packed images in {ref.path} are gone or damaged; "
            "run the same command again: it packs them anew"
        )
    if dataset.content_hash != ref.content_hash:
        raise DataError(f"the packed images in {ref.path} have changed meanwhile; start anew")
    return dataset


def read_packed(folder: Path) -> Dataset | None:
    """The data set packed in `folder`, or None if it is missing or damaged."""
    try:
        manifest = read_manifest(folder)
        images = np.load(folder / "images.npy", mmap_mode="r")
        labels = np.load(folder / "labels.npy")
        splits = Splits(**{name: np.load(folder / f"{name}.npy") for name in SPLIT_NAMES})
        manifest.pop("files", None)
        if (
            list(images.shape) != manifest.pop("shape")
            or labels.shape != images.shape[:1]
            or splits.hash != manifest.pop("splits")
        ):
            return None
        details: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in manifest.items()
        }
        return Dataset(path=folder, images=images, labels=labels, splits=splits, **details)
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The description of a packed data set; raises `OSError` or `ValueError` if there is none."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise ValueError("a manifest is an object")
    return manifest


def training_part(dataset: Dataset, train_images: int | None, *, seed: int = 0) -> IntArray:
    """Draw `train_images` of the training split (None: all), stratified, seeded; sorted indices.

    Raises `DataError` if there are not so many, or fewer than one per class are wanted.
    """
    train = dataset.splits.train
    if train_images is None:
        return train
    if not dataset.num_classes <= train_images <= len(train):
        raise DataError(
            f"{train_images} training images of {dataset.name} are not possible; "
            f"use {dataset.num_classes} (one per class) to {len(train)}"
        )
    random = np.random.RandomState(seed)
    return stratified_draw(dataset.labels, train, count=train_images, random=random)
