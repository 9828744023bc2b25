"""Jobs that end in every way that a job can; worker processes import them by this file's name."""

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import DataError


@dataclass(frozen=True)
class Doubles:
    number: int

    def carry_out(self, device: str) -> tuple[int, str]:
        return 2 * self.number, device


@dataclass(frozen=True)
class Raises:
    def carry_out(self, _device: str) -> None:
        raise RuntimeError("first\n  second\n\nthird")


@dataclass(frozen=True)
class Dies:
    def carry_out(self, _device: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Hangs:
    """Says where it hangs, in a file."""

    pid_file: Path

    def carry_out(self, _device: str) -> None:
        self.pid_file.write_text(str(os.getpid()))
        time.sleep(3600)


@dataclass(frozen=True)
class RunsOutOfMemory:
    on_gpu: bool

    def carry_out(self, _device: str) -> None:
        import torch

        raise torch.OutOfMemoryError("CUDA: 2 GiB wanted") if self.on_gpu else MemoryError


@dataclass(frozen=True)
class FillsTheDisk:
    def carry_out(self, _device: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/checkpoint.pt")


@dataclass(frozen=True)
class LosesItsImages:
    def carry_out(self, _device: str) -> None:
        raise DataError("the packed images are gone; run the same command again")


@dataclass(frozen=True)
class SignalsItsParent:
    """Sends a signal to the process that has started this one, once, and waits for it to act."""

    number: int
    mark: Path

    def carry_out(self, _device: str) -> Any:
        if self.mark.exists():
            return "carried out again"
        self.mark.touch()
        os.kill(os.getppid(), self.number)
        time.sleep(3600)
        return None
