"""Jobs in processes on this machine, one for each device slot."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait as wait_for_exit
from multiprocessing.sharedctypes import RawValue
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
from cmtscale.train.stop import SIGNALS, listening

START_SECONDS = 120  # of a worker process on a busy machine
DEATHS = (ProcessExpired, BrokenProcessPool)  # of a worker, by pebble
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that comes when the parent has died


class _Shared(ctypes.Structure):
    """What a worker and the driver tell each other at any time; each field is written by one."""

    _fields_ = (
        ("pid", ctypes.c_int64),  # of the worker
        ("beats", ctypes.c_int64),  # the signs of life that its jobs have given
        ("is_stopping", ctypes.c_bool),  # the driver asks its job to stop
    )


@dataclass(frozen=True, kw_only=True)
class _Worker:
    """A slot's worker process, which is started with its first job, and what is shared with it."""

    pool: ProcessPool
    shared: _Shared


@dataclass(frozen=True, kw_only=True)
class _Busy:
    job: Job
    future: Future[Any]
    pulse: Pulse


class LocalExecutor:
    """One spawned process per device slot; a worker that dies takes only its own job with it.

    Workers start with their slot's first job, and stay as long as their slot, or until `close`. A
    context manager closes it. A search may let up to `most_shared` jobs share what `devices` names.
    A job that takes longer than `run_timeout_seconds` (None: no limit), or that gives no sign of
    life for `hang_seconds`, is ended with its worker.
    """

    def __init__(
        self,
        devices: tuple[str, ...],
        *,
        most_shared: int = 1,
        run_timeout_seconds: int | None = None,
        hang_seconds: int = HANG_SECONDS,
    ) -> None:
        self._own_devices = self._devices = devices
        self._most_shared = most_shared
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

    @property
    def most_shared(self) -> int:
        return self._most_shared

    def share(self, runs: int) -> None:
        assert not self._busy
        assert 1 <= runs <= self._most_shared
        self._devices = self._own_devices * runs
        self._end([slot for slot in self._workers if slot >= len(self._devices)])

    def submit(self, job: Job) -> None:
        assert not self._is_stopping
        idle = set(range(len(self._devices))) - self._busy.keys()
        slot = min(idle, key=lambda slot: (slot not in self._workers, slot))  # a started one first
        if slot in self._workers and not self._workers[slot].pool.active:  # it has died
            self._end([slot])
        if slot not in self._workers:
            self._workers[slot] = _new_worker()
        worker = self._workers[slot]
        pulse = Pulse(beats=worker.shared.beats)
        with _signals_blocked():  # a first job starts the worker, which inherits this
            future = worker.pool.schedule(_attempt, args=[job, self._devices[slot]])
        self._busy[slot] = _Busy(job=job, future=future, pulse=pulse)

    def running(self) -> list[Job]:
        return [busy.job for busy in self._busy.values()]

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        slots = {busy.future: slot for slot, busy in self._busy.items()}
        done, _ = wait(slots, timeout=timeout_seconds, return_when=FIRST_COMPLETED)
        ended = {slots[future]: self._busy.pop(slots[future]) for future in done}
        outcomes = {slot: self._outcome(busy.future) for slot, busy in ended.items()}
        self._end([slot for slot in ended if _is_lost(ended[slot].future, outcomes[slot])])
        overdue = self._overdue()
        self._end(list(overdue))
        lost = [(self._busy.pop(slot).job, failure) for slot, failure in overdue.items()]
        for slot, busy in ended.items():
            yield busy.job, raise_if_all_stops(outcomes[slot])
        yield from lost

    def stop(self) -> None:
        self._is_stopping = True
        for slot in self._busy:
            self._workers[slot].shared.is_stopping = True

    def cancel(self) -> None:
        """End all running jobs at once; workers without one stay."""
        self._end(list(self._busy))
        self._busy.clear()
        self._is_stopping = False
        for worker in self._workers.values():
            worker.shared.is_stopping = False

    def close(self) -> None:
        """End all workers at once."""
        self._end(list(self._workers))
        self._busy.clear()

    def _outcome(self, future: Future[Any]) -> Any:
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, DEATHS):
            how = "before its job began"
            if isinstance(error, ProcessExpired):
                how = f"exit code {error.exitcode}"
            return Stopped() if self._is_stopping else worker_died(how)
        return outcome_of(error)

    def _overdue(self) -> dict[int, Failure]:
        """By slot, why a job is ended: it goes on for too long, or gives no sign of life."""
        limit, overdue = self._run_timeout_seconds, {}
        for slot, busy in self._busy.items():
            silent_seconds = busy.pulse.look(self._workers[slot].shared.beats)
            start_seconds = 0 if busy.pulse.has_begun else START_SECONDS
            if limit is not None and busy.pulse.seconds > limit:
                overdue[slot] = took_too_long(limit)
            elif silent_seconds > max(start_seconds, self._hang_seconds):
                overdue[slot] = gave_no_sign(self._hang_seconds)
        return overdue

    def _end(self, slots: list[int]) -> None:
        """Kill the workers of these slots: a job would take SIGTERM, pebble's, as a wish.

        Those that a Ctrl-C leaves over are still ours, and are ended by `close`.
        """
        workers = {slot: self._workers[slot] for slot in slots}
        for worker in workers.values():
            worker.pool.stop()  # starts no process any more
        processes = {process.pid: process for process in multiprocessing.active_children()}
        for worker in workers.values():
            if process := processes.get(worker.shared.pid):
                process.kill()
        for slot, worker in workers.items():
            worker.pool.join()
            del self._workers[slot]


def _is_lost(future: Future[Any], outcome: Any) -> bool:
    """Whether a slot needs a new worker, and a new pool.

    What a worker that died held, such as the lock of its pool's pipe, its successor would wait for.
    """
    has_died = isinstance(future.exception(), DEATHS)
    return has_died or (isinstance(outcome, Failure) and outcome.spoils_process)


def _new_worker() -> _Worker:
    context = multiprocessing.get_context("spawn")
    shared = RawValue(_Shared)
    pool = ProcessPool(max_workers=1, context=context, initializer=_start_worker, initargs=[shared])
    return _Worker(pool=pool, shared=shared)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep signals from a process that is started here, until it has a job.

    Ctrl-C, and Slurm's warning that submitit listens to, are for the driver alone.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    blocked = {*SIGNALS, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        resource_tracker.ensure_running()  # which lets Ctrl-C and SIGTERM through again
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _signals_heard() -> Iterator[None]:
    """Let a worker hear what asks its job to stop, also what came while it started."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS) - {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_shared: _Shared  # of a worker process with its driver; set once, when it starts


def _start_worker(shared: _Shared) -> None:
    """One thread per worker, Ctrl-C left to the driver, and no life without the driver."""
    import torch
    from tqdm import tqdm

    from cmtscale.train.memory import keep_freed_memory

    global _shared
    _shared = shared
    shared.pid = os.getpid()
    keep_freed_memory()
    # fvcore counts batches with tqdm, whose own lock is a semaphore: a worker that is ended would
    # leave it behind, and Python warns of that after the search
    tqdm.set_lock(threading.RLock())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    if sys.platform == "linux":  # a process that stands still runs no thread
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _attempt(job: Job, device: str) -> Any:
    """The job in its worker: it stops where the driver, or a signal to all processes, says so."""
    with listening() as signals, _signals_heard():

        def check_in() -> bool:
            _shared.beats += 1
            return bool(signals.signal_number or _shared.is_stopping)

        check_in()
        return attempt(job, device, check_in)


def _exit_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    wait_for_exit([driver.sentinel])
    os._exit(1)
