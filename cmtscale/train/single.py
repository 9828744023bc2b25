"""One training on its own: a variant, a data set, a folder that remembers what it holds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cmtscale.arch.errors import CmtscaleError, RequestError
from cmtscale.arch.variant import Variant
from cmtscale.data.pack import Dataset
from cmtscale.record.files import read_json, write_json, write_text_atomically
from cmtscale.record.folder import (
    CHECKPOINT,
    METRICS,
    RESULT,
    RUN,
    held,
    holds_anything,
    require_folder,
)
from cmtscale.record.identity import difference, flat
from cmtscale.record.reads import readings
from cmtscale.record.result import RunResult, read_result, write_result
from cmtscale.train.devices import device_slots
from cmtscale.train.loop import open_data, test_accuracy, train, training_indices
from cmtscale.train.recipe import LARGEST_SEED, DataRef, Recipe, Run

VARIANT = "variant.toml"


def train_single(
    variant: Variant,
    recipe: Recipe,
    data: DataRef,
    *,
    seed: int,
    device: str,
    folder: Path,
    test: bool = False,
    begun: Callable[[Dataset, int], None] | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[RunResult, float | None]:
    """Train in `folder`, or go on there; returns the result and the test accuracy.

    The head gets the data set's classes and channels. The test split is read only with `test`, and
    once: its accuracy is None without, or where the checkpoint is gone. `begun` is told the data
    set and how many images an epoch has, before the first step; `watch` each line of the log.
    Raises a `CmtscaleError` before anything is written if the folder holds another run.
    """
    slots = device_slots(device)
    if "," in device:
        raise RequestError(f"device {device}: train uses one device so far; use {slots[0]}")
    if not 0 <= seed <= LARGEST_SEED:
        raise RequestError(f"seed {seed} is out of range; use 0 to {LARGEST_SEED}")
    dataset = open_data(data)
    data = replace(data, content_hash=dataset.content_hash)
    fitted = replace(variant, num_classes=dataset.num_classes, in_channels=dataset.channels)
    images = len(training_indices(dataset, recipe))  # too few are refused here
    torch_device = torch.device(slots[0])
    recipe = replace(recipe, precision=recipe.precision_on(torch_device.type))
    run = Run(run_id=folder.name, variant=fitted, recipe=recipe, seed=seed, data=data)
    _require_ours(folder, run)  # before a lock is put into somebody else's folder
    with held(folder):
        _claim(folder, run)
        result = read_result(folder / RESULT, run.identity)
        if result is None:
            if begun is not None:
                begun(dataset, images)
            try:
                result = train(run, device=torch_device, folder=folder, watch=watch)
            except CmtscaleError:  # the network refuses the batch: another one may begin here
                if not (folder / CHECKPOINT).exists():
                    for name in (RUN, VARIANT, METRICS):
                        (folder / name).unlink(missing_ok=True)
                raise
            write_result(folder / RESULT, result, run.identity)
        accuracy = None
        if test and result.status == "complete":
            accuracy = _read_test_split(run, torch_device, folder)
    return result, accuracy


def _read_test_split(run: Run, device: torch.device, folder: Path) -> float | None:
    """The test accuracy, from the log if it was read before."""
    earlier = readings(folder)
    if earlier:
        return earlier[-1].accuracy
    return test_accuracy(run, device=device, folder=folder, log_folder=folder, by="train")


def _require_ours(folder: Path, run: Run) -> bool:
    """Whether the folder is this run's already; raises `RequestError` if it is another's."""
    require_folder(folder)
    try:
        described = read_json(folder / RUN)
    except FileNotFoundError:
        if holds_anything(folder):
            raise RequestError(
                f"{folder} is not empty and holds no training; use another --out"
            ) from None
        return False
    if "identity" not in described:
        raise RequestError(
            f"{folder} holds another training, or one of cmtscale 0.1.0; use another --out"
        )
    if described["identity"] != run.identity:
        differs = difference(described.get("run") or {}, run.identity_fields())
        raise RequestError(
            f"{folder} holds another training{differs}; "
            f"use another --out, or the command it began with"
        )
    return True


def _claim(folder: Path, run: Run) -> None:
    """Write what the folder is for; first whose it is, so that a killed start can be repeated."""
    if not _require_ours(folder, run):
        described = {
            "identity": run.identity,
            "data": run.data.source,
            "split_seed": run.data.split_seed,
            "run": flat(run.identity_fields()),
        }
        write_json(folder / RUN, described)
    write_text_atomically(folder / VARIANT, run.variant.to_toml())
