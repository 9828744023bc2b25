"""Images one by one at their own size: from an image folder, or from a packed set."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from cmtscale.arch.errors import DataError, first_line
from cmtscale.data.dataset import Dataset
from cmtscale.data.decode import DECODING_ERRORS, cut_square, decode
from cmtscale.data.draws import Purpose, derived_seed
from cmtscale.data.folders import read_headers
from cmtscale.data.splits import IntArray, Splits, make_splits
from cmtscale.data.tree import ImageTree, set_hash

HEADER_IMAGES = 4096  # whose headers say whether a folder is grey, and how large its images are
MOMENT_IMAGES = 2048  # that mean and standard deviation of a folder are estimated from
SUBSET_SEED = 12345


class Images(Protocol):
    """Images that can be opened by number, in any process."""

    def open(self, index: int) -> Image.Image:
        """Upright, in greyscale or RGB; raises `DataError` that names a file that is broken."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """What a full training needs to know of its images; see `Dataset` for what the fields mean.

    `moments` are (mean, standard deviation) of each channel, or None where they are to be
    estimated. `content_hash` covers images, labels and splits; of a folder, only the names of its
    files and the splits, so that a broken file can be replaced while a training goes on. `set_hash`
    is that of the same images packed.
    """

    name: str
    images: Images
    labels: IntArray
    class_names: tuple[str, ...]
    splits: Splits
    channels: int
    native_px: int
    may_flip: bool
    moments: tuple[tuple[float, ...], tuple[float, ...]] | None
    content_hash: str
    set_hash: str


def packed_images(dataset: Dataset) -> ImageSet:
    """A packed data set, image by image."""
    return ImageSet(
        name=dataset.name,
        images=_PackedImages(dataset.images),
        labels=dataset.labels,
        class_names=dataset.class_names,
        splits=dataset.splits,
        channels=dataset.channels,
        native_px=dataset.native_px,
        may_flip=dataset.may_flip,
        moments=(dataset.mean, dataset.std),
        content_hash=dataset.content_hash,
        set_hash=dataset.set_hash,
    )


def tree_images(name: str, tree: ImageTree, *, split_seed: int) -> ImageSet:
    """An image folder, read from its files while training.

    Grey if the sampled images are. Raises `DataError` where one of those cannot be read.
    """
    splits = make_splits(tree.labels, tree.class_names, tree.given, seed=split_seed)
    sample = fixed_subset(splits.train, HEADER_IMAGES)
    headers = read_headers(tree, sample)
    images = _FileImages(tree, channels=headers.channels)
    names = b"\0".join(images.names)
    return ImageSet(
        name=name,
        images=images,
        labels=tree.labels,
        class_names=tree.class_names,
        splits=splits,
        channels=headers.channels,
        native_px=headers.native_px,
        may_flip=True,
        moments=None,
        content_hash=hashlib.sha256(names + splits.hash.encode()).hexdigest(),
        set_hash=set_hash(tree.files_hash, splits),
    )


def fixed_subset(indices: IntArray, count: int) -> IntArray:
    """At most `count` of the indices, always the same ones, sorted."""
    if len(indices) <= count:
        return indices
    random = np.random.RandomState(derived_seed(SUBSET_SEED, Purpose.SUBSET))
    return np.sort(random.permutation(indices)[:count])


def estimate_moments(
    image_set: ImageSet, *, side_px: int, crop_fraction: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (per channel, pixels in [0, 1]) of a fixed sample of training.

    The images are cut and resized as for evaluation. A channel without contrast gets one grey
    level as its deviation.
    """

    def sums(index: np.int64) -> npt.NDArray[np.float64]:
        image = image_set.images.open(int(index))
        pixels = cut_square(image, side_px=side_px, crop_fraction=crop_fraction) / 255.0
        return np.stack([pixels.mean(axis=(0, 1)), (pixels**2).mean(axis=(0, 1))])

    sample = fixed_subset(image_set.splits.train, MOMENT_IMAGES)
    with ThreadPoolExecutor() as threads:
        mean, square = sum(threads.map(sums, sample), np.zeros((2, image_set.channels))) / len(
            sample
        )
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    return tuple(mean.tolist()), tuple(np.maximum(deviation, 1 / 255).tolist())


class _PackedImages:
    """Images of a packed array, (N, side, side, C); another process opens its file again."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.pixels = pixels

    def open(self, index: int) -> Image.Image:
        pixels = np.asarray(self.pixels[index])
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)

    def __getstate__(self) -> dict[str, object]:
        assert isinstance(self.pixels, np.memmap)
        return {"path": self.pixels.filename}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.pixels = np.load(state["path"], mmap_mode="r")


class _FileImages:
    """Image files of a folder, their names in one array: a million `Path`s take half a GB."""

    def __init__(self, tree: ImageTree, *, channels: int) -> None:
        self.root = tree.root
        self.names = np.array([os.fsencode(path.relative_to(tree.root)) for path in tree.paths])
        self.channels = channels

    def open(self, index: int) -> Image.Image:
        path = self.root / os.fsdecode(self.names[index])
        try:
            return decode(path, channels=self.channels)
        except DECODING_ERRORS as error:
            raise DataError(
                f"image {path} cannot be read: {first_line(error)}; replace it"
            ) from error
