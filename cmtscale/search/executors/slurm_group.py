"""What one Slurm job does: some of our jobs, each in a process of its own."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from cmtscale.arch.errors import CmtscaleError
from cmtscale.data.cache import ABANDONED_SECONDS, ALIVE
from cmtscale.record.files import seconds_untouched
from cmtscale.search.executors.base import Job
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.executors.slurm_queue import is_running_still


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one Slurm job does: some jobs, each in a process of its own, on its devices.

    On Slurm's warning before the time limit, and where it is preempted, its processes end, and it
    is queued again: runs go on from their checkpoints. One that was cancelled, or whose driver is
    gone, ends. See `submitit.helpers.Checkpointable`.
    """

    jobs: tuple[Job, ...]
    devices: tuple[str, ...]
    run_timeout_seconds: int | None
    wanted: Path

    def __call__(self) -> list[Any]:
        """The outcome of each job; see `attempt`."""
        outcomes: dict[int, Any] = {}
        waiting = list(self.jobs)
        driver = DriverWatch(alive=self.wanted.parent / ALIVE)
        with (
            self._requeued_on_sigterm(),
            LocalExecutor(self.devices, run_timeout_seconds=self.run_timeout_seconds) as executor,
        ):
            while waiting or executor.running():
                if not self.wanted.exists() or driver.is_gone():
                    raise SystemExit("nobody waits for the results any more")
                while waiting and executor.free_slots:
                    executor.submit(waiting.pop(0))
                try:
                    ended = list(executor.results(timeout_seconds=1.0))
                except CmtscaleError as error:  # it stops all work
                    return [error] * len(self.jobs)
                outcomes |= {id(job): outcome for job, outcome in ended}
        return [outcomes[id(job)] for job in self.jobs]

    def checkpoint(self) -> Any:
        """What submitit queues again: the same, for runs keep their checkpoints themselves."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)

    @contextmanager
    def _requeued_on_sigterm(self) -> Iterator[None]:
        import submitit

        warning = signal.getsignal(signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"])

        def stop(number: int, frame: FrameType | None) -> None:
            if callable(warning) and self.wanted.exists() and is_running_still():
                warning(number, frame)
            raise SystemExit("ended by SIGTERM")

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@dataclass(kw_only=True)
class DriverWatch:
    """Whether a driver still looks for results: it touches `alive` when it does.

    For how long it has not when the watch begins, which may be hours, is said by the file server's
    clock; from then on by the clock of this machine.
    """

    alive: Path
    _seen: float = field(init=False)  # when it was touched, by the file server's clock
    _at: float = field(init=False)  # when that was seen, by ours

    def __post_init__(self) -> None:
        self._seen, self._at = 0.0, -math.inf  # where it is gone
        with suppress(FileNotFoundError):
            self._seen = self.alive.stat().st_mtime
            self._at = time.monotonic() - seconds_untouched(self.alive)

    def is_gone(self) -> bool:
        touched = self.alive.stat().st_mtime if self.alive.exists() else self._seen
        if touched != self._seen:
            self._seen, self._at = touched, time.monotonic()
        return time.monotonic() - self._at > ABANDONED_SECONDS
