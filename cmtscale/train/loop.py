"""The one training loop."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cmtscale.data.batches import DeviceSplit, device_split, epoch_batches
from cmtscale.data.dataset import Dataset, open_dataset, training_part
from cmtscale.data.epochs import batches_per_epoch
from cmtscale.data.splits import IntArray
from cmtscale.model.cmt import CMT, build
from cmtscale.record.result import RunResult
from cmtscale.train.autocast import make_autocast
from cmtscale.train.batch_norm import estimate_statistics, estimation_part, set_momentum
from cmtscale.train.checkpoint import keep_newest
from cmtscale.train.evaluate import Predictions, predict
from cmtscale.train.micro_batches import AtOnce, MicroBatches, halved_until_it_fits
from cmtscale.train.optimizer import lr_factor, make_optimizer
from cmtscale.train.progress import Progress
from cmtscale.train.recipe import Run
from cmtscale.train.run_log import RunLog
from cmtscale.train.stop import CheckIn, never, stop_if_asked

LOG_STEPS = 20  # how often losses are looked at: once per look the device is waited for


def train(
    run: Run,
    *,
    device: torch.device,
    folder: Path | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
    check_in: CheckIn = never,
) -> RunResult:
    """Train and evaluate; with a `folder`, log, keep checkpoints, and go on from there.

    `watch` is told each line of the log. Where `check_in` says so the state is kept, and
    `StoppedError` raised. The same run on the same CPU with the same number of threads gives the
    same result to the bit, interrupted or not. A loss that is not finite ends it as diverged, with
    the step. Where a GPU's memory is too small, batches are seen in micro-batches, by halves, and,
    apart from those, so are the images of its scores; where one image does not fit the run ends as
    infeasible.
    """
    began = time.perf_counter()
    dataset = open_dataset(run.data)
    training_images = training_part(dataset, run.recipe.train_images)
    micro_batches = MicroBatches.of(run.variant, min(run.recipe.batch_size, len(training_images)))
    scored_at_once = AtOnce(
        images=max(
            estimation_part(len(training_images)),
            min(run.recipe.batch_size, len(dataset.splits.val)),
        ),
        fewest=micro_batches.fewest,
    )

    def attempt() -> RunResult:
        return _train(
            run,
            dataset,
            training_images,
            micro_batches,
            scored_at_once,
            device=device,
            folder=folder,
            watch=watch,
            check_in=check_in,
        )

    try:
        return halved_until_it_fits(attempt, micro_batches)
    except torch.OutOfMemoryError:
        if folder is not None:
            keep_newest(folder)
        return RunResult(
            status="infeasible",
            cause=micro_batches.refusal(run.variant, device),
            seconds=time.perf_counter() - began,
        )


def _train(
    run: Run,
    dataset: Dataset,
    training_images: IntArray,
    micro_batches: MicroBatches,
    scored_at_once: AtOnce,
    *,
    device: torch.device,
    folder: Path | None,
    watch: Callable[[dict[str, Any]], None] | None,
    check_in: CheckIn,
) -> RunResult:
    """The loop, from where the folder's checkpoint is."""
    began = time.perf_counter()
    recipe = run.recipe
    torch.manual_seed(run.seed)
    train_split = device_split(dataset, training_images, device=device)
    val_split = device_split(dataset, dataset.splits.val, device=device)
    model = build(
        run.variant,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
        attention=recipe.attention,
    ).to(device)
    parameters = list(model.parameters())
    optimizer = make_optimizer(model, recipe)
    autocast = make_autocast(recipe, device)
    steps_per_epoch = batches_per_epoch(len(train_split), recipe.batch_size)
    total_steps = recipe.epochs * steps_per_epoch
    batch_images = micro_batches.batch
    progress = Progress(
        model=model,
        optimizer=optimizer,
        generator=torch.Generator().manual_seed(run.seed),
        micro_batches=micro_batches,
        scored_at_once=scored_at_once,
        device=device,
    )
    is_resumed = folder is not None and progress.resume(folder, run.identity)
    run_log = RunLog(folder, began, watch, seconds_before=progress.seconds)
    run_log.begin(
        progress.step if is_resumed else None,
        validated_step=progress.scored_epochs * steps_per_epoch,
    )

    def keep() -> None:
        if folder is not None:
            progress.seconds = run_log.seconds()
            progress.save(folder, run.identity)

    def keep_if_asked() -> bool:
        is_asked = check_in()
        if is_asked and progress.scored_epochs < recipe.epochs:  # else it is kept as it is scored
            keep()
        return is_asked

    validate = partial(
        _validate,
        model,
        train_split,
        val_split,
        batch_size=recipe.batch_size,
        at_once=scored_at_once,
        autocast=autocast,
        check_in=keep_if_asked,
    )
    predictions = None
    while progress.scored_epochs < recipe.epochs:
        model.train()
        resumed_at = time.perf_counter()
        for images, labels in epoch_batches(
            train_split,
            batch_size=recipe.batch_size,
            resolution_px=run.variant.resolution_px,
            generator=progress.generator,
            flip=recipe.flip,
            shift_px_fraction=recipe.shift_fraction,
            first_batch=len(progress.losses),
        ):
            factor = lr_factor(progress.step, total_steps, recipe.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak_lr"]
            progress.begin_step()
            set_momentum(model, progress.step)
            optimizer.zero_grad(set_to_none=True)
            parts = []
            for part_images, part_labels in zip(
                micro_batches.parts(images), micro_batches.parts(labels), strict=True
            ):
                with autocast:
                    loss = F.cross_entropy(
                        model(part_images), part_labels, label_smoothing=recipe.label_smoothing
                    )
                loss = loss * (len(part_images) / len(images))
                loss.backward()
                parts.append(loss.detach())
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimizer.step()
            losses, step = progress.losses, progress.step + 1
            losses.append(torch.stack(parts).sum())
            progress.step = step
            if step % LOG_STEPS == 0 or len(losses) == steps_per_epoch:
                bad = first_bad_step(losses, step)
                if bad is not None:
                    return run_log.diverged(f"loss not finite at step {bad} of {total_steps}")
                run_log.log(
                    step=step,
                    images=step * batch_images,
                    train_loss=float(torch.stack(losses[-LOG_STEPS:]).mean()),
                    lr=factor * recipe.lr,
                )
            progress.train_seconds += time.perf_counter() - resumed_at
            if progress.is_due():
                keep()
            stop_if_asked(keep_if_asked)
            resumed_at = time.perf_counter()
        progress.train_loss = float(torch.stack(progress.losses).cpu().double().mean())
        if progress.is_due(intervals=0.5):  # validation may take long, and a kill be in it
            keep()
        predictions = validate()
        val_loss_raw = predictions.loss
        if not math.isfinite(val_loss_raw):
            return run_log.diverged(f"validation loss not finite after step {progress.step}")
        run_log.log(
            step=progress.step,
            images=progress.step * batch_images,
            val_loss_raw=val_loss_raw,
            val_accuracy=predictions.accuracy,
        )
        progress.end_epoch()
        keep()
    if predictions is None:  # killed between the last checkpoint and the result
        predictions = validate()
    return run_log.complete(
        predictions,
        step=progress.step,
        train_loss=progress.train_loss,
        images_per_second=total_steps * batch_images / progress.train_seconds,
        cause=_memory_words(progress, len(train_split)),
    )


def _validate(
    model: CMT,
    train_split: DeviceSplit,
    val_split: DeviceSplit,
    *,
    batch_size: int,
    at_once: AtOnce,
    autocast: torch.autocast,
    check_in: CheckIn,
) -> Predictions:
    """Predictions with statistics estimated anew, of as many images at once as fit.

    Raises `MemoryError` where not even the fewest do, which fewer in training would not mend.
    """

    def attempt() -> Predictions:
        estimate_statistics(
            model, train_split, autocast=autocast, at_once=at_once, check_in=check_in
        )
        return predict(
            model,
            val_split,
            batch_size=min(batch_size, at_once.images),
            autocast=autocast,
            check_in=check_in,
        )

    try:
        return halved_until_it_fits(attempt, at_once)
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"{at_once.images} images could not be scored at once: {error}"
        ) from error


def _memory_words(progress: Progress, train_images: int) -> str:
    """How a memory that is too small has changed the numbers; else empty."""
    words = []
    if progress.stretches:
        words.append(progress.micro_batches.words(progress.stretches))
    part = estimation_part(train_images)
    at_once = progress.scored_at_once.largest(part)
    if at_once < part:
        words.append(f"scored with BatchNorm's statistics of {at_once} images at once, not {part}")
    return f"memory: {'; '.join(words)}" if words else ""


def first_bad_step(losses: list[Tensor], step: int) -> int | None:
    """The number of the first step whose loss is not finite; `step` is that of the last one."""
    finite = torch.isfinite(torch.stack(losses)).tolist()
    if all(finite):
        return None
    return step - len(losses) + 1 + finite.index(False)
