"""The photo sets that are known by name, as trees of files: Flowers-102, Oxford-IIIT Pets and Cars.

torchvision downloads them, reads their annotations and says which file is in which split; the
photos differ in size, and are read as those of any image folder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmtscale.arch.errors import DataError
from cmtscale.data.named import data_root, open_torchvision
from cmtscale.data.splits import IntArray
from cmtscale.data.tree import ImageTree, make_tree


@dataclass(frozen=True, kw_only=True)
class PhotoSet:
    """A class of torchvision.datasets, the `needed` files in its `folder`, and its splits.

    `splits` says what torchvision calls ours; one that is not there is drawn from train.
    """

    kind: str
    folder: str
    needed: tuple[str, ...]
    splits: dict[str, str]
    has_download: bool = True


PHOTOS = {
    "flowers102": PhotoSet(
        kind="Flowers102",
        folder="flowers-102",
        needed=("jpg", "imagelabels.mat", "setid.mat"),
        splits={"train": "train", "val": "val", "test": "test"},
    ),
    "pets": PhotoSet(
        kind="OxfordIIITPet",
        folder="oxford-iiit-pet",
        needed=("images", "annotations/trainval.txt", "annotations/test.txt"),
        splits={"train": "trainval", "test": "test"},
    ),
    "cars": PhotoSet(
        kind="StanfordCars",
        folder="stanford_cars",
        needed=(
            "cars_train", "cars_test", "devkit/cars_train_annos.mat", "devkit/cars_meta.mat",
            "cars_test_annos_withlabels.mat",
        ),
        splits={"train": "train", "test": "test"},
        has_download=False,
    ),
}  # fmt: skip


def photo_tree(name: str, cache_dir: Path, *, data_dir: Path | None, download: bool) -> ImageTree:
    """The files of one of `PHOTOS`; raises `DataError` where they are neither here nor to be had.

    For `data_dir` and `download` see `read_named`.
    """
    photo_set = PHOTOS[name]
    root = data_root(cache_dir, data_dir)
    folder = root / photo_set.folder
    parts = open_torchvision(
        name,
        photo_set.kind,
        [{"split": split} for split in photo_set.splits.values()],
        root=root,
        cache_dir=cache_dir,
        download=download if photo_set.has_download else None,
        needs=", ".join(f"{photo_set.folder}/{file}" for file in photo_set.needed),
    )
    paths: list[Path] = []
    labels: list[int] = []
    given: dict[str, IntArray] = {}
    for split, part in zip(photo_set.splits, parts, strict=True):
        files, classes = _listed(part)
        given[split] = np.arange(len(paths), len(paths) + len(files))
        paths += files
        labels += classes
    class_names = _class_names(name, parts)
    if not all(0 <= label < len(class_names) for label in labels):
        raise DataError(f"labels in {folder} are not those of {name}; replace its annotations")
    try:
        return make_tree(folder, paths, np.array(labels, dtype=np.int64), class_names, given)
    except OSError as error:
        raise DataError(
            f"{name} lacks {error.filename} ({error.strerror}); restore it, or replace {folder}"
        ) from error


def _listed(part: Any) -> tuple[list[Path], list[int]]:
    """Files and labels of a split; torchvision's public access would decode every photo."""
    if hasattr(part, "_samples"):
        files, labels = zip(*part._samples, strict=True)
    elif hasattr(part, "_image_files"):
        files, labels = part._image_files, part._labels
    else:
        files, labels = part._images, part._labels
    return [Path(file) for file in files], [int(label) for label in labels]


def _class_names(name: str, parts: list[Any]) -> tuple[str, ...]:
    names = {tuple(map(str, part.classes)) for part in parts}
    if len(names) > 1:
        raise DataError(f"the splits of {name} differ in their classes; replace its annotations")
    return names.pop()
