"""What one Slurm job does when it is warned: its runs are told first, then Slurm is asked."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import NoRoomError
from cmtscale.data.cache import ALIVE
from cmtscale.search.executors import slurm_group
from cmtscale.search.executors.base import Job, Stopped
from cmtscale.search.executors.slurm_group import Group

pytest.importorskip("submitit", reason="cmtscale[slurm] is not installed")
FULL = NoRoomError("the disk is full")


class Preempted:
    """An executor whose Slurm job gets SIGTERM while a job goes on, which then stops or fails."""

    said: list[str]
    error: Exception | None = None
    free_slots = 1

    def __init__(self, *_: object, **__: object) -> None:
        self.jobs: list[Job] = []
        self.is_stopping = False

    def __enter__(self) -> "Preempted":
        return self

    def __exit__(self, *_: object) -> None:
        self.said.append("closed")

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def running(self) -> list[Job]:
        return self.jobs

    def stop(self) -> None:
        self.said.append("told to stop")
        self.is_stopping = True

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        self.said.append(f"looked for {timeout_seconds:.0f} s")
        if not self.is_stopping:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.error is not None:
            raise self.error
        else:
            yield self.jobs.pop(), Stopped()


@pytest.fixture
def group(tmp_path: Path, jobs: Any) -> Group:
    (tmp_path / ALIVE).touch()
    (tmp_path / "wanted-1").touch()
    return Group(
        jobs=(jobs.Doubles(1),),
        devices=("cpu",),
        run_timeout_seconds=None,
        hang_seconds=60,
        wanted=tmp_path / "wanted-1",
    )


@pytest.fixture
def preempted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], list[str]]:
    """What happens in a Slurm job that is preempted, in its order."""

    def preempt(error: Exception | None) -> list[str]:
        said: list[str] = []
        monkeypatch.setattr(Preempted, "said", said, raising=False)
        monkeypatch.setattr(Preempted, "error", error)
        monkeypatch.setattr(slurm_group, "LocalExecutor", Preempted)
        monkeypatch.setattr(slurm_group, "is_running_still", lambda: bool(said.append("asked")))
        return said

    return preempt


@pytest.mark.parametrize(("stop_seconds", "looked"), [(20.0, 1), (0.0, 0)])
def test_runs_are_told_to_stop_before_slurm_is_asked(
    group: Group,
    preempted: Callable[[Exception | None], list[str]],
    stop_seconds: float,
    looked: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = preempted(None)
    monkeypatch.setattr(slurm_group, "STOP_SECONDS", stop_seconds)
    with pytest.raises(SystemExit, match="ended by signal 15"):
        group()
    # where Slurm's answer has taken all the time, what has ended by then is taken
    assert said == ["looked for 1 s", "told to stop", "asked", f"looked for {looked} s", "closed"]


def test_a_full_disk_that_is_met_while_runs_keep_their_state_is_the_outcome(
    group: Group, preempted: Callable[[Exception | None], list[str]]
) -> None:
    preempted(FULL)
    assert group() == (group.name, [FULL])
