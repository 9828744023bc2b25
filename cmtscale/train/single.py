"""One training on its own: a variant, a data set, a folder that remembers what it holds."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from cmtscale.atomic import write_text_atomically
from cmtscale.data.pack import Dataset
from cmtscale.spec.errors import CmtscaleError, RequestError
from cmtscale.spec.variant import Variant
from cmtscale.train.checkpoint import NAME as CHECKPOINT
from cmtscale.train.claim import holds_anything, owned
from cmtscale.train.devices import device_slots
from cmtscale.train.loop import METRICS, open_data, test_accuracy, train, training_indices
from cmtscale.train.recipe import LARGEST_SEED, DataRef, Recipe, Run, RunResult, read_result

RESULT, VARIANT, RUN = "result.json", "variant.toml", "run.json"


def train_single(
    variant: Variant,
    recipe: Recipe,
    data: DataRef,
    *,
    seed: int,
    device: str,
    folder: Path,
    begun: Callable[[Dataset, int], None] | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[RunResult, float]:
    """Train in `folder`, or go on there; returns the result and the test accuracy (NaN if none).

    The head gets the data set's classes and channels. `begun` is told the data set and how many
    images an epoch has, before the first step; `watch` each line of the log. Raises a
    `CmtscaleError` before anything is written if the folder holds another run.
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
    place = torch.device(slots[0])
    recipe = replace(recipe, precision=recipe.precision_on(place.type))
    run = Run(run_id=folder.name, variant=fitted, recipe=recipe, seed=seed, data=data)
    _require_ours(folder, run)  # before a lock is put into somebody else's folder
    with owned(folder):
        _claim(folder, run)
        result = read_result(folder / RESULT, run.fingerprint)
        if result is None:
            if begun is not None:
                begun(dataset, images)
            try:
                result = train(run, device=place, folder=folder, watch=watch)
            except CmtscaleError:  # the network refuses the batch: another one may begin here
                if not (folder / CHECKPOINT).exists():
                    for name in (RUN, VARIANT, METRICS):
                        (folder / name).unlink(missing_ok=True)
                raise
            write_text_atomically(folder / RESULT, result.to_json(run.fingerprint))
        accuracy = None
        if result.status == "complete":
            accuracy = test_accuracy(run, device=place, folder=folder)
    return result, float("nan") if accuracy is None else accuracy


def _require_ours(folder: Path, run: Run) -> bool:
    """Whether the folder is this run's already; raises `RequestError` if it is another's."""
    if folder.is_file():
        raise RequestError(f"{folder} is a file, not a folder; use another --out")
    try:
        there = json.loads((folder / RUN).read_text())
        known = there["fingerprint"]
    except FileNotFoundError:
        if holds_anything(folder):
            raise RequestError(
                f"{folder} is not empty and holds no training; use another --out"
            ) from None
        return False
    except (OSError, ValueError, KeyError, TypeError):  # a file in the way, or not ours
        there, known = {}, None
    if known != run.fingerprint:
        raise RequestError(
            f"{folder} holds another training{_difference(there, run)}; "
            f"use another --out, or the command it began with"
        )
    return True


def _described(run: Run) -> dict[str, Any]:
    """What a run is, as JSON keeps it."""
    described = {
        "variant": asdict(run.variant),
        "data": run.data.source,
        "seed": run.seed,
        "recipe": asdict(run.recipe),
    }
    restored: dict[str, Any] = json.loads(json.dumps(described))
    return restored


def _difference(there: dict[str, Any], run: Run) -> str:
    """In brackets, what a described run and `run` do not share; nothing if it is not described."""
    here = _described(run)
    if not isinstance(there.get("recipe"), dict):
        return ""
    differing = [
        name for name, value in here["recipe"].items() if there["recipe"].get(name) != value
    ]
    differing += [name for name in ("variant", "data", "seed") if there.get(name) != here[name]]
    differing = differing or ["images"]
    return f" (its {', '.join(differing)} {'differs' if len(differing) == 1 else 'differ'})"


def _claim(folder: Path, run: Run) -> None:
    """Write what the folder is for; first whose it is, so that a killed start can be repeated."""
    if not _require_ours(folder, run):
        described = {"fingerprint": run.fingerprint, **_described(run)}
        write_text_atomically(folder / RUN, json.dumps(described, indent=1) + "\n")
    write_text_atomically(folder / VARIANT, run.variant.to_toml())
