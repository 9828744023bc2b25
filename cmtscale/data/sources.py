"""Where images come from: the data spec a user types, and the source that it names."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cmtscale.arch.errors import DataError
from cmtscale.data.cache import default_cache_dir
from cmtscale.data.dataset import Dataset, Description
from cmtscale.data.named import NAMED, read_named
from cmtscale.data.pack import open_or_pack, packed_channels
from cmtscale.data.photos import PHOTOS, photo_tree
from cmtscale.data.splits import make_splits
from cmtscale.data.tree import ImageTree

if TYPE_CHECKING:
    from cmtscale.data.folders import Headers
    from cmtscale.data.stream import ImageSet

FOLDER = "folder:"
LARGEST_NATIVE_PX = 32  # of the small named data sets, which are packed as they are
NAMES = (*NAMED, *PHOTOS)


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A data set as users name it: `text` in its one spelling, `path` for image folders only.

    `name` is that of the data set, or of the folder.
    """

    text: str
    name: str
    path: Path | None = None


class Source(Protocol):
    """Images that can be described, and packed at a side that the description has decided."""

    def describe(self) -> Description:
        """Classes, channels and the size of the training split."""
        ...

    def pack(self, resolution_px: int) -> Dataset:
        """The packed images; `resolution_px` is the largest side that anyone will train at.

        Images are packed at that side but never above their native one: enlarging adds no
        information and is done per batch on the device.
        """
        ...

    def stream(self) -> "ImageSet":
        """The images one by one at their own size; those that are files are not packed."""
        ...


def parse_spec(text: str) -> DataSpec:
    """Read one of `NAMES` or `folder:PATH`.

    A folder's path is made absolute: a search goes on from any working directory. Raises
    `DataError` for anything else; whether a folder exists is not looked at.
    """
    if text.startswith(FOLDER):
        folder = text.removeprefix(FOLDER)
        if not folder:
            raise DataError("data 'folder:' names no folder; use folder:PATH")
        path = Path(folder).expanduser().resolve()
        return DataSpec(text=f"{FOLDER}{path}", name=path.name or "root", path=path)
    name = text.lower().replace("_", "-")
    if name in NAMES:
        return DataSpec(text=name, name=name)
    message = f"data {text!r} is not one of {', '.join(NAMES)}, folder:PATH"
    if ":" in text:
        raise DataError(f"{message}; use {FOLDER}{text.partition(':')[2]}")
    if "/" in text or Path(text).is_dir():
        raise DataError(f"{message}; use {FOLDER}{text}")
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
    raise DataError(f"{message}; use {near[0] if near else 'one of them'}")


def open_source(
    text: str,
    *,
    split_seed: int = 0,
    cache_dir: Path | None = None,
    data_dir: Path | None = None,
    download: bool = True,
) -> Source:
    """The source that a data spec names; `split_seed` draws the splits that it does not give.

    For `data_dir` and `download` see `read_named`. Raises `DataError` for whatever is wrong with
    the data, here or when they are described or packed.
    """
    spec = parse_spec(text)
    cache_dir = (cache_dir or default_cache_dir()).expanduser().absolute()  # as in other processes
    if spec.text in NAMED:
        return _SmallSource(spec.name, split_seed, cache_dir, data_dir, download)
    read = partial(read_tree, spec, cache_dir, data_dir=data_dir, download=download)
    return _TreeSource(spec.name, split_seed, cache_dir, read)


def read_tree(
    spec: DataSpec, cache_dir: Path, *, data_dir: Path | None = None, download: bool = True
) -> ImageTree:
    """The files of an image folder or of a named photo set; errors as in `open_source`."""
    if spec.path is None:
        return photo_tree(spec.name, cache_dir, data_dir=data_dir, download=download)
    from cmtscale.data.folders import scan_folder

    return scan_folder(spec.path)


@dataclass(frozen=True)
class _SmallSource:
    """Small sets: their native side is never above one that a network can have."""

    name: str
    split_seed: int
    cache_dir: Path
    data_dir: Path | None
    download: bool

    def describe(self) -> Description:
        return NAMED[self.name]

    def pack(self, resolution_px: int) -> Dataset:
        assert resolution_px >= LARGEST_NATIVE_PX
        return open_or_pack(
            self.cache_dir,
            name=self.name,
            key={"name": self.name},
            seed=self.split_seed,
            read=lambda: read_named(
                self.name, self.cache_dir, data_dir=self.data_dir, download=self.download
            ),
        )

    def stream(self) -> "ImageSet":
        from cmtscale.data.stream import packed_images

        return packed_images(self.pack(LARGEST_NATIVE_PX))


@dataclass(frozen=True)
class _TreeSource:
    """Image files: listed once, their headers read once, decoded once for each packed side."""

    name: str
    split_seed: int
    cache_dir: Path
    read: Callable[[], ImageTree]

    def describe(self) -> Description:
        tree = self._tree
        splits = make_splits(tree.labels, tree.class_names, tree.given, seed=self.split_seed)
        channels = packed_channels(self.cache_dir, tree.fingerprint)
        return Description(
            num_classes=len(tree.class_names),
            channels=channels or self._headers.channels,
            train_images=len(splits.train),
            val_images=len(splits.val),
        )

    def pack(self, resolution_px: int) -> Dataset:
        from cmtscale.data.folders import read_folder

        tree = self._tree
        return open_or_pack(
            self.cache_dir,
            name=self.name,
            key={"files": tree.fingerprint, "resolution_px": resolution_px},
            seed=self.split_seed,
            read=lambda: read_folder(tree, self._headers, resolution_px=resolution_px),
        )

    def stream(self) -> "ImageSet":
        from cmtscale.data.stream import tree_images

        return tree_images(self.name, self._tree, split_seed=self.split_seed)

    @cached_property
    def _tree(self) -> ImageTree:
        return self.read()

    @cached_property
    def _headers(self) -> "Headers":
        from cmtscale.data.folders import read_headers

        return read_headers(self._tree)
