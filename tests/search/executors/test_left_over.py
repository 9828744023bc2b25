"""Slurm jobs and tokens of a driver that was killed do not disturb the next."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.data.cache import ABANDONED_SECONDS, ALIVE
from cmtscale.record.folder import RUNS
from cmtscale.search.executors import left_over, slurm, slurm_queue
from cmtscale.search.executors.base import Stopped
from cmtscale.search.executors.left_over import end_left_over
from cmtscale.search.executors.slurm import SlurmExecutor
from cmtscale.search.executors.slurm_group import DriverWatch, Group
from cmtscale.search.executors.slurm_jobs import SlurmJobs
from cmtscale.search.jobs import TrainRun

pytest.importorskip("submitit", reason="cmtscale[slurm] is not installed")


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return count(70)


@pytest.fixture
def job_id(numbers: Iterator[int]) -> str:
    """Another in each test: submitit remembers what became of a job."""
    return str(next(numbers))


@pytest.fixture
def cluster(on_path: Callable[[str, str], None], tmp_path: Path, job_id: str) -> Path:
    """A Slurm whose job waits until it is cancelled; returns what scancel was asked."""
    state, asked = tmp_path / "state", tmp_path / "asked"
    state.write_text(f"JobID|State\n{job_id}|PENDING\n")
    on_path("srun", "exit 1")
    on_path("sbatch", f"echo Submitted batch job {job_id}")
    on_path("sacct", f"cat {state}")
    on_path("squeue", f"grep -q PENDING {state} && echo {job_id}; true")
    on_path("scancel", f"echo $* >> {asked}; sed -i s/PENDING/CANCELLED/ {state}")
    return asked


@pytest.fixture
def submitted(cluster: Path, tmp_path: Path) -> SlurmExecutor:  # noqa: ARG001
    """A driver that has submitted a run of `tmp_path / "results"`, and is then heard of no more."""
    executor = SlurmExecutor(SlurmJobs(at_a_time=1), cache_dir=tmp_path / "cache")
    run: Any = "a run"
    folder = tmp_path / "results" / RUNS / "c00-s0"
    executor.submit(TrainRun(run=run, folder=folder, candidate="c00"))
    assert list(executor.results(0.01)) == []
    return executor


def notes_in(folder: Path) -> list[Path]:
    return list((folder / RUNS).glob(".slurm-*"))


def test_the_next_driver_cancels_the_slurm_jobs_of_one_that_was_killed(
    submitted: SlurmExecutor, cluster: Path, tmp_path: Path, job_id: str
) -> None:
    assert len(list((tmp_path / "cache").rglob("wanted-*"))) == len(submitted.running())
    said: list[str] = []
    end_left_over(tmp_path / "results", said.append)
    assert cluster.read_text() == f"--name=cmtscale {job_id}\n"
    assert list((tmp_path / "cache").rglob("wanted-*")) == []  # what starts all the same ends
    (words,) = said
    assert "earlier driver" in words
    assert words.endswith(f"are cancelled: {job_id}")
    said.clear()
    end_left_over(tmp_path / "results", said.append)
    assert said == []


def test_a_driver_that_closes_leaves_nothing(submitted: SlurmExecutor, tmp_path: Path) -> None:
    assert len(notes_in(tmp_path / "results")) == 1
    with submitted:
        pass
    assert notes_in(tmp_path / "results") == []


def test_the_note_stays_where_slurm_does_not_say_what_is_left(
    submitted: SlurmExecutor, on_path: Callable[[str, str], None], tmp_path: Path
) -> None:
    on_path("squeue", "exit 1")
    submitted.cancel()
    assert len(notes_in(tmp_path / "results")) == 1
    on_path("squeue", "true")
    submitted.cancel()
    assert notes_in(tmp_path / "results") == []


def test_jobs_that_slurm_accepted_without_an_answer_are_known_before(
    cluster: Path, jobs: Any, tmp_path: Path, on_path: Callable[[str, str], None]
) -> None:
    on_path("sbatch", f"ls -A {tmp_path}/results/runs > {tmp_path}/seen; exit 1")
    run: Any = "a run"
    folder = tmp_path / "results" / RUNS / "c00-s0"
    with SlurmExecutor(SlurmJobs(at_a_time=2), cache_dir=tmp_path / "cache") as executor:
        executor.submit(TrainRun(run=run, folder=folder, candidate="c00"))
        executor.submit(jobs.Doubles(1))
        with pytest.raises(Exception, match="Slurm refuses"):
            list(executor.results(0.01))
    assert (tmp_path / "seen").read_text().startswith(".slurm-")
    assert not cluster.exists()


@pytest.mark.usefixtures("submitted")
def test_a_search_does_not_go_on_beside_jobs_that_do_not_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_path: Callable[[str, str], None],
    job_id: str,
) -> None:
    monkeypatch.setattr(left_over, "END_SECONDS", 0.0)
    on_path("scancel", "exit 1")
    with pytest.raises(ResultsError, match=rf"do not end \({job_id}\); wait for them, or scancel"):
        end_left_over(tmp_path / "results", print)
    assert len(notes_in(tmp_path / "results")) == 1


@pytest.mark.usefixtures("submitted")
@pytest.mark.parametrize("command", ["exit 1", "sleep 5"])
def test_jobs_of_which_squeue_says_nothing_are_not_taken_for_ended(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_path: Callable[[str, str], None],
    job_id: str,
) -> None:
    monkeypatch.setattr(left_over, "END_SECONDS", 0.0)
    monkeypatch.setattr(slurm_queue, "TIMEOUT_SECONDS", 0.1)
    on_path("squeue", command)
    with pytest.raises(ResultsError, match=rf"squeue does not say .*{job_id}.*once it answers"):
        end_left_over(tmp_path / "results", pytest.fail)
    assert len(notes_in(tmp_path / "results")) == 1


@pytest.mark.parametrize("command", ["squeue", "scancel"])
def test_a_controller_that_restarts_is_asked_again(
    command: str,
    cluster: Path,
    submitted: SlurmExecutor,  # noqa: ARG001
    tmp_path: Path,
    on_path: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    job_id: str,
) -> None:
    monkeypatch.setattr(left_over, "LOOK_SECONDS", 0.01)
    answers = (tmp_path / "bin" / command).read_text().partition("\n")[2]
    again = tmp_path / "again"
    on_path(command, f"if ! test -e {again}; then touch {again}; exit 1; fi\n{answers}")
    said: list[str] = []
    end_left_over(tmp_path / "results", said.append)
    assert cluster.read_text() == f"--name=cmtscale {job_id}\n"
    assert said[0].endswith(f"are cancelled: {job_id}")
    assert notes_in(tmp_path / "results") == []


def test_jobs_that_are_still_ending_stand_in_the_next_note(
    submitted: SlurmExecutor,
    tmp_path: Path,
    on_path: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    job_id: str,
    numbers: Iterator[int],
) -> None:
    monkeypatch.setattr(slurm, "CANCEL_SECONDS", 0.0)
    on_path("scancel", "true")  # a node that does not answer
    (job,) = submitted.running()
    submitted.cancel()
    assert submitted.running() == []
    another = str(next(numbers))
    on_path("sbatch", f"echo Submitted batch job {another}")
    submitted.submit(job)
    assert list(submitted.results(0.01)) == []
    (path,) = notes_in(tmp_path / "results")
    assert json.loads(path.read_text())["arrays"] == [job_id, another]
    (tmp_path / "state").write_text(f"JobID|State\n{job_id}|CANCELLED\n{another}|CANCELLED\n")
    submitted.cancel()
    assert notes_in(tmp_path / "results") == []


@pytest.mark.usefixtures("submitted")
def test_without_slurm_the_jobs_are_not_wanted_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    said: list[str] = []
    end_left_over(tmp_path / "results", said.append)
    assert list((tmp_path / "cache").rglob("wanted-*")) == []
    assert "this machine has no scancel" in said[0]


@pytest.mark.usefixtures("submitted")
def test_a_copy_of_a_folder_ends_no_jobs_of_the_original(cluster: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "results", tmp_path / "copy")
    end_left_over(tmp_path / "copy", pytest.fail)
    assert not cluster.exists()
    assert notes_in(tmp_path / "copy") == []
    assert len(list((tmp_path / "cache").rglob("wanted-*"))) == 1
    (tmp_path / "results").rename(tmp_path / "moved")
    end_left_over(tmp_path / "moved", lambda _: None)
    assert cluster.exists()


@pytest.mark.parametrize("content", ["", "[]", '{"arrays": 7}', "options"])
def test_a_note_that_cannot_be_read_is_kept_and_said(
    content: str, cluster: Path, tmp_path: Path
) -> None:
    path = tmp_path / RUNS / ".slurm-x.json"
    path.parent.mkdir()
    if content == "options":
        note = {"submissions": "", "arrays": ["--user=me"], "runs": str(path.parent), "inode": 0}
        content = json.dumps(note)
    path.write_text(content)
    said: list[str] = []
    end_left_over(tmp_path, said.append)
    assert "kept as .slurm-x.json.damaged" in said[0]
    assert (tmp_path / RUNS / ".slurm-x.json.damaged").read_text() == content
    assert not cluster.exists()


def test_tokens_of_killed_drivers_are_removed(tmp_path: Path) -> None:
    (tmp_path / RUNS / "c00-s0").mkdir(parents=True)
    (tmp_path / RUNS / ".driver-abc").touch()
    end_left_over(tmp_path, pytest.fail)
    assert [path.name for path in (tmp_path / RUNS).iterdir()] == ["c00-s0"]


def test_a_job_ends_when_no_driver_has_looked_for_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    alive = tmp_path / ALIVE
    alive.touch()
    driver = DriverWatch(alive=alive)
    assert not driver.is_gone()
    now[0] += ABANDONED_SECONDS - 10
    assert not driver.is_gone()
    os.utime(alive, (1, 1))  # another time, whatever the clocks say
    now[0] += 20
    assert not driver.is_gone()
    now[0] += ABANDONED_SECONDS + 1
    assert driver.is_gone()


@pytest.mark.parametrize("missing", ["wanted", "driver", "sign"])
def test_a_job_that_starts_when_nobody_waits_for_it_trains_nothing(
    missing: str, jobs: Any, tmp_path: Path
) -> None:
    alive, wanted = tmp_path / ALIVE, tmp_path / "wanted-1"
    alive.touch()
    if missing != "wanted":
        wanted.touch()
    if missing == "driver":
        os.utime(alive, (time.time() - ABANDONED_SECONDS - 10,) * 2)
    if missing == "sign":
        alive.unlink()
    job = jobs.Hangs(tmp_path / "pid")
    group = Group(
        jobs=(job,), devices=("cpu",), run_timeout_seconds=None, hang_seconds=60, wanted=wanted
    )
    began = time.monotonic()
    assert group() == (group.name, [Stopped()])
    assert time.monotonic() - began < 1.0  # a worker takes longer to start
    assert not (tmp_path / "pid").exists()
