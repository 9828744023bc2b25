"""Image folders: find classes and files, say what is wrong, decode to square uint8 images."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from cmtscale.arch.errors import DataError, first_line
from cmtscale.data.decode import DECODING_ERRORS, cut_square, decode
from cmtscale.data.pack import Pool
from cmtscale.data.splits import SPLIT_NAMES, IntArray
from cmtscale.data.tree import ImageTree, make_tree

# what torchvision's ImageFolder reads
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
CHUNK = 256  # images decoded at a time: 38 MB at 224 px

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Headers:
    """What the headers of images say: 1 channel if every file is greyscale, else 3.

    `native_px` is the median short side.
    """

    channels: int
    native_px: int


@dataclass(frozen=True)
class _Unreadable:
    path: Path
    reason: str


def scan_folder(root: Path) -> ImageTree:
    """Find the images below `root` without opening one.

    Either `root/train/CLASS/…` with optional `root/val` and `root/test`, or `root/CLASS/…`.
    Raises `DataError` for a folder that cannot be trained on.
    """
    if not root.exists():
        raise DataError(
            f"folder {root} does not exist; give folder:PATH with one subfolder of images per class"
        )
    if not root.is_dir():
        raise DataError(f"{root} is a file, not a folder; give the folder that holds the classes")
    try:
        return _scan(root)
    except OSError as error:
        raise DataError(
            f"folder {error.filename} cannot be read: {error.strerror}; make it readable"
        ) from error


def is_split_tree(root: Path) -> bool:
    """Whether the folder has splits of its own, by the names in it alone."""
    try:
        return "" not in _split_folders(root)
    except (DataError, OSError):
        return False


def read_headers(tree: ImageTree, indices: IntArray | None = None) -> Headers:
    """Sides and colours of the images at `indices` (None: all), without decoding one.

    Errors as in `read_folder`.
    """
    paths = tree.paths if indices is None else [tree.paths[index] for index in indices]
    headers = [header for chunk in _read_each(_header, paths) for header in chunk]
    return Headers(
        channels=1 if all(is_grey for _, is_grey in headers) else 3,
        native_px=int(np.median([short_px for short_px, _ in headers])),
    )


def read_folder(tree: ImageTree, headers: Headers, *, resolution_px: int) -> Pool:
    """The images of `tree`, short side resized to the packed side, the centre cut out.

    The packed side is `resolution_px`, or the native one if that is smaller; images below it are
    enlarged. Raises `DataError` that counts the unreadable files and names the first.
    """
    channels, side_px = headers.channels, min(resolution_px, headers.native_px)

    def read(path: Path) -> npt.NDArray[np.uint8]:
        return cut_square(decode(path, channels=channels), side_px=side_px)

    return Pool(
        blocks=(np.stack(chunk) for chunk in _read_each(read, tree.paths)),
        shape=(len(tree.paths), side_px, side_px, channels),
        labels=tree.labels,
        class_names=tree.class_names,
        given=tree.given,
        native_px=headers.native_px,
        files_hash=tree.files_hash,
    )


def _scan(root: Path) -> ImageTree:
    folders = _split_folders(root)
    class_names = _subfolders(next(iter(folders.values())))
    paths: list[Path] = []
    labels: list[int] = []
    given: dict[str, IntArray] = {}
    visited: dict[tuple[int, int], Path] = {}
    for own in dict.fromkeys([root, *folders.values()]):
        _require_first_visit(own, visited)
    for folder in folders.values():
        for name in _subfolders(folder):
            _require_first_visit(folder / name, visited)
    for split, folder in folders.items():
        _require_classes(folder, class_names)
        start = len(paths)
        for label, name in enumerate(class_names):
            files = _image_files(folder / name, visited)
            paths += files
            labels += [label] * len(files)
        if split:
            given[split] = np.arange(start, len(paths))
    return make_tree(root, paths, np.array(labels, dtype=np.int64), class_names, given)


def _split_folders(root: Path) -> dict[str, Path]:
    names = _subfolders(root)
    if "train" not in names:
        if names and set(names) <= set(SPLIT_NAMES):
            raise DataError(f"folder {root} has {', '.join(names)} but no train; add it")
        return {"": root}
    if foreign := sorted(set(names) - set(SPLIT_NAMES)):
        if not _subfolders(root / "train"):
            return {"": root}  # a class that happens to be called train
        raise DataError(
            f"folder {root} has {foreign[0]!r} beside 'train'; "
            "name the splits train, val and test, and move anything else away"
        )
    return {name: root / name for name in SPLIT_NAMES if name in names}


def _require_classes(folder: Path, class_names: tuple[str, ...]) -> None:
    names = _subfolders(folder)
    if not names:
        raise DataError(
            f"folder {folder} has no class folders; "
            f"put the images of each class into one, such as {folder / 'cat' / '1.jpg'}"
        )
    if odd := sorted(set(names) ^ set(class_names)):
        lacking = "train" if odd[0] in names else folder.name
        raise DataError(
            f"class {odd[0]!r} is not in the {lacking} split of {folder.parent}; "
            "train, val and test need the same class folders"
        )
    if len(names) < 2:
        raise DataError(f"folder {folder} has the single class {names[0]!r}; use two or more")


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(
        sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir() and not entry.name.startswith(".")
        )
    )


def _image_files(folder: Path, visited: dict[tuple[int, int], Path]) -> list[Path]:
    files: list[Path] = []
    for parent, _, names in os.walk(folder, followlinks=True, onerror=_raise):
        _require_first_visit(Path(parent), visited)
        files += [
            Path(parent) / name
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    files.sort()
    if not files:
        raise DataError(
            f"class folder {folder} holds no images ({' '.join(EXTENSIONS)}); add some or remove it"
        )
    return files


def _require_first_visit(folder: Path, visited: dict[tuple[int, int], Path]) -> None:
    """Raise `DataError` where a link leads into a folder that is a part of the tree already.

    Its images would count twice, and might be trained on and validated with.
    """
    earlier = visited.setdefault(_place(folder), folder)
    if earlier != folder:
        raise DataError(f"folder {earlier} is reached twice, by {folder} too; remove the link")


def _place(folder: Path) -> tuple[int, int]:
    """Which folder it is, whatever it is called."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error


def _read_each(read: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[list[T]]:
    """Apply `read` to every file, in chunks; at the end raise one error for all that failed."""
    broken: list[_Unreadable] = []
    with ThreadPoolExecutor() as threads:
        for start in range(0, len(paths), CHUNK):
            chunk = list(threads.map(partial(_attempt, read), paths[start : start + CHUNK]))
            broken += [result for result in chunk if isinstance(result, _Unreadable)]
            if not broken:
                yield [result for result in chunk if not isinstance(result, _Unreadable)]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(paths)} images cannot be read, first {broken[0].path}: "
            f"{broken[0].reason}; replace or remove them"
        )


def _attempt(read: Callable[[Path], T], path: Path) -> T | _Unreadable:
    try:
        return read(path)
    except DECODING_ERRORS as error:
        is_foreign = isinstance(error, UnidentifiedImageError)
        reason = "not an image" if is_foreign else first_line(error)
        return _Unreadable(path, reason)


def _header(path: Path) -> tuple[int, bool]:
    with Image.open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels of mode {image.mode}, only 8 bits are read")
        return min(image.size), image.mode == "L"
