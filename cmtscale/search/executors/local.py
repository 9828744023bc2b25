"""Jobs in processes on this machine, one for each device slot."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_exit
from typing import Any

from pebble import ProcessExpired, ProcessPool

from cmtscale.search.executors.base import Job
from cmtscale.search.executors.outcome import (
    attempt,
    outcome_of,
    settled,
    took_too_long,
    worker_died,
)


class LocalExecutor:
    """One spawned process per device slot; a worker that dies takes only its own job with it.

    Workers start with their slot's first job, and stay until `close`. A context manager closes it.
    A job that takes longer than `run_timeout_seconds` (None: no limit) is ended with its worker.
    """

    def __init__(self, devices: tuple[str, ...], *, run_timeout_seconds: int | None = None) -> None:
        self._devices = devices
        self._run_timeout_seconds = run_timeout_seconds
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
            future = self._pools[slot].schedule(
                attempt, args=[job, self._devices[slot]], timeout=self._run_timeout_seconds
            )
        self._busy[slot] = (job, future)

    def running(self) -> list[Job]:
        return [job for job, _ in self._busy.values()]

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        futures = {future: slot for slot, (_, future) in self._busy.items()}
        done, _ = wait(futures, timeout=timeout_seconds, return_when=FIRST_COMPLETED)
        ended = [(self._busy.pop(futures[future])[0], future) for future in done]
        for job, future in ended:
            yield job, self._result(future)

    def cancel(self) -> None:
        """End all running jobs at once; workers without one stay."""
        self._stop(list(self._busy))
        self._busy.clear()

    def close(self) -> None:
        """End all workers at once."""
        self._stop(list(self._pools))
        self._busy.clear()

    def _result(self, future: Future[Any]) -> Any:
        error = future.exception()
        if error is None:
            return settled(future.result())
        if isinstance(error, ProcessExpired):
            return worker_died(f"exit code {error.exitcode}")
        if isinstance(error, TimeoutError) and self._run_timeout_seconds:  # pebble's: see `attempt`
            return took_too_long(self._run_timeout_seconds)
        return settled(outcome_of(error))

    def _stop(self, slots: list[int]) -> None:
        pools = [self._pools.pop(slot) for slot in slots]
        for pool in pools:
            pool.stop()
        for pool in pools:
            pool.join()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep Ctrl-C and Slurm's warning from processes that are started here; this one gets them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR2})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
