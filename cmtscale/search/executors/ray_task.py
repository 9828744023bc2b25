"""What a task of Ray's does: a job, with signs of life."""

import faulthandler
import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtscale.search.executors.base import Job
from cmtscale.search.executors.outcome import attempt
from cmtscale.search.executors.ray_files import at_hand
from cmtscale.train.stop import CheckIn

SIGN_SECONDS = 2.0  # between two signs of life
CLOCK_SECONDS = 5.0  # by which the clock may have been set since a process started


def started_at(pid: int) -> float:
    """When a process of this node started, in seconds of its clock."""
    import psutil  # Ray brings it

    return float(psutil.Process(pid).create_time())


def end_process(pid: int, started: float) -> None:
    """Kill the process of this node that started then, unless another has its number now."""
    import psutil

    with suppress(psutil.Error):
        if abs(started_at(pid) - started) < CLOCK_SECONDS:
            psutil.Process(pid).kill()


def carry_out(
    job: Job, device: str, keeper: Any, name: str, token: Path, run_timeout_seconds: int | None
) -> Any:
    """What a task does: the job, with one thread; see `attempt`.

    Past the limit its process ends, even where it hangs in foreign code, and its log says where.
    """
    check_in = _TaskSigns(keeper=keeper, name=name)
    check_in()
    import torch

    from cmtscale.train.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    if run_timeout_seconds is not None:
        faulthandler.dump_traceback_later(run_timeout_seconds, exit=True, file=2)
    try:
        return attempt(_WithFiles(job=job, keeper=keeper, token=token), device, check_in)
    finally:
        faulthandler.cancel_dump_traceback_later()


@dataclass(frozen=True, kw_only=True)
class _WithFiles:
    """A job that gets its files first, and whose files are sent; see `at_hand`."""

    job: Job
    keeper: Any
    token: Path

    def carry_out(self, device: str, check_in: CheckIn) -> Any:
        with at_hand(self.job, self.keeper, self.token, check_in) as job_here:
            return job_here.carry_out(device, check_in)


@dataclass(kw_only=True)
class _TaskSigns:
    """A task's signs of life, to the keeper of its driver; see `CheckIn`."""

    keeper: Any
    name: str
    given_at: float = -math.inf
    is_stopped: bool = False

    def __call__(self) -> bool:
        if time.monotonic() - self.given_at > SIGN_SECONDS:
            import ray

            node_id, pid = ray.get_runtime_context().get_node_id(), os.getpid()
            heard = self.keeper.hear.remote(self.name, node_id, pid, started_at(pid))
            self.is_stopped = ray.get(heard)
            self.given_at = time.monotonic()
        return self.is_stopped
