"""What the driver asks of an executor: to carry out jobs on slots, and to hand back the results."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from cmtscale.train.stop import CheckIn

HANG_SECONDS = 300  # without a sign of life, after which a job is taken to hang


class Job(Protocol):
    """Work for one device slot: plain data that another process can be sent."""

    def carry_out(self, device: str, check_in: CheckIn) -> Any:
        """Do it, on this device, and return the result; errors are raised as they come.

        It calls `check_in` between its steps; where that says so it keeps its state and raises
        `StoppedError`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What stands in place of a job's result where it raised, took too long, or its process died.

    `cause` is one line, and says so where memory was short. After one that `spoils_process` the
    process can do nothing more with its device.
    """

    cause: str
    spoils_process: bool = False


@dataclass(frozen=True)
class Stopped:
    """What stands in place of a result where a job was asked to stop: it can be carried out again.

    A run has kept its state.
    """


class Executor(Protocol):
    """Carries out jobs and hands back each result once, in the order they end.

    Resources that it does not have are a `RequestError` at once, never a job that waits for them. A
    job that begins and then gives no sign of life for some minutes has failed, and is ended.
    """

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each slot, such as `cpu` or `cuda:0`."""
        ...

    @property
    def free_slots(self) -> int:
        """How many more jobs can start now."""
        ...

    @property
    def most_shared(self) -> int:
        """How many jobs may share each device, where a search may choose that; else 1."""
        ...

    def share(self, runs: int) -> None:
        """Have `runs` slots on each device from now on, at most `most_shared`; nothing runs."""
        ...

    def submit(self, job: Job) -> None:
        """Start a job in a free slot."""
        ...

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        """What ended since the last call, waiting at most `timeout_seconds` for something.

        A job comes with its result, with a `Failure`, or `Stopped`. A full disk (`NoRoomError`),
        and images that are gone (`DataError`), are raised: they stop all work.
        """
        ...

    def running(self) -> list[Job]:
        """The jobs that go on now."""
        ...

    def stop(self) -> None:
        """Ask all running jobs to keep their state and end; `results` hands them back.

        Nothing is submitted before `cancel`.
        """
        ...

    def cancel(self) -> None:
        """End all running jobs at once; a run keeps its checkpoint."""
        ...


def carry_out_all(executor: Executor, jobs: Iterator[Job]) -> Iterator[tuple[Job, Any]]:
    """Keep all slots busy with `jobs` until none is left; yields each as it ends.

    What still runs when the caller stops listening is cancelled. A job that somebody has stopped is
    carried out again.
    """
    is_left = True
    try:
        while is_left or executor.running():
            while is_left and executor.free_slots:
                job = next(jobs, None)
                is_left = job is not None
                if job is not None:
                    executor.submit(job)
            for job, result in executor.results(timeout_seconds=1.0):
                if isinstance(result, Stopped):
                    executor.submit(job)
                else:
                    yield job, result
    finally:
        executor.cancel()
