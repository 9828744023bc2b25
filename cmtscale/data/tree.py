"""The image files of a data set: paths, classes and given splits, before one is opened."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmtscale.data.splits import IntArray, Splits


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTree:
    """The image files of a folder, ordered by split; of one's own folders, by class and path too.

    `given` holds the indices of the splits that the folder itself has. `files_hash` covers paths
    and sizes: it stays when the folder is moved or copied. `fingerprint` covers modification times,
    too.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: IntArray
    class_names: tuple[str, ...]
    given: Mapping[str, IntArray]
    files_hash: str
    fingerprint: str


def make_tree(
    root: Path,
    paths: Sequence[Path],
    labels: IntArray,
    class_names: tuple[str, ...],
    given: Mapping[str, IntArray],
) -> ImageTree:
    """The tree of these files below `root`; raises `OSError` for one that is missing."""
    files, times = hashlib.sha256(), hashlib.sha256()
    for path in paths:
        stat = path.stat()
        name = f"{path.relative_to(root).as_posix()}\0{stat.st_size}".encode(errors="replace")
        files.update(name + b"\n")
        times.update(name + f"\n{stat.st_mtime_ns}\n".encode())
    return ImageTree(
        root=root,
        paths=tuple(paths),
        labels=labels,
        class_names=class_names,
        given=given,
        files_hash=files.hexdigest(),
        fingerprint=times.hexdigest(),
    )


def set_hash(files_hash: str, splits: Splits) -> str:
    """Which files, split how: the same for a data set that is packed and one that is streamed."""
    return hashlib.sha256(f"{files_hash}{splits.hash}".encode()).hexdigest()
