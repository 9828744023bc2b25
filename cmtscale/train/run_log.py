"""What a run leaves on disk while it trains: its log and its checkpoint."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cmtscale.model.cmt import CMT
from cmtscale.record.folder import METRICS
from cmtscale.record.losses import write_image_losses
from cmtscale.record.metrics import append_metrics, drop_metrics_after
from cmtscale.record.result import RunResult
from cmtscale.train.checkpoint import (
    keep_newest,
    random_states,
    resume_checkpoint,
    save_checkpoint,
    set_random_states,
)
from cmtscale.train.evaluate import Predictions, fit


class RunLog:
    """The state and the log of a run; nothing is written without a `folder`."""

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
        state = self.folder and resume_checkpoint(self.folder, self.identity)
        self.begin(state["step"] if state else None)
        if not state:
            return 0
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        set_random_states(state, self.device)
        self.seconds_before = state["seconds"]
        self.train_seconds = state["train_seconds"]
        self.train_loss = state["train_loss"]
        return int(state["epoch"])

    def begin(self, step: int | None, *, validated_step: int | None = None) -> None:
        """A new log, or that of a training that goes on after `step`; see `drop_metrics_after`."""
        if self.folder is None:
            return
        if step is not None:
            drop_metrics_after(self.folder, step, validated_step=validated_step)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / METRICS).write_text("")

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

    def complete(
        self, predictions: Predictions, *, step: int, train_loss: float, images_per_second: float
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
