"""Where runs happen: processes on this machine. Nothing else knows how runs are carried out."""

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_exit
from pathlib import Path
from typing import Protocol

from pebble import ProcessExpired, ProcessPool

from cmtscale.arch.errors import ResultsError
from cmtscale.record.folder import RESULT
from cmtscale.record.result import RunResult, read_result, write_result
from cmtscale.train.recipe import Run


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run, the folder that keeps its checkpoint, metrics and result, and whose run it is."""

    run: Run
    folder: Path
    candidate: str


class Executor(Protocol):
    """Carries out runs and hands back each result once, in the order they end."""

    @property
    def free_slots(self) -> int:
        """How many more runs can start now."""
        ...

    def submit(self, job: Job) -> None:
        """Start a run in a free slot."""
        ...

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, RunResult]]:
        """What ended since the last call, waiting at most `timeout_seconds` for something."""
        ...

    def running(self) -> list[Job]:
        """The runs that go on now."""
        ...

    def close(self) -> None:
        """End all workers at once; unfinished runs keep their checkpoints."""
        ...


class LocalExecutor:
    """One spawned process per device slot; a worker that dies takes only its own run with it."""

    def __init__(self, devices: tuple[str, ...]) -> None:
        self._pools = {
            slot: ProcessPool(
                max_workers=1,
                context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
            )
            for slot in range(len(devices))
        }
        self._devices = devices
        self._busy: dict[int, tuple[Job, Future[RunResult]]] = {}

    @property
    def free_slots(self) -> int:
        return len(self._pools) - len(self._busy)

    def submit(self, job: Job) -> None:
        slot = min(self._pools.keys() - self._busy.keys())
        future = self._pools[slot].schedule(work, args=[job, self._devices[slot]])
        self._busy[slot] = (job, future)

    def running(self) -> list[Job]:
        return [job for job, _ in self._busy.values()]

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, RunResult]]:
        futures = {future: slot for slot, (_, future) in self._busy.items()}
        done, _ = wait(futures, timeout=timeout_seconds, return_when=FIRST_COMPLETED)
        ended = [(self._busy.pop(futures[future])[0], future) for future in done]
        for job, future in ended:
            yield job, _outcome(future)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.stop()
        for pool in self._pools.values():
            pool.join()


def work(job: Job, device: str) -> RunResult:
    """Carry out one run in this process, unless its folder already holds the result.

    A result that was scored in an older way is scored again from the run's last checkpoint.
    """
    import torch

    from cmtscale.train.loop import train

    path = job.folder / RESULT
    earlier = read_result(path, job.run.identity)
    if earlier is not None and earlier.status != "failed":
        return earlier
    result = train(job.run, device=torch.device(device), folder=job.folder)
    write_result(path, result, job.run.identity)
    return result


def _outcome(future: Future[RunResult]) -> RunResult:
    """The result, or a failure with its cause; a full disk stops the whole search."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise ResultsError(
            f"the disk is full ({error.filename or error.strerror}); free some space and run the "
            f"same command again: it goes on where it stopped"
        ) from error
    if isinstance(error, ProcessExpired):
        cause = f"the worker died (exit code {error.exitcode}); out of memory is the usual reason"
    else:
        cause = f"{type(error).__name__}: {error}"
    return RunResult(status="failed", cause=" ".join(cause.split()))


def _start_worker() -> None:
    """One thread per worker, Ctrl-C left to the driver, and no life without the driver."""
    import torch
    from tqdm import tqdm

    from cmtscale.train.devices import keep_freed_memory

    keep_freed_memory()
    # fvcore counts batches with tqdm, whose own lock is a semaphore: a worker that is ended would
    # leave it behind, and Python warns of that after the search
    tqdm.set_lock(threading.RLock())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_driver, daemon=True).start()


def _exit_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait_for_exit([driver.sentinel])
    os._exit(1)
