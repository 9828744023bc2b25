"""The loop of a full training."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cmtscale.arch.errors import StoppedError
from cmtscale.data.draws import Purpose, derived_seed
from cmtscale.data.stream import ImageSet
from cmtscale.record.result import RunResult
from cmtscale.train.autocast import make_autocast
from cmtscale.train.evaluate import Predictions
from cmtscale.train.full_run import FullRun
from cmtscale.train.full_setup import Setup, System
from cmtscale.train.loop import LOG_STEPS, first_bad_step
from cmtscale.train.run_log import RunLog
from cmtscale.train.stop import StopRequest

Watch = Callable[[dict[str, Any]], None]
LOOK_SECONDS = 10.0  # after which losses are looked at even before LOG_STEPS


def train_fully(
    run: FullRun,
    image_set: ImageSet,
    setup: Setup,
    system: System,
    stop: StopRequest,
    watchers: Sequence[Watch | None],
) -> RunResult:
    """Train, log, checkpoint and score, from where the state is.

    `watchers` are told each line of the log. The same run on the same CPU gives the same result to
    the bit, stopped or not, with any number of loader workers. Raises `StoppedError` once the state
    is kept, and `TrainingError` for an image that cannot be read. A loss that is not finite ends it
    as diverged, with the step.
    """
    recipe, processes, state, order = run.recipe, system.processes, setup.state, setup.order
    total_steps = recipe.epochs * order.steps_per_epoch
    autocast = make_autocast(recipe, system.device)
    is_first = processes.is_first

    def tell(line: dict[str, Any]) -> None:
        for watch in watchers:
            if watch is not None:
                watch(line)

    run_log = RunLog(
        system.folder if is_first else None,
        time.perf_counter(),
        tell if is_first else None,
        seconds_before=state.seconds,
    )
    run_log.begin(
        state.step if setup.is_resumed else None,
        validated_step=state.scored_epochs * order.steps_per_epoch,
    )
    if state.devices[-1:] != [system.words]:
        state.devices.append(system.words)

    def keep() -> None:
        state.seconds = run_log.seconds()
        if is_first:
            state.save(system.folder, run.identity)

    def stop_if_asked() -> None:
        if number := processes.largest(stop.signal_number):
            keep()
            raise StoppedError(number)

    def validate() -> Predictions:
        # several processes have each their own number of steps here: they stop afterwards
        between = stop_if_asked if processes.count == 1 else (lambda: None)
        setup.scorer.load(state.best_network)
        return setup.scorer.predict(image_set.splits.val, between=between)

    predictions = None
    kept_at = looked_at = time.perf_counter()
    waited, unseen = 0.0, list[Tensor]()  # losses on the device, not looked at yet
    while True:
        epoch, in_epoch = divmod(state.step, order.steps_per_epoch)
        if in_epoch == 0 and epoch > 0:
            is_due = epoch % recipe.validation_epochs == 0 or epoch == recipe.epochs
            if is_due and epoch > state.scored_epochs:
                predictions = validate()
                if not math.isfinite(predictions.loss):
                    return run_log.diverged(f"validation loss not finite after step {state.step}")
                run_log.log(
                    step=state.step,
                    images=state.step * order.batch_images,
                    val_loss_raw=predictions.loss,
                    val_accuracy=predictions.accuracy,
                )
                state.scored_epochs = epoch
            keep()
            stop_if_asked()
            state.epoch_losses = []
            kept_at = looked_at = time.perf_counter()
        if state.step == total_steps:
            break
        setup.schedule.step_update(state.step)
        step_loss = torch.zeros((), device=system.device)
        for part in setup.parts:
            asked_at = time.perf_counter()
            images, labels = next(setup.batches)
            waited += time.perf_counter() - asked_at
            mix_seed = derived_seed(run.seed, Purpose.MIX, state.step, part)
            images, targets = setup.mix.mixed(images, labels, seed=mix_seed)
            torch.manual_seed(derived_seed(run.seed, Purpose.FORWARD, state.step, part))
            with _gradients_shared(setup.network, part == setup.parts[-1]):
                with autocast:
                    loss = setup.mix.loss(setup.forward(images), targets)
                state.scaler.scale(loss / recipe.accumulate).backward()
            step_loss += loss.detach() / recipe.accumulate
        if recipe.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if state.ema is not None:
            state.ema.update(state.network, step=state.step)
        unseen.append(step_loss)

        is_late = is_first and time.perf_counter() - looked_at > LOOK_SECONDS
        asked = processes.largest(2 * stop.signal_number + is_late)
        is_end = state.step % order.steps_per_epoch == 0
        if not (asked or is_end or len(unseen) == LOG_STEPS):
            continue
        losses = processes.mean(torch.stack(unseen))
        bad_step = first_bad_step(list(losses), state.step)
        if bad_step is not None:
            return run_log.diverged(f"loss not finite at step {bad_step} of {total_steps}")
        now = time.perf_counter()
        run_log.log(
            step=state.step,
            images=state.step * order.batch_images,
            train_loss=float(losses.mean()),
            lr=max(group["lr"] for group in state.optimizer.param_groups),
            images_per_second=round(len(losses) * order.batch_images / (now - looked_at), 1),
            loader_share=round(waited / (now - looked_at), 4),
        )
        state.train_seconds += now - looked_at
        state.epoch_losses += losses.tolist()
        looked_at, waited, unseen = now, 0.0, []
        if is_end:
            state.epoch_loss = statistics.fmean(state.epoch_losses)
        elif now - kept_at > recipe.checkpoint_seconds:
            keep()
            kept_at = time.perf_counter()
        stop_if_asked()

    if predictions is None:  # killed between the last checkpoint and the result
        predictions = validate()
    return run_log.complete(
        predictions,
        step=state.step,
        train_loss=state.epoch_loss,
        images_per_second=total_steps * order.batch_images / state.train_seconds,
    )


def _gradients_shared(network: nn.Module, is_last: bool) -> AbstractContextManager[Any]:
    """Of a step's parts, only the last one's backward pass shares the sum with other processes."""
    if is_last or not isinstance(network, DistributedDataParallel):
        return nullcontext()
    return network.no_sync()
