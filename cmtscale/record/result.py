"""How a run ended, as its `result.json` keeps it."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from cmtscale.record.files import write_json

Status = Literal["complete", "diverged", "infeasible", "failed"]
# Results of a run that rule its candidate out, whatever its other runs came to.
UNSOUND: tuple[Status, ...] = ("diverged", "infeasible")

# How a trained network is scored. Raise it when that changes: checkpoints are then scored again,
# and runs whose checkpoint is gone are trained again. 1: PyTorch's running statistics (0.1.0).
SCORING = 2


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Losses are mean cross-entropies in nats on the validation split: `val_loss` after fitting one
    temperature on it, `val_loss_raw` as trained. `train_loss` is the mean over the last epoch, with
    label smoothing. `val_accuracy` is a fraction. `seconds` is wall time, evaluation included;
    `images_per_second` that of training alone. Metrics are None unless `status` is complete; one
    that is infeasible does not fit into the memory. `cause` says why it is not complete, or what a
    complete one was trained in for want of memory.
    `scoring` is the version of the way of scoring.
    """

    status: Status
    cause: str = ""
    val_loss: float | None = None
    val_loss_raw: float | None = None
    val_accuracy: float | None = None
    temperature: float | None = None
    train_loss: float | None = None
    images_per_second: float | None = None
    seconds: float = 0.0
    scoring: int = field(default_factory=lambda: SCORING)


def write_result(path: Path, result: RunResult, identity: str) -> None:
    """Write the result with the identity of its run, atomically."""
    write_json(path, {"identity": identity, **asdict(result)})


def read_result(path: Path, identity: str) -> RunResult | None:
    """The result at `path` if it is whole, of this run and scored as today, else None."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(stored, dict) or stored.pop("identity", None) != identity:
        return None
    if stored.keys() != {entry.name for entry in fields(RunResult)}:
        return None
    return RunResult(**stored) if stored["scoring"] == SCORING else None
