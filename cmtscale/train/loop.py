"""The one training loop."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cmtscale.data.batches import device_split, epoch_batches
from cmtscale.data.dataset import open_dataset, training_part
from cmtscale.data.epochs import batches_per_epoch
from cmtscale.model.cmt import build
from cmtscale.record.result import RunResult
from cmtscale.train.autocast import make_autocast
from cmtscale.train.batch_norm import estimate_statistics, set_momentum
from cmtscale.train.evaluate import Predictions, predict
from cmtscale.train.optimizer import lr_factor, make_optimizer
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
    """Train and evaluate; with a `folder`, log, checkpoint each epoch, and go on from there.

    `watch` is told each line of the log. Raises `StoppedError` where `check_in` says so. The same
    run on the same CPU with the same number of threads gives the same result to the bit,
    interrupted or not. A loss that is not finite ends it as diverged, with the step.
    """
    began = time.perf_counter()
    recipe = run.recipe
    torch.manual_seed(run.seed)
    dataset = open_dataset(run.data)
    training_images = training_part(dataset, recipe.train_images)
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
    generator = torch.Generator().manual_seed(run.seed)
    steps_per_epoch = batches_per_epoch(len(train_split), recipe.batch_size)
    total_steps = recipe.epochs * steps_per_epoch
    batch_images = min(recipe.batch_size, len(train_split))
    run_log = RunLog(folder, run.identity, device, began, watch)
    epoch = run_log.restore(model, optimizer, generator)
    step = epoch * steps_per_epoch

    def validate() -> Predictions:
        estimate_statistics(model, train_split, autocast=autocast, check_in=check_in)
        return predict(
            model,
            val_split,
            batch_size=recipe.batch_size,
            autocast=autocast,
            check_in=check_in,
        )

    predictions = None
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
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
            step += 1
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
            stop_if_asked(check_in)
        epoch += 1
        run_log.train_seconds += time.perf_counter() - started
        run_log.train_loss = float(torch.stack(losses).cpu().double().mean())
        predictions = validate()
        val_loss_raw = predictions.loss
        if not math.isfinite(val_loss_raw):
            return run_log.diverged(f"validation loss not finite after step {step}")
        run_log.log(
            step=step,
            images=step * batch_images,
            val_loss_raw=val_loss_raw,
            val_accuracy=predictions.accuracy,
        )
        run_log.save(model, optimizer, generator, epoch, step)
    if predictions is None:  # killed between the last checkpoint and the result
        predictions = validate()
    return run_log.complete(
        predictions,
        step=step,
        train_loss=run_log.train_loss,
        images_per_second=total_steps * batch_images / run_log.train_seconds,
    )


def first_bad_step(losses: list[Tensor], step: int) -> int | None:
    """The number of the first step whose loss is not finite; `step` is that of the last one."""
    finite = torch.isfinite(torch.stack(losses)).tolist()
    if all(finite):
        return None
    return step - len(losses) + 1 + finite.index(False)
