"""Packing: the images of a source as one uint8 array in the cache, written once and whole."""

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

from cmtscale.data.cache import LOCK, OWNED, not_writable, owned_folders
from cmtscale.data.dataset import MANIFEST, Dataset, read_manifest, read_packed
from cmtscale.data.splits import SPLIT_NAMES, IntArray, make_splits
from cmtscale.data.tree import set_hash

FORMAT = 2  # part of every key: raise it when packing, splitting or the manifest changes
PARTIAL = ".partial-"
CHUNK = 256  # images per histogram


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """What a source hands to the packer.

    `blocks` yields uint8 (n, side, side, channels), in all `shape[0]` images; `given` are the
    source's own splits, as indices. `files_hash` is that of the `ImageTree`; "" without files.
    """

    blocks: Iterable[npt.NDArray[np.uint8]]
    shape: tuple[int, int, int, int]
    labels: IntArray
    class_names: tuple[str, ...]
    given: Mapping[str, IntArray]
    native_px: int
    may_flip: bool = True
    files_hash: str = ""


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
    if (dataset := read_packed(entry)) is not None:
        return dataset
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / LOCK):
            if (dataset := read_packed(entry)) is not None:
                return dataset
            for leftover in owned_folders(cache_dir):  # of a killed process: we hold the lock
                if leftover.name.startswith(PARTIAL):
                    shutil.rmtree(leftover)
            _pack(entry, read(), name=name, seed=seed, files=key.get("files"))
    except OSError as error:
        raise not_writable(cache_dir, error) from error
    dataset = read_packed(entry)
    assert dataset is not None, f"{entry} was packed but does not open"
    return dataset


def packed_channels(cache_dir: Path, files: str) -> int | None:
    """The channels of a folder's images, from any packed copy of these `files`; None without."""
    for entry in owned_folders(cache_dir):
        try:
            manifest = read_manifest(entry)
            if manifest.get("files") == files:
                return int(manifest["shape"][-1])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue  # the downloads, or a damaged entry, which is packed anew
    return None


def _pack(entry: Path, pool: Pool, *, name: str, seed: int, files: str | None) -> None:
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
        content_hash = digest.hexdigest()
        manifest = {
            "name": name,
            "files": files,
            "shape": pool.shape,
            "splits": splits.hash,
            "class_names": pool.class_names,
            "native_px": pool.native_px,
            "may_flip": pool.may_flip,
            "mean": mean,
            "std": std,
            "content_hash": content_hash,
            "set_hash": set_hash(pool.files_hash, splits) if pool.files_hash else content_hash,
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
