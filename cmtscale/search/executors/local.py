"""Jobs in processes on this machine, one for each device slot."""

import errno
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_exit
from typing import Any

from pebble import ProcessExpired, ProcessPool

from cmtscale.arch.errors import DataError, ResultsError
from cmtscale.search.executors.base import Failure, Job


class LocalExecutor:
    """One spawned process per device slot; a worker that dies takes only its own job with it.

    Workers start with their slot's first job, and stay until `close`. A context manager closes it.
    """

    def __init__(self, devices: tuple[str, ...]) -> None:
        self._devices = devices
        self._pools: dict[int, ProcessPool] = {}
        self._busy: dict[int, tuple[Job, Future[Any]]] = {}

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def devices(self) -> tuple[str, ...]:
        return self._devices

    @property
    def free_slots(self) -> int:
        return len(self._devices) - len(self._busy)

    def submit(self, job: Job) -> None:
        idle = set(range(len(self._devices))) - self._busy.keys()
        slot = min(idle, key=lambda slot: (slot not in self._pools, slot))  # a started one first
        if slot not in self._pools:
            self._pools[slot] = ProcessPool(
                max_workers=1,
                context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
            )
        with _interrupts_blocked():  # a first job starts the worker, which inherits this
            future = self._pools[slot].schedule(_carry_out, args=[job, self._devices[slot]])
        self._busy[slot] = (job, future)

    def running(self) -> list[Job]:
        return [job for job, _ in self._busy.values()]

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        futures = {future: slot for slot, (_, future) in self._busy.items()}
        done, _ = wait(futures, timeout=timeout_seconds, return_when=FIRST_COMPLETED)
        ended = [(self._busy.pop(futures[future])[0], future) for future in done]
        for job, future in ended:
            yield job, _result(future)

    def cancel(self) -> None:
        """End all running jobs at once; workers without one stay."""
        self._stop(list(self._busy))
        self._busy.clear()

    def close(self) -> None:
        """End all workers at once."""
        self._stop(list(self._pools))
        self._busy.clear()

    def _stop(self, slots: list[int]) -> None:
        pools = [self._pools.pop(slot) for slot in slots]
        for pool in pools:
            pool.stop()
        for pool in pools:
            pool.join()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started here; this one gets it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _carry_out(job: Job, device: str) -> Any:
    """Do the job in this worker; a failed one leaves nothing in memory for the next.

    The error is kept until the next job has ended, and with it the variables of its frames: a
    network and a half-built graph, after a GPU's memory was too small.
    """
    try:
        return job.carry_out(device)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def _result(future: Future[Any]) -> Any:
    """The result, or a `Failure` with its cause.

    A full disk, and images that are gone, are raised: they stop the whole search.
    """
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, DataError):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise ResultsError(
            f"the disk is full ({error.filename or error.strerror}); free some space and run the "
            f"same command again: it goes on where it stopped"
        ) from error
    if isinstance(error, ProcessExpired):
        cause = f"the worker died (exit code {error.exitcode}); out of memory is the usual reason"
    else:
        cause = f"{type(error).__name__}: {error}"
    return Failure(cause=" ".join(cause.split()))


def _start_worker() -> None:
    """One thread per worker, Ctrl-C left to the driver, and no life without the driver."""
    import torch
    from tqdm import tqdm

    from cmtscale.train.memory import keep_freed_memory

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
