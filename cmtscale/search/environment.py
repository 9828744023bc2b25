"""What a search ran on: versions, hardware, commit, images."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cmtscale.arch.errors import ResultsError
from cmtscale.data.dataset import Dataset
from cmtscale.record.environment import changes, read_environments
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import ENVIRONMENT
from cmtscale.search.run_code import code_hash
from cmtscale.train.devices import hardware

PACKAGES = ("torch", "torchvision", "fvcore", "optuna", "numpy", "pebble")


def save_environment(
    path: Path, dataset: Dataset, *, source: str, split_seed: int, devices: tuple[str, ...]
) -> None:
    """Write `environment.json`: enough to judge, not to reproduce bit by bit, the results.

    A search that goes on elsewhere keeps its first description and adds the new one to `resumed`,
    with the changes of what decides results as `accepted`.
    """
    described: dict[str, Any] = {
        **_software(),
        "commit": _commit(),
        "python": platform.python_version(),
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
    before = read_environments(path.parent)
    if any(described.items() <= earlier.items() for earlier in before):
        return
    if before:
        first, *resumed = before
        accepted = changes(before, described)
        described |= {"accepted": list(accepted)} if accepted else {}
        described = {**first, "resumed": [*resumed, described]}
    write_json(path, described)


def copy_environments(source: Path, folder: Path) -> None:
    """Say in a folder that takes over runs of another what these were trained on.

    Where the folder says so already, nothing changes.
    """
    if read_environments(source) and not read_environments(folder):
        write_json(folder / ENVIRONMENT, read_json(source / ENVIRONMENT))


def require_unchanged(folder: Path) -> None:
    """Raise `ResultsError` where a folder's runs were trained by other code than would go on."""
    differences = changes(read_environments(folder), _software())
    if differences:
        raise ResultsError(
            f"the runs in {folder} were trained otherwise: {', '.join(differences)}; go on with "
            f"what trained them, or all the same with --accept-changes, which is recorded"
        )


def _software() -> dict[str, Any]:
    """What trains: the version of this package and of others, and the code that decides a run."""
    return {
        "cmtscale": metadata.version("cmtscale"),
        "code": code_hash(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


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
