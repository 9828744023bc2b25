"""How far a run of the search's recipe is, to disk and back."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtscale.model.cmt import CMT
from cmtscale.train.checkpoint import (
    random_states,
    resume_checkpoint,
    save_checkpoint,
    set_random_states,
)
from cmtscale.train.micro_batches import AtOnce, MicroBatches

# Checkpoints are an interval apart: a minute, or where that is longer 50 times what saving takes,
# so that on slow disks it takes no more than that share of the time. Each epoch ends with one, and
# before a validation there is one where the newest is older than half an interval.
CHECKPOINT_SECONDS, SAVING_SHARE = 60.0, 0.02


@dataclass(kw_only=True)
class Progress:
    """All that changes while a network trains.

    `step` steps are done, and `scored_epochs` are validated. The epoch after these has the `losses`
    so far; `generator` was in the state `epoch_draws` before it drew that epoch. `train_loss` is
    the mean of the last whole epoch. `seconds` are those of the run so far, as are
    `train_seconds`. `stretches` are the steps in micro-batches: the first one of each (from 1), and
    how many images were seen at once.
    """

    model: CMT
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    micro_batches: MicroBatches
    scored_at_once: AtOnce
    device: torch.device
    step: int = 0
    scored_epochs: int = 0
    losses: list[Tensor] = field(default_factory=list)
    train_loss: float = math.nan
    train_seconds: float = 0.0
    seconds: float = 0.0
    stretches: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.epoch_draws = self.generator.get_state()
        self.saved_at = time.perf_counter()
        self.saving_seconds = 0.0

    def begin_step(self) -> None:
        """The next step sees its batch as `micro_batches` say."""
        before = self.stretches[-1][1] if self.stretches else self.micro_batches.batch
        if self.micro_batches.images < before:
            self.stretches.append((self.step + 1, self.micro_batches.images))

    def end_epoch(self) -> None:
        """The present epoch is validated."""
        self.scored_epochs += 1
        self.losses = []
        self.epoch_draws = self.generator.get_state()

    def is_due(self, intervals: float = 1.0) -> bool:
        """Whether the newest checkpoint is older than so many intervals."""
        interval = max(CHECKPOINT_SECONDS, self.saving_seconds / SAVING_SHARE)
        return time.perf_counter() - self.saved_at > intervals * interval

    def save(self, folder: Path, identity: str) -> None:
        """Make this the folder's newest checkpoint."""
        began = time.perf_counter()
        state = {
            "epoch": self.scored_epochs,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.epoch_draws,
            **random_states(self.device),
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.empty(0),
            "images_at_once": self.micro_batches.images,
            "stretches": self.stretches,
            "scored_at_once": self.scored_at_once.images,
            "seconds": self.seconds,
            "train_seconds": self.train_seconds,
            "train_loss": self.train_loss,
        }
        save_checkpoint(folder, identity, state)
        self.saved_at = time.perf_counter()
        self.saving_seconds = self.saved_at - began

    def resume(self, folder: Path, identity: str) -> bool:
        """Go on from the run's checkpoint in the folder; False where it begins."""
        state = resume_checkpoint(folder, identity)
        if state is None:
            return False
        self._restore(state)
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.epoch_draws = state["generator"]
        set_random_states(state, self.device)
        self.scored_epochs, self.step = state["epoch"], state["step"]
        if "losses" in state:  # 0.1.0 kept whole epochs, trained in whole batches
            self.losses = list(state["losses"].to(self.device))
            self.micro_batches.at_most(state["images_at_once"])
        if "stretches" in state:  # nor did it know of those
            self.scored_at_once.at_most(state["scored_at_once"])
            self.stretches = state["stretches"]
        self.train_loss = state["train_loss"]
        self.train_seconds, self.seconds = state["train_seconds"], state["seconds"]
