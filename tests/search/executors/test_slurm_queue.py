"""What Slurm says of jobs that wait: which reasons end a search, and when."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import RequestError
from cmtscale.search.executors import slurm, slurm_queue
from cmtscale.search.executors.slurm import SlurmExecutor
from cmtscale.search.executors.slurm_jobs import SlurmJobs
from cmtscale.search.executors.slurm_queue import (
    LASTING_SECONDS,
    Queue,
    cancel,
    cancel_pending,
    is_running_still,
)


@pytest.fixture
def queue(
    on_path: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str | None]:
    """What is said of job 9 with a reason, so many seconds after the last question."""
    on_path("squeue", f"cat {tmp_path}/queue")
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watched = Queue()

    def ask(lines: str, after: float = 0.0) -> str | None:
        now[0] += after
        (tmp_path / "queue").write_text(lines)
        return watched.hopeless(["9_0", "9_1"])

    return ask


@pytest.mark.parametrize(
    "reason",
    ["PartitionTimeLimit", "BadConstraints", "InvalidQOS", "QOSNotAllowed", "QOSMaxCpuPerJobLimit"],
)
def test_a_reason_that_asks_for_another_request_is_hopeless_at_once(
    queue: Callable[..., str | None], reason: str
) -> None:
    assert queue(f"8 {reason}\n9 Priority\n") is None
    assert queue(f"9 {reason}\n") == f"job 9 never starts: {reason}"


@pytest.mark.parametrize("reason", ["Resources", "PartitionDown", "QOSMaxJobsPerUserLimit"])
def test_a_reason_that_passes_is_never_hopeless(
    queue: Callable[..., str | None], reason: str
) -> None:
    assert queue(f"9 {reason}\n") is None
    assert queue(f"9 {reason}\n", after=1e6) is None


def test_a_reason_that_also_stands_where_nodes_are_down_has_to_last(
    queue: Callable[..., str | None],
) -> None:
    stuck = "9 PartitionNodeLimit\n"
    assert queue(stuck) is None
    assert queue(stuck, after=LASTING_SECONDS) is None
    assert queue("9 Resources\n", after=1.0) is None  # the nodes are back
    assert queue(stuck, after=1.0) is None
    words = queue(stuck, after=LASTING_SECONDS + 1)
    assert words is not None
    assert "job 9 could not start for 10 minutes: PartitionNodeLimit" in words
    assert "nodes that are down" in words


def test_a_question_that_fails_forgets_nothing(
    queue: Callable[..., str | None], on_path: Callable[[str, str], None], tmp_path: Path
) -> None:
    assert queue("9 PartitionConfig\n") is None
    on_path("squeue", "exit 1")
    assert queue("", after=LASTING_SECONDS / 2) is None
    on_path("squeue", f"cat {tmp_path}/queue")
    assert "PartitionConfig" in str(queue("9 PartitionConfig\n", after=LASTING_SECONDS))


def test_a_job_that_slurm_accepts_and_never_starts_is_an_error(
    on_path: Callable[[str, str], None], jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    on_path("srun", "exit 1")
    state = tmp_path / "state"
    state.write_text("JobID|State\n9|PENDING\n")
    on_path("scancel", f"sed -i s/PENDING/CANCELLED/ {state}")
    on_path("sacct", f"cat {state}")
    on_path("sbatch", "echo Submitted batch job 9")
    on_path("squeue", f"cat {tmp_path}/queue")
    (tmp_path / "queue").write_text("8 PartitionTimeLimit\n9 Priority\n")
    with SlurmExecutor(SlurmJobs(), cache_dir=tmp_path) as executor:
        executor.submit(jobs.Doubles(1))
        assert list(executor.results(0.3)) == []
        (tmp_path / "queue").write_text("9 PartitionTimeLimit\n")
        with pytest.raises(RequestError, match=r"job 9 never starts: PartitionTimeLimit.*--slurm"):
            list(executor.results(10.0))
    assert "CANCELLED" in state.read_text()


@pytest.mark.parametrize("has_accounting", [True, False])
def test_a_job_that_slurm_does_not_know_any_more_is_lost(
    on_path: Callable[[str, str], None],
    jobs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_accounting: bool,
) -> None:
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    monkeypatch.setattr(slurm_queue, "MISSING_SECONDS", 1.0)
    monkeypatch.setattr("submitit.Job._results_timeout_s", 0)
    on_path("srun", "exit 1")
    state = tmp_path / "state"
    job_id = "8100" if has_accounting else "8200"
    state.write_text(f"JobID|State\n{job_id}|PENDING\n")  # as accounting shows it for ever
    on_path("scancel", f"sed -i s/PENDING/CANCELLED/ {state}")
    on_path("sacct", f"cat {state}" if has_accounting else "exit 1")
    on_path("sbatch", f"echo Submitted batch job {job_id}")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    on_path("squeue", 'test -z "$SQUEUE_STATES" && echo ' + job_id)
    with SlurmExecutor(SlurmJobs(), cache_dir=tmp_path) as executor:
        executor.submit(jobs.Doubles(1))
        assert list(executor.results(1.5)) == []
        on_path("squeue", "exit 1")  # it does not say
        assert list(executor.results(1.5)) == []
        on_path("squeue", "true")
        assert list(executor.results(0.5)) == []  # accounting may say more in a moment
        ((job, outcome),) = executor.results(10.0)
        assert job == jobs.Doubles(1)
        assert outcome.cause.startswith(f"Slurm does not know its job {job_id} any more")
        executor.submit(jobs.Doubles(2))  # which gets the same id
        assert list(executor.results(0.5)) == []
        state.write_text(f"JobID|State\n{job_id}|OUT_OF_MEMORY\n")
        on_path("sacct", f"cat {state}")  # which submitit asks seldom
        ((_, outcome),) = executor.results(10.0)
        assert outcome.cause.startswith(f"out of memory: Slurm job {job_id} ended without a result")


def test_without_jobs_nothing_is_cancelled(
    on_path: Callable[[str, str], None], tmp_path: Path
) -> None:
    on_path("scancel", f"echo $* >> {tmp_path}/asked")
    cancel_pending([])  # scancel with filters alone ends all the user's jobs that they leave
    cancel([])
    assert not (tmp_path / "asked").exists()
    cancel_pending(["9_1", "9_0"])
    assert (tmp_path / "asked").read_text() == "--name=cmtscale --state=PENDING 9_0 9_1\n"


@pytest.mark.parametrize(("state", "goes_on"), [("RUNNING", True), ("COMPLETING", False)])
def test_slurm_says_whether_a_job_that_gets_sigterm_goes_on(
    on_path: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, state: str, goes_on: bool
) -> None:
    assert is_running_still()
    on_path("squeue", f'test "$*" = "-h -j 12 -o %T" && echo {state}')
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert is_running_still() is goes_on
