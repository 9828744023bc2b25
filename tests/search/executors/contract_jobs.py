"""Jobs that end in every way that a job can; worker processes import them by this file's name."""

import errno
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import DataError, StoppedError
from cmtscale.train.stop import CheckIn, stop_if_asked


@dataclass(frozen=True)
class Doubles:
    number: int

    def carry_out(self, device: str, _check_in: CheckIn) -> tuple[int, str]:
        return 2 * self.number, device


@dataclass(frozen=True)
class Raises:
    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        raise RuntimeError("first\n  second\n\nthird")


@dataclass(frozen=True)
class Dies:
    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Hangs:
    """Says where it hangs, in a file."""

    pid_file: Path

    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        self.pid_file.write_text(str(os.getpid()))
        time.sleep(3600)


@dataclass(frozen=True)
class Works:
    """Checks in until it is asked to stop, says how often it has begun, and ends the third time."""

    mark: Path

    def carry_out(self, _device: str, check_in: CheckIn) -> int:
        times = int(self.mark.read_text() or 0) + 1 if self.mark.exists() else 1
        self.mark.write_text(str(times))
        while times < 3:
            if check_in():
                raise StoppedError
            time.sleep(0.05)
        return times


@dataclass(frozen=True)
class WaitsForItsImages:
    """Checks in between batches; the first time, the thread that reads them stands still."""

    mark: Path

    def carry_out(self, _device: str, check_in: CheckIn) -> list[int]:
        from cmtscale.data.batches import read_ahead

        batches = []
        for batch in read_ahead(self.read, range(4)):
            check_in()
            batches.append(batch)
        return batches

    def read(self, number: int) -> int:
        if number == 2 and not self.mark.exists():
            self.mark.write_text(str(os.getpid()))
            threading.Event().wait()
        return number


@dataclass(frozen=True)
class ChecksIn:
    """Works for some seconds."""

    seconds: float

    def carry_out(self, _device: str, check_in: CheckIn) -> str:
        for _ in range(round(self.seconds / 0.1)):
            stop_if_asked(check_in)
            time.sleep(0.1)
        return "done"


@dataclass(frozen=True)
class Freezes:
    """Gives signs of life for a while; then its process is stopped, as by SIGSTOP."""

    pid_file: Path

    def carry_out(self, _device: str, check_in: CheckIn) -> None:
        for _ in range(20):
            check_in()
            time.sleep(0.05)
        self.pid_file.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)


@dataclass(frozen=True)
class RunsOutOfMemory:
    on_gpu: bool

    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        import torch

        raise torch.OutOfMemoryError("CUDA: 2 GiB wanted") if self.on_gpu else MemoryError


@dataclass(frozen=True)
class BreaksItsDevice:
    """Fails as a kernel does; what comes then would be refused in the same process."""

    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


@dataclass(frozen=True)
class SaysItsProcess:
    def carry_out(self, _device: str, _check_in: CheckIn) -> int:
        return os.getpid()


@dataclass(frozen=True)
class FillsTheDisk:
    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/checkpoint.pt")


@dataclass(frozen=True)
class LosesItsImages:
    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        raise DataError("the packed images are gone; run the same command again")


@dataclass(frozen=True)
class SignalsItsParent:
    """Sends a signal to the process that has started this one, once, and waits for it to act."""

    number: int
    mark: Path

    def carry_out(self, _device: str, _check_in: CheckIn) -> Any:
        if self.mark.exists():
            return "carried out again"
        self.mark.touch()
        os.kill(os.getppid(), self.number)
        time.sleep(3600)
        return None
