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
from cmtscale.search.executors.base import Job, Stopped
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.executors.slurm_queue import is_running_still

# That runs get to keep their state in, and Slurm to say whether the job goes on: it kills KillWait
# (30 s, unless it is set otherwise) after SIGTERM, and processes have to be ended before that. The
# driver waits longer (STOP_SECONDS in search/training.py).
STOP_SECONDS = 20.0


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

    def __call__(self) -> tuple[str, list[Any]]:
        """Its `name`, and the outcome of each job.

        See `attempt` for outcomes; `Stopped` where the driver wants no more.
        """
        return self.name, self._outcomes()

    @property
    def name(self) -> str:
        """No other group of the driver has it; Slurm may give the same job id twice."""
        return self.wanted.name

    def _outcomes(self) -> list[Any]:
        outcomes: dict[int, Any] = {id(job): Stopped() for job in self.jobs}
        waiting = list(self.jobs)
        driver = DriverWatch(alive=self.wanted.parent / ALIVE)
        with (
            _warnings() as warnings,
            LocalExecutor(
                self.devices,
                run_timeout_seconds=self.run_timeout_seconds,
                hang_seconds=self.hang_seconds,
            ) as executor,
        ):
            try:
                while waiting or executor.running():
                    is_over = not self.wanted.exists() or driver.is_gone()
                    if is_over or warnings.number:
                        executor.stop()
                        until = time.monotonic() + STOP_SECONDS
                        queue_again = warnings.number != signal.SIGTERM or is_running_still()
                        outcomes |= _ended_until(until, executor)
                        if not is_over:
                            warnings.end(queue_again=queue_again)
                        break
                    while waiting and executor.free_slots:
                        executor.submit(waiting.pop(0))
                    ended = executor.results(timeout_seconds=1.0)
                    outcomes |= {id(job): outcome for job, outcome in ended}
            except CmtscaleError as error:  # it stops all work
                return [error] * len(self.jobs)
        return [outcomes[id(job)] for job in self.jobs]

    def checkpoint(self) -> Any:
        """What submitit queues again: the same, for runs keep their checkpoints themselves."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _ended_until(until: float, executor: LocalExecutor) -> dict[int, Any]:
    """The outcomes of the jobs that end in time, or have ended where there is none left."""
    outcomes: dict[int, Any] = {}
    while executor.running():
        seconds = min(max(until - time.monotonic(), 0.0), 1.0)
        outcomes |= {id(job): outcome for job, outcome in executor.results(seconds)}
        if time.monotonic() > until:
            break
    return outcomes


@dataclass(kw_only=True)
class _Warnings:
    """The last signal that has asked a Slurm job to end, or 0.

    `requeue_handler` is submitit's for such a signal: it has Slurm queue the job again.
    """

    requeue_handler: Any
    number: int = 0

    def hear(self, number: int, _: FrameType | None) -> None:
        self.number = number

    def end(self, *, queue_again: bool) -> None:
        """End the process, so that Slurm carries the job out again or does not."""
        if queue_again and callable(self.requeue_handler):
            self.requeue_handler(self.number, None)
        raise SystemExit(f"ended by signal {self.number}")


@contextmanager
def _warnings() -> Iterator[_Warnings]:
    """Slurm's warning before the time limit, and SIGTERM, are heard and not acted on."""
    import submitit

    warning = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
    warnings = _Warnings(requeue_handler=signal.getsignal(warning))
    before = {number: signal.signal(number, warnings.hear) for number in (warning, signal.SIGTERM)}
    try:
        yield warnings
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
