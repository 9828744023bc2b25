"""One training on its own: a variant, a data set, a folder that remembers what it holds."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cmtscale.arch.errors import CmtscaleError, RequestError, TrainingError
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset, training_part
from cmtscale.data.epochs import images_per_epoch
from cmtscale.record.folder import (
    METRICS,
    RESULT,
    RUN,
    held,
)
from cmtscale.record.metrics import read_metrics
from cmtscale.record.model_folder import ChosenBy, ModelDescription, Training
from cmtscale.record.reads import accuracy_read_by_training, log_reading
from cmtscale.record.result import RunResult, read_result, write_result
from cmtscale.train.checkpoint import has_checkpoint, load_checkpoint
from cmtscale.train.claim import VARIANT, claim, require_ours
from cmtscale.train.devices import device_slots
from cmtscale.train.loop import train
from cmtscale.train.recipe import Recipe, Run, require_seed
from cmtscale.train.run_time import run_seconds
from cmtscale.train.save_model import (
    model_stands,
    packed_preprocessing,
    save_model,
    scores_of,
    size_of,
    versions,
)
from cmtscale.train.stop import CheckIn, stopped_by_signals
from cmtscale.train.testing import read_test_split
from cmtscale.train.timing import seconds_per_image


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A training before it starts: what it trains on, how many images it sees, and its time.

    `epoch_images` are those of an epoch's whole batches; `seconds` are those left, from steps timed
    here.
    """

    run: Run
    dataset: Dataset
    device: str
    epoch_images: int
    seconds: float


def train_single(
    variant: Variant,
    recipe: Recipe,
    dataset: Dataset,
    *,
    seed: int,
    device: str,
    folder: Path,
    source: dict[str, Any],
    test: bool = False,
    chosen_by: ChosenBy | None = None,
    planned: Callable[[TrainingPlan], None] | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[RunResult, float | None]:
    """Train in `folder`, or go on there; returns the result and the test accuracy.

    The trained model is written as `folder/model`.

    The head gets the data set's classes and channels. `source` says for people where the images
    come from. The test split is read only with `test`, and once: its accuracy is None without, or
    where the checkpoint is gone. A training that was infeasible is tried again. `planned` hears of
    the plan before the first step, `watch` of each line of the log. Raises a `CmtscaleError` before
    anything is written if the folder holds another run, `StoppedError` once the state is kept, and
    `TrainingError` where the model stands and the test split cannot be read.
    """
    slots = device_slots(device)
    if "," in device:
        raise RequestError(f"device {device}: train uses one device so far; use {slots[0]}")
    require_seed("seed", seed)
    torch_device = torch.device(slots[0])
    training_images = training_part(dataset, recipe.train_images)  # too few are refused here
    run = Run(
        run_id=folder.name,
        variant=fit_to_data(variant, dataset.num_classes, dataset.channels),
        recipe=replace(recipe, precision=recipe.precision_on(torch_device.type)),
        seed=seed,
        data=dataset.ref,
    )
    require_ours(folder, run)  # before a lock is put into somebody else's folder
    with held(folder), stopped_by_signals() as check_in:
        claim(folder, run, source, {VARIANT: run.variant.to_toml()})
        result = read_result(folder / RESULT, run.identity)
        if result is None or result.status == "infeasible":
            try:
                if planned is not None:
                    count = len(training_images)
                    done = _images_done(folder)
                    with suppress(torch.OutOfMemoryError):  # the training says so
                        planned(_plan(run, dataset, slots[0], count, done, check_in))
                result = train(
                    run, device=torch_device, folder=folder, watch=watch, check_in=check_in
                )
            except CmtscaleError:  # the network refuses the batch: another one may begin here
                if not has_checkpoint(folder):
                    for name in (RUN, VARIANT, METRICS, RESULT):
                        (folder / name).unlink(missing_ok=True)
                raise
            write_result(folder / RESULT, result, run.identity)
        accuracy = None
        if result.status == "complete":
            save = partial(_save_model, run, dataset, result)
            save(None, folder, source, slots[0], chosen_by)  # also where the test split is not read
            if test:
                accuracy = _test_accuracy(run, torch_device, folder, check_in)
                save(accuracy, folder, source, slots[0], chosen_by)
    return result, accuracy


def _save_model(
    run: Run,
    dataset: Dataset,
    result: RunResult,
    test_accuracy: float | None,
    folder: Path,
    source: dict[str, Any],
    device: str,
    chosen_by: ChosenBy | None,
) -> None:
    """Write the model, unless it stands with this test accuracy or the checkpoint is gone."""
    if model_stands(folder, test_accuracy):
        return
    state = load_checkpoint(folder, run.identity)
    if state is None:
        return
    recipe, network = run.recipe, run.variant
    images = len(training_part(dataset, recipe.train_images))
    description = ModelDescription(
        network=network,
        size=size_of(network),
        classes=dataset.class_names,
        preprocessing=packed_preprocessing(dataset, network.resolution_px),
        training=Training(
            data=source["data"],
            data_hash=dataset.set_hash,
            split_seed=source["split_seed"],
            recipe="short",
            seed=run.seed,
            images_seen=recipe.epochs * images_per_epoch(images, recipe.batch_size),
            seconds=result.seconds,
            device=device,
            started_from="",
            versions=versions(),
        ),
        scores=scores_of(result, dataset.splits, test_accuracy),
        recipe={name: value for name, value in asdict(recipe).items() if value is not None},
        chosen_by=chosen_by,
    )
    save_model(folder, description, state["model"])


def _plan(
    run: Run,
    dataset: Dataset,
    device: str,
    train_images: int,
    images_done: int,
    check_in: CheckIn,
) -> TrainingPlan:
    recipe = run.recipe
    batch = min(recipe.batch_size, train_images)
    images = images_per_epoch(train_images, recipe.batch_size)
    per_image = seconds_per_image(
        run.variant, recipe, batch=batch, device=device, check_in=check_in
    )
    whole = run_seconds(
        per_image, recipe, train_images=train_images, val_images=len(dataset.splits.val)
    )
    return TrainingPlan(
        run=run,
        dataset=dataset,
        device=device,
        epoch_images=images,
        seconds=(1 - images_done / (recipe.epochs * images)) * whole,
    )


def _images_done(folder: Path) -> int:
    """The images that the folder's checkpoint has seen, as of the log; 0 without a checkpoint."""
    if not has_checkpoint(folder):
        return 0
    return max((line["images"] for line in read_metrics(folder)), default=0)


def _test_accuracy(run: Run, device: torch.device, folder: Path, check_in: CheckIn) -> float | None:
    """The test accuracy, from the log if it was read before."""
    earlier = accuracy_read_by_training(folder)
    if earlier is not None:
        return earlier
    try:
        score = read_test_split(run, device=device, folder=folder, check_in=check_in)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{run.variant.name} is trained, and does not fit into the memory of {device} while "
            "the test split is read; free some of it, then the same command goes on"
        ) from error
    if score is None:
        return None
    log_reading(folder, by="train", run_id=run.run_id, images=score.images, accuracy=score.accuracy)
    return score.accuracy
