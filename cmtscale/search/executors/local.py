"""Jobs in processes on this machine, one for each device slot."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_exit
from multiprocessing.sharedctypes import RawArray
from typing import Any

from pebble import ProcessExpired, ProcessPool

from cmtscale.search.executors.base import HANG_SECONDS, Failure, Job, Stopped
from cmtscale.search.executors.outcome import (
    attempt,
    gave_no_sign,
    outcome_of,
    raise_if_all_stops,
    took_too_long,
    worker_died,
)
from cmtscale.search.executors.pulse import Pulse
from cmtscale.train.stop import listening

PID, BEATS, STOPS = 0, 1, 2  # what a worker and the driver share: numbers, each written by one
START_SECONDS = 120  # of a worker process on a busy machine


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """A slot's worker process, which is started with its first job, and what is shared with it."""

    pool: ProcessPool
    shared: Any  # a RawArray


@dataclass(frozen=True, kw_only=True)
class _Busy:
    job: Job
    future: Future[Any]
    pulse: Pulse


class LocalExecutor:
    """One spawned process per device slot; a worker that dies takes only its own job with it.

    Workers start with their slot's first job, and stay until `close`. A context manager closes it.
    A job that takes longer than `run_timeout_seconds` (None: no limit), or that gives no sign of
    life for `hang_seconds`, is ended with its worker.
    """

    def __init__(
        self,
        devices: tuple[str, ...],
        *,
        run_timeout_seconds: int | None = None,
        hang_seconds: int = HANG_SECONDS,
    ) -> None:
        self._devices = devices
        self._run_timeout_seconds = run_timeout_seconds
        self._hang_seconds = hang_seconds
        self._workers: dict[int, _Worker] = {}
        self._busy: dict[int, _Busy] = {}
        self._is_stopping = False

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
        assert not self._is_stopping
        idle = set(range(len(self._devices))) - self._busy.keys()
        slot = min(idle, key=lambda slot: (slot not in self._workers, slot))  # a started one first
        if slot not in self._workers:
            self._workers[slot] = _new_worker()
        worker = self._workers[slot]
        pulse = Pulse(beats=worker.shared[BEATS])
        with _interrupts_blocked():  # a first job starts the worker, which inherits this
            future = worker.pool.schedule(
                _attempt, args=[job, self._devices[slot]], timeout=self._run_timeout_seconds
            )
        self._busy[slot] = _Busy(job=job, future=future, pulse=pulse)

    def running(self) -> list[Job]:
        return [busy.job for busy in self._busy.values()]

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        slots = {busy.future: slot for slot, busy in self._busy.items()}
        done, _ = wait(slots, timeout=timeout_seconds, return_when=FIRST_COMPLETED)
        ended = [self._busy.pop(slots[future]) for future in done]
        hung = self._hung()
        self._end(hung)
        lost = [self._busy.pop(slot) for slot in hung]
        for busy in ended:
            yield busy.job, self._result(busy.future)
        for busy in lost:
            yield busy.job, gave_no_sign(self._hang_seconds)

    def stop(self) -> None:
        self._is_stopping = True
        for slot in self._busy:
            self._workers[slot].shared[STOPS] = 1

    def cancel(self) -> None:
        """End all running jobs at once; workers without one stay."""
        self._end(list(self._busy))
        self._busy.clear()
        self._is_stopping = False
        for worker in self._workers.values():
            worker.shared[STOPS] = 0

    def close(self) -> None:
        """End all workers at once."""
        self._end(list(self._workers))
        self._busy.clear()

    def _result(self, future: Future[Any]) -> Any:
        error = future.exception()
        if error is None:
            return raise_if_all_stops(future.result())
        if isinstance(error, ProcessExpired):
            died: Failure | Stopped = worker_died(f"exit code {error.exitcode}")
            return Stopped() if self._is_stopping else died
        if isinstance(error, TimeoutError) and self._run_timeout_seconds:  # pebble's: see `attempt`
            return took_too_long(self._run_timeout_seconds)
        return raise_if_all_stops(outcome_of(error))

    def _hung(self) -> list[int]:
        """The slots whose job gives no sign of life."""
        hung = []
        for slot, busy in self._busy.items():
            silent = busy.pulse.look(self._workers[slot].shared[BEATS])
            start = 0 if busy.pulse.has_begun else START_SECONDS
            if silent > max(start, self._hang_seconds):
                hung.append(slot)
        return hung

    def _end(self, slots: list[int]) -> None:
        """Kill the workers of these slots: a job would take SIGTERM, pebble's, as a wish."""
        workers = [self._workers.pop(slot) for slot in slots]
        for worker in workers:
            worker.pool.stop()  # starts no process any more
        processes = {process.pid: process for process in multiprocessing.active_children()}
        for worker in workers:
            if process := processes.get(worker.shared[PID]):
                process.kill()
            worker.pool.join()


def _new_worker() -> _Worker:
    context = multiprocessing.get_context("spawn")
    shared = RawArray("q", 3)
    pool = ProcessPool(max_workers=1, context=context, initializer=_start_worker, initargs=[shared])
    return _Worker(pool=pool, shared=shared)


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


_shared: Any = None  # of a worker process with its driver; set once, when it starts


def _start_worker(shared: Any) -> None:
    """One thread per worker, Ctrl-C left to the driver, and no life without the driver."""
    import torch
    from tqdm import tqdm

    from cmtscale.train.memory import keep_freed_memory

    global _shared
    _shared = shared
    shared[PID] = os.getpid()
    keep_freed_memory()
    # fvcore counts batches with tqdm, whose own lock is a semaphore: a worker that is ended would
    # leave it behind, and Python warns of that after the search
    tqdm.set_lock(threading.RLock())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_driver, daemon=True).start()


def _attempt(job: Job, device: str) -> Any:
    """The job in its worker: it stops where the driver, or a signal to all processes, says so."""
    with listening() as signals:

        def check_in() -> bool:
            _shared[BEATS] += 1
            return bool(signals.signal_number or _shared[STOPS])

        check_in()
        return attempt(job, device, check_in)


def _exit_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait_for_exit([driver.sentinel])
    os._exit(1)
