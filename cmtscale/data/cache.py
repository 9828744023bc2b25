"""The folder of packed images and downloads: where it is, what it takes, and clearing it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from cmtscale.arch.errors import DataError
from cmtscale.record.files import seconds_untouched

OWNED = ".cmtscale"  # marks the folders that the cache made; nothing else is ever removed
LOCK = ".lock"
ALIVE = ".alive"  # in a folder below an entry; the process that works with it touches it meanwhile
ABANDONED_SECONDS = 300.0  # without a touch, after which that process is taken for gone


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One folder of the cache: a packed data set, or the downloads."""

    name: str
    path: Path
    size_bytes: int


def default_cache_dir() -> Path:
    """`$CMTSCALE_CACHE`, else where this system keeps caches (`~/.cache/cmtscale` on Linux)."""
    if chosen := os.environ.get("CMTSCALE_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("cmtscale", appauthor=False)


def cache_report(cache_dir: Path) -> list[CacheEntry]:
    """What the cache holds: packed data sets and downloads, by name."""
    return [
        CacheEntry(
            name=folder.name,
            path=folder,
            size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        )
        for folder in owned_folders(cache_dir)
    ]


def clear_cache(cache_dir: Path) -> int:
    """Remove what the cache itself wrote, downloads included; returns the bytes freed.

    Raises `DataError` where a search's Slurm jobs work with it, or it cannot be written.
    """
    entries = cache_report(cache_dir)
    if not entries:
        return 0
    try:
        with FileLock(cache_dir / LOCK):
            _require_unused(entries)
            for entry in entries:
                shutil.rmtree(entry.path)
    except OSError as error:
        raise not_writable(cache_dir, error) from error
    return sum(entry.size_bytes for entry in entries)


def _require_unused(entries: list[CacheEntry]) -> None:
    for alive in (path for entry in entries for path in entry.path.glob(f"*/{ALIVE}")):
        seconds = seconds_untouched(alive)
        if seconds <= ABANDONED_SECONDS:
            raise DataError(
                f"a search is at work with {alive.parent} (seen {seconds:.0f} s ago); wait until "
                f"it has ended, or stop it and wait {ABANDONED_SECONDS:.0f} s"
            )


def own_folder(folder: Path) -> Path:
    """Make `folder` and mark it as the cache's; one that exists already stays as it is."""
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / OWNED).touch()
    return folder


def owned_folders(cache_dir: Path) -> list[Path]:
    """The folders that the cache made, by name."""
    if not cache_dir.is_dir():
        return []
    return sorted(folder for folder in cache_dir.iterdir() if (folder / OWNED).is_file())


def not_writable(cache_dir: Path, error: OSError) -> DataError:
    """The error to raise where the cache cannot be written."""
    return DataError(
        f"cache {cache_dir} cannot be written: {error.strerror or error}; "
        "choose another folder with --cache-dir"
    )
