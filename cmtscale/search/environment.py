"""What a search ran on: versions, hardware, commit, images."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cmtscale.data.dataset import Dataset
from cmtscale.record.files import read_json, write_json
from cmtscale.train.devices import hardware

PACKAGES = ("torch", "torchvision", "fvcore", "optuna", "numpy", "pebble")


def save_environment(
    path: Path, dataset: Dataset, *, source: str, split_seed: int, devices: tuple[str, ...]
) -> None:
    """Write `environment.json`: enough to judge, not to reproduce bit by bit, the results.

    A search that goes on elsewhere keeps its first description and adds the new one to `resumed`.
    """
    described: dict[str, Any] = {
        "cmtscale": metadata.version("cmtscale"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "hardware": hardware(devices),
        "devices": list(devices),
        "data": {
            "source": source,
            "hash": dataset.content_hash,
            "splits_hash": dataset.splits.hash,
            "split_seed": split_seed,
            "num_classes": dataset.num_classes,
            "channels": dataset.channels,
            "native_px": dataset.native_px,
            "train": len(dataset.splits.train),
            "val": len(dataset.splits.val),
            "test": len(dataset.splits.test),
            "commonest_class": _commonest_class(dataset),
        },
    }
    if path.exists():
        first = read_json(path)
        before = [first, *first.get("resumed", [])]
        if any(described.items() <= earlier.items() for earlier in before):
            return
        described = {**first, "resumed": [*first.get("resumed", []), described]}
    write_json(path, described)


def _commonest_class(dataset: Dataset) -> float:
    """The part of the validation split that its commonest class makes up."""
    counts = np.bincount(dataset.labels[dataset.splits.val])
    return float(counts.max() / counts.sum())


def _commit() -> str | None:
    """The commit of the source tree; None for an installed package."""
    try:
        process = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
