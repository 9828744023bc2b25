"""A full training in its folder: claimed, trained, scored, and written as a model."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import nn

from cmtscale.arch.errors import DoesNotFitError, RequestError, TrainingError
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.variant import Variant
from cmtscale.data.loaders import workers_watched
from cmtscale.data.order import TrainingOrder
from cmtscale.data.stream import ImageSet
from cmtscale.model.networks import build_network
from cmtscale.record.folder import METRICS, RESULT, RUN, held
from cmtscale.record.model_folder import Preprocessing, Size
from cmtscale.record.result import RunResult, read_result, write_result
from cmtscale.train.checkpoint import has_checkpoint
from cmtscale.train.claim import RECIPE, VARIANT, claim, require_ours
from cmtscale.train.devices import available_cores, device_slots
from cmtscale.train.full_conclude import conclude
from cmtscale.train.full_loop import Watch, train_fully
from cmtscale.train.full_request import FullRequest
from cmtscale.train.full_run import FullRun
from cmtscale.train.full_setup import Setup, System, set_up, training_order
from cmtscale.train.moments import MOMENTS, with_moments
from cmtscale.train.out_of_memory import may_fit_when_smaller
from cmtscale.train.processes import ALONE, Processes, joined
from cmtscale.train.save_model import size_of
from cmtscale.train.stop import listening
from cmtscale.train.tensorboard import TENSORBOARD, tensorboard_watch

MOST_WORKERS = 16  # of each GPU


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
    steps_done: int = 0


def plan_full(request: FullRequest) -> FullPlan:
    """What one process would train; the folder is neither read nor written.

    Raises a `CmtscaleError` for a network, a recipe or images that cannot be trained together.
    """
    slot = device_slots(request.device, workers=1)[0]
    run = _make_run(request, slot, ALONE)
    recipe = run.recipe
    with torch.device("meta"):
        build_network(
            run.network,
            drop_path=recipe.drop_path,
            dropout=recipe.dropout,
            attention=recipe.attention,
        )
    return _plan(run, request, slot, training_order(run, request.image_set), ALONE)


def train_full(
    request: FullRequest,
    *,
    planned: Callable[[FullPlan], None] | None = None,
    watch: Watch | None = None,
) -> tuple[RunResult, float | None]:
    """Train in the folder, or go on there; returns the result and the test accuracy.

    The trained model is written as `folder/model`. Under `torchrun` the processes train together;
    the first one writes, and hears `planned` and `watch`. The test split is read only if asked
    for, and once: its accuracy is None without, or where the checkpoint is gone. Raises a
    `CmtscaleError` before anything is written if the folder holds another training.
    """
    with (
        joined(request.device) as (processes, device),
        listening() as stop,
        workers_watched(),
        ExitStack() as locks,
    ):
        slot = device_slots(device, workers=1)[0]
        if "," in device:
            raise RequestError(f"device {device}: torchrun trains on several, or use {slot}")
        run = _make_run(request, slot, processes)
        folder = request.folder
        system = System(
            device=torch.device(slot),
            folder=folder,
            workers=_workers(request.workers, slot, processes),
            processes=processes,
            compiled=request.compiled,
        )
        if len(set(processes.gather(run.identity))) > 1:
            raise RequestError(
                "the processes train different networks, or on different images; start all of them "
                "with the same command on the same data"
            )
        processes.first(lambda: require_ours(folder, run))  # before a lock is put into it
        processes.first(lambda: locks.enter_context(held(folder)))
        processes.first(lambda: claim(folder, run, request.source, _texts(run)))
        setup: Setup | None = None
        result = processes.first(lambda: read_result(folder / RESULT, run.identity))
        if result is None:
            try:
                run = with_moments(run, request.image_set, folder, processes)
                setup = set_up(run, request.image_set, system, begin=_beginning(request, run))
                if planned is not None and processes.is_first:
                    plan = _plan(run, request, slot, setup.order, processes)
                    planned(replace(plan, steps_done=setup.state.step))
                with tensorboard_watch(folder) as tensorboard:
                    watchers = [watch, tensorboard]
                    result = train_fully(run, request.image_set, setup, system, stop, watchers)
            except Exception as error:
                refusal = _does_not_fit(run, system) if may_fit_when_smaller(error) else None
                _give_back(system)
                if refusal is not None:
                    raise refusal from error
                raise
        if processes.is_first:
            write_result(folder / RESULT, result, run.identity)
        accuracy = None
        if result.status == "complete":
            try:
                accuracy = conclude(request, run, system, setup, result)
            except RuntimeError as error:
                if not may_fit_when_smaller(error):
                    raise
                raise TrainingError(
                    f"{run.network.name} is trained, and does not fit into the memory of {slot} "
                    "while it is scored; free some of it, then the same command goes on"
                ) from error
    return result, accuracy


def _does_not_fit(run: FullRun, system: System) -> DoesNotFitError:
    """What to do where memory is short; with other parts a step it is another training."""
    recipe, count = run.recipe, system.processes.count
    share = count * (2 if recipe.mixes else 1)
    larger = range(recipe.accumulate + 1, recipe.batch_size // share + 1)
    parts = next((parts for parts in larger if recipe.batch_size % (share * parts) == 0), None)
    smaller = f"--accumulate {parts}" if parts else "a smaller --batch-size or network"
    problem = (
        f"{run.network.name} does not fit into the memory of {system.device} with "
        f"{recipe.batch_size // run.step_parts} images at a time"
    )
    is_begun = has_checkpoint(system.folder)
    advice = f"use {smaller}"
    if is_begun:
        advice = (
            "free some of it, then the same command goes on; "
            f"or begin anew with {smaller} and another --out"
        )
    return DoesNotFitError(f"{problem}; {advice}", problem=problem, parts=parts, is_begun=is_begun)


def _give_back(system: System) -> None:
    """Where nothing was trained, another training may begin in the folder."""
    if system.processes.is_first and not has_checkpoint(system.folder):
        for name in (RUN, VARIANT, RECIPE, METRICS, MOMENTS):
            (system.folder / name).unlink(missing_ok=True)
        shutil.rmtree(system.folder / TENSORBOARD, ignore_errors=True)


def _make_run(request: FullRequest, device: str, processes: Processes) -> FullRun:
    """What is trained, with the precision that the device gives it."""
    image_set, recipe = request.image_set, request.recipe
    network = fit_to_data(request.network, len(image_set.class_names), image_set.channels)
    precision = recipe.precision_on(torch.device(device).type)
    mean, std = image_set.moments or ((0.5,) * image_set.channels, (0.5,) * image_set.channels)
    return FullRun(
        network=network,
        recipe=replace(recipe, precision=precision),
        step_parts=processes.count * recipe.accumulate,
        seed=request.seed,
        data_hash=image_set.content_hash,
        preprocessing=Preprocessing(
            channels=image_set.channels,
            resolution_px=network.resolution_px,
            stored_px=network.resolution_px,  # resized once, as in training
            crop_fraction=recipe.crop_fraction,
            mean=mean,
            std=std,
        ),
        started_from=request.start.digest if request.start else "",
        frozen=request.frozen,
    )


def _beginning(request: FullRequest, run: FullRun) -> Callable[[nn.Module], None] | None:
    start, classes = request.start, request.image_set.class_names
    if start is None:
        return None
    return lambda network: start.fill(network, run.network, classes)


def _texts(run: FullRun) -> dict[str, str]:
    texts = {RECIPE: run.recipe.to_toml()}
    if isinstance(run.network, Variant):
        texts[VARIANT] = run.network.to_toml()
    return texts


def _workers(asked: int | None, device: str, processes: Processes) -> int:
    if asked is not None:
        return asked
    if device == "cpu":
        return 0
    return min(MOST_WORKERS, max(1, available_cores() // processes.local_count))


def _plan(
    run: FullRun, request: FullRequest, device: str, order: TrainingOrder, processes: Processes
) -> FullPlan:
    return FullPlan(
        run=run,
        size=size_of(run.network),
        image_set=request.image_set,
        device=device,
        processes=processes.count,
        batch_images=order.batch_images,
        steps_per_epoch=order.steps_per_epoch,
    )
