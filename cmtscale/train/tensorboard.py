"""The log of a training for TensorBoard, where that is installed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TENSORBOARD = "tensorboard"  # the folder, in that of the training


@contextmanager
def tensorboard_watch(folder: Path) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """What writes each line of the log as scalars into `folder/tensorboard`; None without it.

    What an earlier attempt wrote from the first line's step on is dropped. Nothing is made before
    that line.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield None
        return
    writers: list[Any] = []

    def write(line: dict[str, Any]) -> None:
        if not writers:
            writers.append(SummaryWriter(folder / TENSORBOARD, purge_step=line["step"]))
        for name in line.keys() - {"step"}:
            writers[0].add_scalar(name, line[name], line["step"])
        writers[0].flush()

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()
