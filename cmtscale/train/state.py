"""All that changes while a network trains, to disk and back; see `cmtscale.data.draws`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmtscale.train.checkpoint import save_checkpoint


@dataclass(kw_only=True)
class TrainState:
    """A network, what trains it, and how far it is.

    `step` optimizer steps are done; `epoch_losses` are those of the present epoch.
    `epoch_loss` is the mean of the last whole one. `scored_epochs` have been validated. It has
    trained on `devices`, one after the other. No generator is part of it: draws are named.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: Any = None  # timm's ModelEmaV3
    step: int = 0
    scored_epochs: int = 0
    epoch_losses: list[float] = field(default_factory=list)
    epoch_loss: float = float("nan")
    devices: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of this training so far, as is train_seconds
    train_seconds: float = 0.0

    @property
    def best_network(self) -> nn.Module:
        """What is scored and kept: the average of the networks where there is one."""
        if self.ema is None:
            return self.network
        averaged: nn.Module = self.ema.module
        return averaged

    def save(self, folder: Path, identity: str) -> None:
        """Make this the folder's newest checkpoint; what was there stays where the disk is full."""
        state = {
            "network": self.network.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in COUNTERS},
        }
        save_checkpoint(folder, identity, state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `save` has kept."""
        self.network.load_state_dict(state["network"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        for name in COUNTERS:
            setattr(self, name, state[name])


# what a checkpoint holds as it is
COUNTERS = (
    "step",
    "scored_epochs",
    "epoch_losses",
    "epoch_loss",
    "devices",
    "seconds",
    "train_seconds",
)
