"""What a full training works with, made from its run: network, optimizer, batches, scorer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cmtscale.arch.errors import RequestError
from cmtscale.data.batches import Batch
from cmtscale.data.loaders import TrainingImages, read_batches, training_loader
from cmtscale.data.order import PartSampler, TrainingOrder
from cmtscale.data.stream import ImageSet
from cmtscale.model.networks import build_network
from cmtscale.train.augment import Mix, make_augment
from cmtscale.train.checkpoint import resume_checkpoint
from cmtscale.train.freeze import freeze, train_mode
from cmtscale.train.full_optimizer import make_ema, make_full_optimizer, make_schedule
from cmtscale.train.full_recipe import FullRecipe
from cmtscale.train.full_run import FullRun
from cmtscale.train.processes import ALONE, Processes
from cmtscale.train.scoring import Scorer
from cmtscale.train.state import TrainState


@dataclass(frozen=True, kw_only=True)
class System:
    """Where and with whom a training runs; none of it is part of the result on one CPU.

    Of the `processes` the first one alone reads and writes in `folder`.
    """

    device: torch.device
    folder: Path
    workers: int = 0
    processes: Processes = ALONE
    compiled: bool = False

    @property
    def words(self) -> str:
        """`cuda:0`, or `8 x cuda, compiled`: what decides no more than the order of sums."""
        count = self.processes.count
        device = str(self.device) if count == 1 else f"{count} x {self.device.type}"
        return f"{device}, compiled" if self.compiled else device


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that the loop needs. `parts` are this process's of each step.

    `network` is the module that trains, in DDP where there are several processes; `forward` calls
    it, compiled or not.
    """

    order: TrainingOrder
    parts: range
    state: TrainState
    schedule: Any
    mix: Mix
    network: nn.Module
    forward: Callable[..., Any]
    scorer: Scorer
    batches: Iterator[Batch]
    is_resumed: bool


def set_up(
    run: FullRun,
    image_set: ImageSet,
    system: System,
    *,
    begin: Callable[[nn.Module], None] | None = None,
) -> Setup:
    """Build everything, and go on from the folder's checkpoint; `begin` fills fresh weights."""
    recipe, device, processes = run.recipe, system.device, system.processes
    order = training_order(run, image_set)
    peak_lr = recipe.peak_lr(order.batch_images)
    torch.manual_seed(run.seed)
    network = build_network(
        run.network,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
        attention=recipe.attention,
    ).to(device)
    if begin is not None:
        begin(network)
    freeze(network, run.frozen)
    is_fp16 = recipe.precision_on(device.type) == "fp16"
    state = TrainState(
        network=network,
        optimizer=make_full_optimizer(network, recipe, peak_lr=peak_lr),
        scaler=torch.amp.GradScaler(device.type, enabled=is_fp16),
        ema=make_ema(network, recipe),
    )
    schedule = make_schedule(
        state.optimizer, recipe, peak_lr=peak_lr, steps_per_epoch=order.steps_per_epoch
    )
    # all go on from what the first one has read: their disks may differ
    kept = processes.first(lambda: resume_checkpoint(system.folder, run.identity))
    if kept is not None:
        state.restore(kept)
    train_mode(network, run.frozen)
    trained = _in_parallel(network, recipe, system)
    first = processes.rank * recipe.accumulate
    parts = range(first, first + recipe.accumulate)
    images = TrainingImages(
        image_set,
        image_set.splits.train,
        make_augment(recipe, run.preprocessing, may_flip=image_set.may_flip),
        seed=run.seed,
    )
    sampler = PartSampler(
        order,
        parts=parts,
        first_step=state.step,
        last_step=recipe.epochs * order.steps_per_epoch,
    )
    loader = training_loader(images, sampler, workers=system.workers, device=device)
    return Setup(
        order=order,
        parts=parts,
        state=state,
        schedule=schedule,
        mix=Mix(recipe, run.network.num_classes),
        network=trained,
        forward=torch.compile(trained) if system.compiled else trained,
        scorer=Scorer(
            run,
            image_set,
            device=device,
            workers=system.workers,
            processes=processes,
            batch_images=order.batch_images // order.parts,
        ),
        batches=read_batches(loader, device),
        is_resumed=kept is not None,
    )


def training_order(run: FullRun, image_set: ImageSet) -> TrainingOrder:
    """What each step sees; raises `RequestError` where a batch cannot be dealt to its parts."""
    recipe, parts, count = run.recipe, run.step_parts, len(image_set.splits.train)
    share = 2 * parts if recipe.mixes else parts  # mixup mixes pairs
    if recipe.batch_size % share and recipe.batch_size <= count:
        needs = "an even number of images" if recipe.mixes else "as many images"
        raise RequestError(
            f"batch_size {recipe.batch_size} cannot be dealt to {parts} parts with {needs} each; "
            f"use {max(share, recipe.batch_size // share * share)}"
        )
    batch_images = min(recipe.batch_size, count) // share * share
    if not batch_images:
        raise RequestError(f"{count} training images are too few for {parts} parts; use fewer")
    return TrainingOrder(
        images=count,
        batch_images=batch_images,
        parts=parts,
        repeats=recipe.repeats,
        seed=run.seed,
    )


def _in_parallel(network: nn.Module, recipe: FullRecipe, system: System) -> nn.Module:
    """The network as several processes train it; it keeps its own names and tensors."""
    if system.processes.count == 1:
        return network
    if recipe.sync_batch_norm and system.device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm

        network = convert_sync_batchnorm(network)
    return DistributedDataParallel(network)
