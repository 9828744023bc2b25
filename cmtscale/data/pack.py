"""The cache: images packed once to one uint8 array per data set, memory-mapped afterwards."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from cmtscale.arch.errors import DataError
from cmtscale.data.splits import (
    SPLIT_NAMES,
    IntArray,
    Splits,
    make_splits,
    stratified_draw,
)

FORMAT = 1  # part of every key: raise it when packing or splitting changes
MANIFEST = "manifest.json"
OWNED = ".cmtscale"  # marks the folders that the cache made; nothing else is ever removed
PARTIAL = ".partial-"
LOCK = ".lock"
CHUNK = 256  # images per histogram


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """What a source hands to the packer.

    `blocks` yields uint8 (n, side, side, channels), in all `shape[0]` images; `given` are the
    source's own splits, as indices.
    """

    blocks: Iterable[npt.NDArray[np.uint8]]
    shape: tuple[int, int, int, int]
    labels: IntArray
    class_names: tuple[str, ...]
    given: Mapping[str, IntArray]
    native_px: int
    may_flip: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A packed data set: everything that training needs to know about the images.

    `images` is uint8 (N, side, side, C), memory-mapped and read-only; `labels` int64 (N,).
    `native_px` is the native short side (the median for folders). `may_flip` is False where
    mirroring changes the class. `mean` and `std` are per channel over the training split, for
    pixels in [0, 1]. `content_hash` covers images, labels and splits. Another process opens the
    data set with `load_data` again: pickling would copy the images.
    """

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

    @property
    def channels(self) -> int:
        """1 (greyscale) or 3 (RGB)."""
        return int(self.images.shape[-1])

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One folder of the cache: a packed data set, or the downloads."""

    name: str
    path: Path
    size_bytes: int


def subset(dataset: Dataset, *, train_images: int, seed: int = 0) -> IntArray:
    """Draw `train_images` of the training split, stratified and seeded; sorted indices.

    Raises `DataError` if there are not so many, or fewer than one per class are wanted.
    """
    train = dataset.splits.train
    if not dataset.num_classes <= train_images <= len(train):
        raise DataError(
            f"{train_images} training images of {dataset.name} are not possible; "
            f"use {dataset.num_classes} (one per class) to {len(train)}"
        )
    random = np.random.RandomState(seed)
    return stratified_draw(dataset.labels, train, count=train_images, random=random)


def default_cache_dir() -> Path:
    """`$CMTSCALE_CACHE`, else `cmtscale` below `$XDG_CACHE_HOME` or `~/.cache`."""
    if place := os.environ.get("CMTSCALE_CACHE"):
        return Path(place).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cmtscale"


def cache_report(cache_dir: Path) -> list[CacheEntry]:
    """What the cache holds: packed data sets and downloads, by name."""
    return [
        CacheEntry(
            name=folder.name,
            path=folder,
            size_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        )
        for folder in _owned_folders(cache_dir)
    ]


def clear_cache(cache_dir: Path) -> int:
    """Remove what the cache itself wrote, downloads included; returns the bytes freed."""
    entries = cache_report(cache_dir)
    if not entries:
        return 0
    try:
        with FileLock(cache_dir / LOCK):
            for entry in entries:
                shutil.rmtree(entry.path)
    except OSError as error:
        raise _cannot_write(cache_dir, error) from error
    return sum(entry.size_bytes for entry in entries)


def own_folder(folder: Path) -> Path:
    """Make `folder` and mark it as the cache's; one that exists already stays as it is."""
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / OWNED).touch()
    return folder


def open_or_pack(
    cache_dir: Path, *, name: str, key: Mapping[str, Any], seed: int, read: Callable[[], Pool]
) -> Dataset:
    """Open the data set packed under `key`, or `read` the source and pack it first.

    A damaged entry (files missing, cut short or not fitting together) is packed anew. Entries
    appear whole or not at all; of two processes one packs and the other waits for it. Raises
    `DataError` if the cache cannot be written.
    """
    text = json.dumps({"format": FORMAT, "seed": seed, **key}, sort_keys=True)
    entry = cache_dir / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if (dataset := _open(entry)) is not None:
        return dataset
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / LOCK):
            if (dataset := _open(entry)) is not None:
                return dataset
            for leftover in _owned_folders(cache_dir):  # of a killed process: we hold the lock
                if leftover.name.startswith(PARTIAL):
                    shutil.rmtree(leftover)
            _pack(entry, read(), name=name, seed=seed)
    except OSError as error:
        raise _cannot_write(cache_dir, error) from error
    dataset = _open(entry)
    assert dataset is not None, f"{entry} was packed but does not open"
    return dataset


def _open(entry: Path) -> Dataset | None:
    """The data set in `entry`, or None if it is missing or damaged."""
    try:
        manifest = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
        images = np.load(entry / "images.npy", mmap_mode="r")
        labels = np.load(entry / "labels.npy")
        splits = Splits(**{name: np.load(entry / f"{name}.npy") for name in SPLIT_NAMES})
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
        return Dataset(images=images, labels=labels, splits=splits, **details)
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def _pack(entry: Path, pool: Pool, *, name: str, seed: int) -> None:
    splits = make_splits(pool.labels, pool.class_names, pool.given, seed=seed)
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=entry.parent))
    try:
        (partial / OWNED).touch()
        digest = _write_images(partial / "images.npy", pool)
        arrays = {"labels": pool.labels, **{part: getattr(splits, part) for part in SPLIT_NAMES}}
        for part, array in arrays.items():
            with (partial / f"{part}.npy").open("wb") as file:
                np.save(file, array)
                _to_disk(file)
        mean, std = _moments(np.load(partial / "images.npy", mmap_mode="r"), splits.train)
        digest.update(pool.labels.astype("<i8").tobytes() + splits.hash.encode())
        manifest = {
            "name": name,
            "shape": pool.shape,
            "splits": splits.hash,
            "class_names": pool.class_names,
            "native_px": pool.native_px,
            "may_flip": pool.may_flip,
            "mean": mean,
            "std": std,
            "content_hash": digest.hexdigest(),
        }
        with (partial / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1)
            _to_disk(file)
        if entry.exists():  # damaged, or it would have been opened
            shutil.rmtree(entry)
        partial.replace(entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_images(path: Path, pool: Pool) -> "hashlib._Hash":
    # plain writes: through a memory map a full disk would end the process with SIGBUS
    header = {"descr": "|u1", "fortran_order": False, "shape": pool.shape}
    digest = hashlib.sha256()
    written = 0
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in pool.blocks:
            assert block.dtype == np.uint8
            assert block.shape[1:] == pool.shape[1:]
            data = block.tobytes()
            file.write(data)
            digest.update(data)
            written += len(block)
        _to_disk(file)
    assert written == pool.shape[0] == len(pool.labels)
    return digest


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _moments(
    images: npt.NDArray[np.uint8], train: IntArray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel in [0, 1], exactly, from histograms.

    A channel without any contrast gets one grey level as its deviation, so that it becomes 0.
    """
    counts = np.zeros((images.shape[-1], 256), dtype=np.int64)
    for start in range(0, len(train), CHUNK):
        chunk = images[train[start : start + CHUNK]]
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    return tuple(mean.tolist()), tuple(np.maximum(np.sqrt(variance), 1 / 255).tolist())


def _owned_folders(cache_dir: Path) -> list[Path]:
    if not cache_dir.is_dir():
        return []
    return sorted(folder for folder in cache_dir.iterdir() if (folder / OWNED).is_file())


def _cannot_write(cache_dir: Path, error: OSError) -> DataError:
    return DataError(
        f"cache {cache_dir} cannot be written: {error.strerror or error}; "
        "choose another place with --cache-dir"
    )
