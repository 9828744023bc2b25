"""Whose a folder is: one process at a time works in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cmtscale.spec.errors import ResultsError

LOCK = ".lock"


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make the folder and hold it; raises `ResultsError` if somebody else does, or it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise ResultsError(
            f"another process is at work in {folder}; wait for it, or use another --out"
        ) from None
    except OSError as error:
        raise ResultsError(
            f"{folder} cannot be written ({error.strerror}); use another --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def holds_anything(folder: Path) -> bool:
    """Whether there is anything in the folder but hidden files, such as our lock."""
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
