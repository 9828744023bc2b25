"""A worker process for the cells of the GPU benchmark that can be stopped at any time.

A compilation that hangs, a crash or a broken CUDA context then costs one cell, not the benchmark.
"""

import gc
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from card.cells import Outcome

Work = Callable[..., Outcome]


class Worker:
    """Ask it for work, then read its answer.

    Its process starts with the first request, and again after a failure that may have broken it.
    """

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def ask(self, work: Work, *arguments: object) -> None:
        if self._process is None or not self._process.is_alive():
            self.stop()
            context = multiprocessing.get_context("spawn")
            self._connection, other_end = context.Pipe()
            self._process = context.Process(target=_serve, args=(other_end,), daemon=True)
            self._process.start()
            other_end.close()
        assert self._connection is not None
        self._connection.send((work, arguments))

    def answer(self, seconds: float) -> Outcome:
        """The outcome of the work; after `seconds` the process is killed, and that is the cause."""
        assert self._connection is not None
        assert self._process is not None
        try:
            if not self._connection.poll(seconds := max(0.0, seconds)):
                self.stop()
                return Outcome(cause=f"stopped after {seconds:.0f} s")
            outcome, is_broken = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            outcome = Outcome(cause=f"the process ended with code {self._process.exitcode}")
            is_broken = True
        if is_broken:
            self.stop()
        return outcome

    def stop(self) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = self._connection = None


def attempt(work: Work, *arguments: object) -> tuple[Outcome, bool]:
    """The outcome of `work`, or its failure as a cause, and whether this process may be broken."""
    try:
        return work(*arguments), False
    except torch.OutOfMemoryError as error:
        outcome = Outcome(cause=f"out of memory: {_first_line(error)}")
    except Exception as error:  # one failed cell must not end the others
        return Outcome(cause=f"{type(error).__name__}: {_first_line(error)}"), True
    gc.collect()  # the traceback, which held the tensors of the failed step, is gone now
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return outcome, False


def seconds_until(deadline: float) -> float:
    return deadline - time.monotonic()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return lines[0][:200]


def _serve(connection: Connection) -> None:
    while True:
        try:
            work, arguments = connection.recv()
        except EOFError:  # the benchmark has ended
            return
        connection.send(attempt(work, *arguments))
