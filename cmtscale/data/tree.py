"""The image files of a data set: paths, classes and given splits, before one is opened."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmtscale.data.splits import IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTree:
    """The image files of a folder, ordered by split; of one's own folders, by class and path too.

    `given` holds the indices of the splits that the folder itself has; `fingerprint` hashes paths,
    sizes and modification times.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: IntArray
    class_names: tuple[str, ...]
    given: dict[str, IntArray]
    fingerprint: str


def fingerprint_of(root: Path, paths: Sequence[Path]) -> str:
    """A hash of paths, sizes and modification times; raises `OSError` for a missing file."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()
