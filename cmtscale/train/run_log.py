"""What a run tells while it trains, and its result."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmtscale.record.folder import METRICS
from cmtscale.record.losses import write_image_losses
from cmtscale.record.metrics import append_metrics, drop_metrics_after
from cmtscale.record.result import RunResult
from cmtscale.train.checkpoint import keep_newest
from cmtscale.train.evaluate import Predictions, fit


class RunLog:
    """The log of a run; nothing is written without a `folder`."""

    def __init__(
        self,
        folder: Path | None,
        began: float,
        watch: Callable[[dict[str, Any]], None] | None,
        *,
        seconds_before: float = 0.0,
    ) -> None:
        self.watch = watch
        self.folder = folder
        self.began = began
        self.seconds_before = seconds_before  # of earlier attempts, as far as checkpointed

    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.began

    def begin(self, step: int | None, *, validated_step: int | None = None) -> None:
        """A new log, or that of a training that goes on after `step`; see `drop_metrics_after`."""
        if self.folder is None:
            return
        if step is not None:
            drop_metrics_after(self.folder, step, validated_step=validated_step)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / METRICS).write_text("")

    def log(self, **values: float) -> None:
        line = {**values, "seconds": round(self.seconds(), 3)}
        if self.watch is not None:
            self.watch(line)
        if self.folder is not None:
            append_metrics(self.folder, line)

    def complete(
        self,
        predictions: Predictions,
        *,
        step: int,
        train_loss: float,
        images_per_second: float,
        cause: str = "",
    ) -> RunResult:
        """The end of a run that has trained all its steps; the loss of each image is kept."""
        fitted = fit(predictions)
        if not math.isfinite(fitted.loss):  # a logit is infinite where the raw loss does not see it
            return self.diverged(f"validation loss not finite after step {step}")
        if self.folder is not None:
            write_image_losses(self.folder, fitted.image_losses)
            keep_newest(self.folder)
        return RunResult(
            status="complete",
            cause=cause,
            val_loss=fitted.loss,
            val_loss_raw=predictions.loss,
            val_accuracy=predictions.accuracy,
            temperature=fitted.temperature,
            train_loss=train_loss,
            images_per_second=images_per_second,
            seconds=self.seconds(),
        )

    def diverged(self, cause: str) -> RunResult:
        """The end of a run whose loss is not finite."""
        if self.folder is not None:
            keep_newest(self.folder)
        return RunResult(status="diverged", cause=cause, seconds=self.seconds())
