"""A full training in its folder: claimed, trained, scored, and written as a model."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cmtscale.arch.errors import CmtscaleError, ModelError, RequestError, TrainingError
from cmtscale.arch.network import Network, fit_to_data
from cmtscale.arch.variant import Variant
from cmtscale.data.stream import ImageSet, estimate_moments
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import CHECKPOINT, METRICS, RESULT, RUN, held
from cmtscale.record.model_folder import (
    ChosenBy,
    ModelDescription,
    Preprocessing,
    Scores,
    Size,
    Training,
    find_model,
    read_description,
)
from cmtscale.record.reads import log_reading, readings
from cmtscale.record.result import RunResult, read_result, write_result
from cmtscale.train.claim import RECIPE, VARIANT, claim, require_ours
from cmtscale.train.devices import available_cores, device_slots
from cmtscale.train.full_loop import train_fully
from cmtscale.train.full_recipe import FullRecipe, recipe_table
from cmtscale.train.full_run import FullRun
from cmtscale.train.full_setup import Setup, System, set_up
from cmtscale.train.processes import Processes, joined
from cmtscale.train.recipe import require_seed
from cmtscale.train.save_model import save_model, size_of, versions
from cmtscale.train.start import Start
from cmtscale.train.stop import listening
from cmtscale.train.tensorboard import tensorboard_watch

MOMENTS = "images.json"  # mean and deviation of the images, where they were estimated
MOST_WORKERS = 16  # of each GPU


@dataclass(frozen=True, kw_only=True)
class FullRequest:
    """A full training as it is asked for.

    `network` gets the classes and channels of the images. `recipe_name` and `source` (`data`,
    `split_seed`) are for people. `start` holds the weights to begin with, of which `frozen` do not
    train. `workers` read images, None: none on a CPU, whose cores train.
    """

    network: Network
    recipe: FullRecipe
    recipe_name: str
    image_set: ImageSet
    source: Mapping[str, Any]
    seed: int
    folder: Path
    device: str = "auto"
    workers: int | None = None
    compiled: bool = False
    start: Start | None = None
    frozen: str = ""
    test: bool = False
    chosen_by: ChosenBy | None = None


@dataclass(frozen=True, kw_only=True)
class FullPlan:
    """A training before its first step: on which device, in how many processes, of which steps."""

    run: FullRun
    size: Size
    image_set: ImageSet
    device: str
    processes: int
    batch_images: int
    steps_per_epoch: int


def train_full(
    request: FullRequest,
    *,
    planned: Callable[[FullPlan], None] | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[RunResult, float | None]:
    """Train in the folder, or go on there; returns the result and the test accuracy.

    The trained model is written as `folder/model`. Under `torchrun` the processes train together;
    the first one writes, and hears `planned` and `watch`. The test split is read only if asked
    for, and once: its accuracy is None without, or where the checkpoint is gone. Raises a
    `CmtscaleError` before anything is written if the folder holds another training.
    """
    require_seed("seed", request.seed)
    with joined(request.device) as (processes, device), listening() as stop, ExitStack() as locks:
        slot = device_slots(device, workers=1)[0]
        if "," in device:
            raise RequestError(f"device {device}: torchrun trains on several, or use {slot}")
        run = _make_run(request, slot)
        folder = request.folder
        system = System(
            device=torch.device(slot),
            folder=folder,
            workers=_workers(request.workers, slot, processes),
            processes=processes,
            compiled=request.compiled,
        )
        processes.first(lambda: require_ours(folder, run))  # before a lock is put into it
        processes.first(lambda: locks.enter_context(held(folder)))
        processes.first(lambda: claim(folder, run, request.source, _texts(run)))
        setup: Setup | None = None
        result = processes.first(lambda: read_result(folder / RESULT, run.identity))
        try:
            if result is None:
                run = _with_moments(run, request.image_set, folder, processes)
                setup = set_up(run, request.image_set, system, begin=_beginning(request))
                if planned is not None and processes.is_first:
                    planned(_plan(run, request, slot, setup, processes))
                result = train_fully(
                    run,
                    request.image_set,
                    setup,
                    system,
                    stop,
                    watch=_watchers(watch, tensorboard_watch(folder, step=setup.state.step)),
                )
        except TrainingError:
            raise
        except CmtscaleError:  # where nothing was trained, another training may begin here
            if processes.is_first and not (folder / CHECKPOINT).exists():
                for name in (RUN, VARIANT, RECIPE, METRICS, MOMENTS):
                    (folder / name).unlink(missing_ok=True)
            raise
        if processes.is_first:
            write_result(folder / RESULT, result, run.identity)
        accuracy = None
        if result.status == "complete":
            accuracy = _conclude(request, run, system, setup, result)
    return result, accuracy


def _watchers(
    *watchers: Callable[[dict[str, Any]], None] | None,
) -> Callable[[dict[str, Any]], None]:
    heard = [watch for watch in watchers if watch is not None]

    def watch_all(line: dict[str, Any]) -> None:
        for watch in heard:
            watch(line)

    return watch_all


def _make_run(request: FullRequest, device: str) -> FullRun:
    """What is trained, with the precision that the device gives it."""
    image_set, recipe = request.image_set, request.recipe
    network = fit_to_data(request.network, len(image_set.class_names), image_set.channels)
    precision = recipe.precision_on(torch.device(device).type)
    stored_px = min(network.resolution_px, image_set.native_px)
    mean, std = image_set.moments or ((0.5,) * image_set.channels, (0.5,) * image_set.channels)
    return FullRun(
        network=network,
        recipe=replace(recipe, precision=precision),
        seed=request.seed,
        data_hash=image_set.content_hash,
        preprocessing=Preprocessing(
            channels=image_set.channels,
            resolution_px=network.resolution_px,
            stored_px=stored_px,
            crop_fraction=recipe.crop_fraction,
            mean=mean,
            std=std,
        ),
        started_from=request.start.digest if request.start else "",
        frozen=request.frozen,
    )


def _with_moments(run: FullRun, image_set: ImageSet, folder: Path, processes: Processes) -> FullRun:
    """The run with the mean and deviation of its images, estimated once for its folder."""
    if image_set.moments is not None:
        return run

    def moments() -> tuple[tuple[float, ...], tuple[float, ...]]:
        with suppress(FileNotFoundError):
            kept = read_json(folder / MOMENTS)
            return tuple(kept["mean"]), tuple(kept["std"])
        spec = run.preprocessing
        mean, std = estimate_moments(
            image_set, side_px=spec.stored_px, crop_fraction=spec.crop_fraction
        )
        write_json(folder / MOMENTS, {"mean": mean, "std": std})
        return mean, std

    mean, std = processes.first(moments)
    return replace(run, preprocessing=replace(run.preprocessing, mean=mean, std=std))


def _beginning(request: FullRequest) -> Callable[[Any], None] | None:
    start, classes = request.start, request.image_set.class_names
    return None if start is None else lambda network: start.fill(network, classes)


def _texts(run: FullRun) -> dict[str, str]:
    texts = {RECIPE: run.recipe.to_toml()}
    if isinstance(run.network, Variant):
        texts[VARIANT] = run.network.to_toml()
    return texts


def _workers(asked: int | None, device: str, processes: Processes) -> int:
    if asked is not None:
        if asked < 0:
            raise RequestError(f"workers {asked} is no number of processes; use 0 or more")
        return asked
    if device == "cpu":
        return 0
    return min(MOST_WORKERS, max(1, available_cores() // processes.count))


def _plan(
    run: FullRun, request: FullRequest, device: str, setup: Setup, processes: Processes
) -> FullPlan:
    return FullPlan(
        run=run,
        size=size_of(run.network),
        image_set=request.image_set,
        device=device,
        processes=processes.count,
        batch_images=setup.order.batch_images,
        steps_per_epoch=setup.order.steps_per_epoch,
    )


def _conclude(
    request: FullRequest, run: FullRun, system: System, setup: Setup | None, result: RunResult
) -> float | None:
    """Read the test split if that is asked for, and write the model; the test accuracy."""
    folder, processes = system.folder, system.processes
    earlier = processes.first(lambda: readings(folder))
    accuracy = earlier[-1].accuracy if earlier and request.test else None
    is_read = request.test and not earlier
    if not is_read and processes.first(lambda: _stands(folder, accuracy)):
        return accuracy
    if setup is None:  # trained by an earlier command
        if not (folder / CHECKPOINT).exists():
            return accuracy
        run = _with_moments(run, request.image_set, folder, processes)
        setup = set_up(run, request.image_set, system)
        if not setup.is_resumed:
            return accuracy
        setup.scorer.load(setup.state.best_network)
    test = request.image_set.splits.test
    if is_read:
        accuracy = setup.scorer.predict(test, between=lambda: None).accuracy
    if processes.is_first:
        if is_read:
            assert accuracy is not None
            log_reading(folder, by="train", run_id=folder.name, images=len(test), accuracy=accuracy)
        description = _describe(request, run, system, setup, result, accuracy)
        save_model(folder, description, setup.scorer.model.state_dict())
    return accuracy


def _stands(folder: Path, test_accuracy: float | None) -> bool:
    """Whether the model is written, with this test accuracy."""
    with suppress(ModelError):
        scores = read_description(find_model(folder))[0].scores
        return test_accuracy is None or scores.test_accuracy == test_accuracy
    return False


def _describe(
    request: FullRequest,
    run: FullRun,
    system: System,
    setup: Setup,
    result: RunResult,
    test_accuracy: float | None,
) -> ModelDescription:
    assert result.val_accuracy is not None
    assert result.val_loss is not None
    assert result.temperature is not None
    image_set, order = request.image_set, setup.order
    device = str(system.device)
    if system.processes.count > 1:
        device = f"{system.processes.count} x {system.device.type}"
    return ModelDescription(
        network=run.network,
        size=size_of(run.network),
        classes=image_set.class_names,
        preprocessing=run.preprocessing,
        training=Training(
            data=request.source["data"],
            data_hash=image_set.content_hash,
            split_seed=request.source["split_seed"],
            recipe=request.recipe_name,
            seed=run.seed,
            images_seen=setup.state.step * order.batch_images,
            seconds=result.seconds,
            device=device,
            started_from=request.start.label if request.start else "",
            versions=versions(),
        ),
        scores=Scores(
            val_images=len(image_set.splits.val),
            val_accuracy=result.val_accuracy,
            val_loss=result.val_loss,
            temperature=result.temperature,
            test_images=None if test_accuracy is None else len(image_set.splits.test),
            test_accuracy=test_accuracy,
        ),
        recipe=recipe_table(run.recipe),
        chosen_by=request.chosen_by,
    )
