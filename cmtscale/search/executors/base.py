"""What the driver asks of an executor: to carry out jobs on slots, and to hand back the results."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


class Job(Protocol):
    """Work for one device slot: plain data that another process can be sent."""

    def carry_out(self, device: str) -> Any:
        """Do it, on this device, and return the result; errors are raised as they come."""
        ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What stands in place of a job's result where it raised, took too long, or its process died.

    `cause` is one line, and says so where memory was short.
    """

    cause: str


class Executor(Protocol):
    """Carries out jobs and hands back each result once, in the order they end.

    Resources that it does not have are a `RequestError` at once, never a job that waits for them.
    """

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each slot, such as `cpu` or `cuda:0`."""
        ...

    @property
    def free_slots(self) -> int:
        """How many more jobs can start now."""
        ...

    def submit(self, job: Job) -> None:
        """Start a job in a free slot."""
        ...

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        """What ended since the last call, waiting at most `timeout_seconds` for something.

        A job comes with its result, or with a `Failure`. A full disk (`ResultsError`), and images
        that are gone (`DataError`), are raised: they stop all work.
        """
        ...

    def running(self) -> list[Job]:
        """The jobs that go on now."""
        ...

    def cancel(self) -> None:
        """End all running jobs at once; a run keeps its checkpoint."""
        ...


def carry_out_all(executor: Executor, jobs: Iterator[Job]) -> Iterator[tuple[Job, Any]]:
    """Keep all slots busy with `jobs` until none is left; yields each as it ends.

    What still runs when the caller stops listening is cancelled.
    """
    is_left = True
    try:
        while is_left or executor.running():
            while is_left and executor.free_slots:
                job = next(jobs, None)
                is_left = job is not None
                if job is not None:
                    executor.submit(job)
            yield from executor.results(timeout_seconds=1.0)
    finally:
        executor.cancel()
