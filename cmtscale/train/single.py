"""One training on its own: a variant, a data set, a folder that remembers what it holds."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from cmtscale.atomic import write_text_atomically
from cmtscale.spec.errors import RequestError
from cmtscale.spec.variant import Variant
from cmtscale.train.devices import device_slots
from cmtscale.train.loop import open_data, test_accuracy, train
from cmtscale.train.recipe import DataRef, Recipe, Run, RunResult, read_result

RESULT, VARIANT, RUN = "result.json", "variant.toml", "run.json"


def train_single(
    variant: Variant,
    recipe: Recipe,
    data: DataRef,
    *,
    seed: int,
    device: str,
    folder: Path,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[RunResult, float]:
    """Train in `folder`, or go on there; returns the result and the test accuracy (NaN if none).

    The head gets the data set's classes and channels. Raises a `CmtscaleError` before anything is
    written if the folder holds another run.
    """
    slots = device_slots(device)
    if len(set(slots)) > 1:
        raise RequestError(f"device {device}: train uses one device so far; use {slots[0]}")
    dataset = open_data(data)
    fitted = replace(variant, num_classes=dataset.num_classes, in_channels=dataset.channels)
    run = Run(run_id=folder.name, variant=fitted, recipe=recipe, seed=seed, data=data)
    _claim(folder, run)
    place = torch.device(slots[0])
    result = read_result(folder / RESULT, run.fingerprint)
    if result is None:
        result = train(run, device=place, folder=folder, watch=watch)
        write_text_atomically(folder / RESULT, result.to_json(run.fingerprint))
    accuracy = None
    if result.status == "complete":
        accuracy = test_accuracy(run, device=place, folder=folder)
    return result, float("nan") if accuracy is None else accuracy


def _claim(folder: Path, run: Run) -> None:
    """Write what the folder is for, or see that it is for this run."""
    described = {"fingerprint": run.fingerprint, "seed": run.seed, "data": run.data.source}
    try:
        known = json.loads((folder / RUN).read_text())["fingerprint"]
    except FileNotFoundError:
        if folder.is_dir() and any(folder.iterdir()):
            raise RequestError(
                f"{folder} is not empty and holds no training; use another --out"
            ) from None
        text = json.dumps({**described, "recipe": asdict(run.recipe)}, indent=1) + "\n"
        try:
            write_text_atomically(folder / VARIANT, run.variant.to_toml())
            write_text_atomically(folder / RUN, text)
        except OSError as error:
            raise RequestError(
                f"{folder} cannot be written ({error.strerror}); use another --out"
            ) from error
        return
    except (OSError, ValueError, KeyError, TypeError):  # a file, or not ours
        known = None
    if known != run.fingerprint:
        raise RequestError(
            f"{folder} holds another training; use another --out, or the command it began with"
        )
