"""The one training loop."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cmtscale.arch.errors import DataError
from cmtscale.data.batches import batches_per_epoch, device_split, epoch_batches
from cmtscale.data.pack import Dataset, subset
from cmtscale.data.sources import load_data
from cmtscale.data.splits import IntArray
from cmtscale.model.cmt import CMT, build
from cmtscale.record.folder import METRICS
from cmtscale.record.losses import write_image_losses
from cmtscale.record.metrics import append_metrics, drop_metrics_after
from cmtscale.record.reads import log_reading
from cmtscale.record.result import RunResult
from cmtscale.train.batch_norm import estimate_statistics, set_momentum
from cmtscale.train.checkpoint import (
    load_checkpoint,
    random_states,
    save_checkpoint,
    set_random_states,
)
from cmtscale.train.evaluate import Evaluation, evaluate
from cmtscale.train.optimizer import lr_factor, make_optimizer
from cmtscale.train.recipe import DataRef, Recipe, Run

LOG_STEPS = 20  # how often losses are looked at: once per look the device is waited for


def train(
    run: Run,
    *,
    device: torch.device,
    folder: Path | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> RunResult:
    """Train and evaluate; with a `folder`, log, checkpoint each epoch, and go on from there.

    `watch` is told each line of the log. The same run on the same CPU with the same number of
    threads gives the same result to the bit, interrupted or not. A loss that is not finite ends it
    as diverged, with the step.
    """
    began = time.perf_counter()
    recipe = run.recipe
    torch.manual_seed(run.seed)
    dataset = open_data(run.data)
    train_split = device_split(dataset, training_indices(dataset, recipe), device=device)
    val_split = device_split(dataset, dataset.splits.val, device=device)
    model = build(
        run.variant,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
        attention=recipe.attention,
    ).to(device)
    optimizer = make_optimizer(model, recipe)
    autocast = make_autocast(recipe, device)
    generator = torch.Generator().manual_seed(run.seed)
    steps_per_epoch = batches_per_epoch(len(train_split), recipe.batch_size)
    total_steps = recipe.epochs * steps_per_epoch
    batch_images = min(recipe.batch_size, len(train_split))
    progress = _Progress(folder, run.identity, device, began, watch)
    epoch = progress.restore(model, optimizer, generator)
    step = epoch * steps_per_epoch

    def score() -> Evaluation:
        estimate_statistics(model, train_split, autocast=autocast)
        return evaluate(model, val_split, batch_size=recipe.batch_size, autocast=autocast)

    evaluation = None
    while epoch < recipe.epochs:
        model.train()
        started, losses = time.perf_counter(), []
        for images, labels in epoch_batches(
            train_split,
            batch_size=recipe.batch_size,
            resolution_px=run.variant.resolution_px,
            generator=generator,
            flip=recipe.flip,
            shift_px_fraction=recipe.shift_fraction,
        ):
            factor = lr_factor(step, total_steps, recipe.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak_lr"]
            set_momentum(model, step)
            with autocast:
                loss = F.cross_entropy(
                    model(images), labels, label_smoothing=recipe.label_smoothing
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
            step += 1
            if step % LOG_STEPS == 0 or len(losses) == steps_per_epoch:
                bad = first_bad_step(losses, step)
                if bad is not None:
                    return progress.diverged(f"loss not finite at step {bad} of {total_steps}")
                progress.log(
                    step=step,
                    images=step * batch_images,
                    train_loss=float(torch.stack(losses[-LOG_STEPS:]).mean()),
                    lr=factor * recipe.lr,
                )
        epoch += 1
        progress.train_seconds += time.perf_counter() - started
        progress.train_loss = float(torch.stack(losses).cpu().double().mean())
        evaluation = score()
        if not (math.isfinite(evaluation.loss_raw) and math.isfinite(evaluation.loss)):
            return progress.diverged(f"validation loss not finite after step {step}")
        progress.log(
            step=step,
            images=step * batch_images,
            val_loss_raw=evaluation.loss_raw,
            val_accuracy=evaluation.accuracy,
        )
        progress.save(model, optimizer, generator, epoch, step)
    if evaluation is None:  # killed between the last checkpoint and the result
        evaluation = score()
    if folder is not None:
        write_image_losses(folder, evaluation.image_losses)
    return RunResult(
        status="complete",
        val_loss=evaluation.loss,
        val_loss_raw=evaluation.loss_raw,
        val_accuracy=evaluation.accuracy,
        temperature=evaluation.temperature,
        train_loss=progress.train_loss,
        images_per_second=total_steps * batch_images / progress.train_seconds,
        seconds=progress.seconds(),
    )


def test_accuracy(
    run: Run, *, device: torch.device, folder: Path, log_folder: Path, by: str
) -> float | None:
    """Accuracy on the test split of the run's last checkpoint; None if that is gone.

    The test split is for the winner of a search or a final training, and read once: each reading
    is logged in `log_folder`, with the command `by` that asked for it.
    """
    state = load_checkpoint(folder, run.identity, device)
    if state is None:
        return None
    dataset = open_data(run.data)
    split = device_split(dataset, dataset.splits.test, device=device)
    model = build(run.variant, attention=run.recipe.attention).to(device)
    model.load_state_dict(state["model"])
    autocast = make_autocast(run.recipe, device)
    evaluation = evaluate(model, split, batch_size=run.recipe.batch_size, autocast=autocast)
    log_reading(
        log_folder, by=by, run_id=run.run_id, images=len(split), accuracy=evaluation.accuracy
    )
    return evaluation.accuracy


def open_data(data: DataRef) -> Dataset:
    """The packed data set of a run; raises `DataError`, also if it is not the one that is meant."""
    dataset = load_data(
        data.source,
        resolution_px=data.resolution_px,
        cache_dir=data.cache_dir,
        seed=data.split_seed,
    )
    if data.content_hash not in ("", dataset.content_hash):
        raise DataError(f"the images of {data.source} have changed meanwhile; start anew")
    return dataset


def training_indices(dataset: Dataset, recipe: Recipe) -> IntArray:
    """The training images a recipe uses: all, or its fixed stratified part."""
    if not recipe.train_images:
        return dataset.splits.train
    return subset(dataset, train_images=recipe.train_images)


def make_autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision as the recipe says: by default bfloat16 on CUDA and none elsewhere."""
    low = recipe.precision_on(device.type) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


def first_bad_step(losses: list[Tensor], step: int) -> int | None:
    """The number of the first step whose loss is not finite; `step` is that of the last one."""
    finite = torch.isfinite(torch.stack(losses)).tolist()
    if all(finite):
        return None
    return step - len(losses) + 1 + finite.index(False)


class _Progress:
    """What a run leaves on disk: metrics.jsonl and its checkpoint; nothing without a folder."""

    def __init__(
        self,
        folder: Path | None,
        identity: str,
        device: torch.device,
        began: float,
        watch: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.watch = watch
        self.folder = folder
        self.identity = identity
        self.device = device
        self.began = began
        self.seconds_before = 0.0  # of earlier attempts, as far as they were checkpointed
        self.train_seconds = 0.0
        self.train_loss = math.nan

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def restore(
        self, model: CMT, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> int:
        """Load the checkpoint, if there is one; returns the epochs already done."""
        state = self.folder and load_checkpoint(self.folder, self.identity)
        if not state:
            if self.folder:
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / METRICS).write_text("")
            return 0
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        set_random_states(state, self.device)
        self.seconds_before = state["seconds"]
        self.train_seconds = state["train_seconds"]
        self.train_loss = state["train_loss"]
        assert self.folder is not None
        drop_metrics_after(self.folder, state["step"])
        return int(state["epoch"])

    def save(
        self,
        model: CMT,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        epoch: int,
        step: int,
    ) -> None:
        if self.folder is None:
            return
        state = {
            "epoch": epoch,
            "step": step,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generator": generator.get_state(),
            **random_states(self.device),
            "seconds": self.seconds(),
            "train_seconds": self.train_seconds,
            "train_loss": self.train_loss,
        }
        save_checkpoint(self.folder, self.identity, state)

    def log(self, **values: float) -> None:
        line = {**values, "seconds": round(self.seconds(), 3)}
        if self.watch is not None:
            self.watch(line)
        if self.folder is not None:
            append_metrics(self.folder, line)

    def diverged(self, cause: str) -> RunResult:
        return RunResult(status="diverged", cause=cause, seconds=self.seconds())
