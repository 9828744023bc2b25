"""What one Slurm job does: some of our jobs, each in a process of its own."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from cmtscale.arch.errors import CmtscaleError
from cmtscale.search.executors.base import Job, Stopped
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.executors.slurm_queue import is_running_still

ABANDONED_SECONDS = 300  # without a driver that waits for it, after which a job ends
STOP_SECONDS = 20.0  # that runs get to keep their state in: Slurm kills 30 s after SIGTERM


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one Slurm job does: some jobs, each in a process of its own, on its devices.

    On Slurm's warning before the time limit, and where it is preempted, its runs keep their state,
    and it is queued again: they go on from there. So they do where nothing of it is `wanted` any
    more; such a job, and one whose driver is gone, ends. See `submitit.helpers.Checkpointable`.
    """

    jobs: tuple[Job, ...]
    devices: tuple[str, ...]
    run_timeout_seconds: int | None
    hang_seconds: int
    wanted: Path

    def __call__(self) -> list[Any]:
        """The outcome of each job; see `attempt`. `Stopped` where the driver wants no more."""
        outcomes: dict[int, Any] = {id(job): Stopped() for job in self.jobs}
        waiting = list(self.jobs)
        driver = DriverWatch(folder=self.wanted.parent)
        with (
            _warnings() as warnings,
            LocalExecutor(
                self.devices,
                run_timeout_seconds=self.run_timeout_seconds,
                hang_seconds=self.hang_seconds,
            ) as executor,
        ):
            while waiting or executor.running():
                is_over = not self.wanted.exists() or driver.is_gone()
                if is_over or warnings.number:
                    may_go_on = warnings.number != signal.SIGTERM or is_running_still()
                    outcomes |= _wind_down(executor)
                    if not is_over:
                        warnings.end(queue_again=may_go_on)
                    break
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


def _wind_down(executor: LocalExecutor) -> dict[int, Any]:
    """Let the jobs keep their state; the outcomes of those that end in time."""
    executor.stop()
    outcomes: dict[int, Any] = {}
    until = time.monotonic() + STOP_SECONDS
    while executor.running() and time.monotonic() < until:
        outcomes |= {id(job): outcome for job, outcome in executor.results(timeout_seconds=1.0)}
    return outcomes


@dataclass(kw_only=True)
class _Warnings:
    """The last signal that has asked a Slurm job to end, or 0; `submitit` is what hears it else."""

    submitit: Any
    number: int = 0

    def hear(self, number: int, _: FrameType | None) -> None:
        self.number = number

    def end(self, *, queue_again: bool) -> None:
        """End the process, so that Slurm carries the job out again or does not."""
        if queue_again and callable(self.submitit):
            self.submitit(self.number, None)
        raise SystemExit(f"ended by signal {self.number}")


@contextmanager
def _warnings() -> Iterator[_Warnings]:
    """Slurm's warning before the time limit, and SIGTERM, are heard and not acted on."""
    import submitit

    warning = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
    warnings = _Warnings(submitit=signal.getsignal(warning))
    before = {number: signal.signal(number, warnings.hear) for number in (warning, signal.SIGTERM)}
    try:
        yield warnings
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(kw_only=True)
class DriverWatch:
    """Whether a driver still looks for results: it touches its folder when it does."""

    folder: Path
    _seen: float = 0.0  # when it was touched, by the file server's clock
    _at: float = field(default_factory=time.monotonic)

    def is_gone(self) -> bool:
        touched = self.folder.stat().st_mtime if self.folder.exists() else self._seen
        if touched != self._seen:
            self._seen, self._at = touched, time.monotonic()
        return time.monotonic() - self._at > ABANDONED_SECONDS
