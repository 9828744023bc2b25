"""The log of a training for TensorBoard, where that is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"  # in that of the training


def tensorboard_watch(folder: Path) -> Callable[[dict[str, Any]], None] | None:
    """Writes each line of the log as scalars into `folder/tensorboard`; None without TensorBoard.

    What an earlier attempt wrote from the first line's step on is dropped. Nothing is made before
    that line.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writers: list[Any] = []

    def write(line: dict[str, Any]) -> None:
        if not writers:
            writers.append(SummaryWriter(folder / FOLDER, purge_step=line["step"]))
        for name in line.keys() - {"step"}:
            writers[0].add_scalar(name, line[name], line["step"])
        writers[0].flush()

    return write
