"""What a search ran on: versions, hardware, commit, images."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmtscale.data.dataset import Dataset
from cmtscale.record.files import read_json, write_json

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


def hardware(devices: tuple[str, ...]) -> str:
    """The GPUs or the processor that the runs use, with their number."""
    if devices[0].startswith("cuda") and not torch.cuda.is_available():  # they are elsewhere
        return f"{len(set(devices))} x {devices[0].split(':')[0]}"
    if devices[0].startswith("cuda"):
        names = sorted({torch.cuda.get_device_name(device) for device in devices})
        return f"{len(set(devices))} x {', '.join(names)}"
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


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
