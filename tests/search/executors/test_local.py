"""Runs in worker processes of this machine: a death or an error costs one run."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.variant import Variant
from cmtscale.data.sources import open_source
from cmtscale.record.folder import METRICS, RESULT
from cmtscale.record.result import RunResult, read_result, write_result
from cmtscale.search.executors import pulse
from cmtscale.search.executors.base import Failure, Stopped, carry_out_all
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.executors.outcome import attempt
from cmtscale.search.jobs import TimeSteps, TrainRun
from cmtscale.train import loop
from cmtscale.train.recipe import Recipe, Run
from cmtscale.train.stop import CheckIn, never

TIMEOUT_SECONDS = 120.0


@pytest.fixture
def job(tmp_path: Path, tiny_base: Variant, cache_dir: Path) -> TrainRun:
    data = open_source("digits", cache_dir=cache_dir).pack(96).ref
    recipe = Recipe(epochs=1, train_images=64, batch_size=64)
    run = Run(run_id="r1-c00-s0", variant=tiny_base, recipe=recipe, seed=0, data=data)
    return TrainRun(run=run, folder=tmp_path / "runs" / "r1-c00-s0", candidate="c00")


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(("cpu", "cpu")) as executor:
        yield executor


def endless(job: TrainRun) -> TrainRun:
    """A run of so many epochs that it does not end by itself."""
    recipe = replace(job.run.recipe, epochs=100_000)
    run = replace(job.run, run_id="r1-c01-s0", recipe=recipe)
    return replace(job, run=run, folder=job.folder.with_name("r1-c01-s0"))


def drain(executor: LocalExecutor, count: int) -> dict[str, Any]:
    """The next `count` results by run id."""
    results: dict[str, Any] = {}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while len(results) < count and time.monotonic() < deadline:
        results |= {job.run.run_id: result for job, result in executor.results(1.0)}
    return results


def wait_for_training(job: TrainRun) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (job.folder / METRICS).exists() or not (job.folder / METRICS).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_training(executor: LocalExecutor, job: TrainRun) -> int:
    """Submit a job; the pid of its new worker, once it trains."""
    before = {child.pid for child in multiprocessing.active_children()}
    executor.submit(job)
    wait_for_training(job)
    (pid,) = {child.pid for child in multiprocessing.active_children()} - before
    assert pid is not None
    return pid


def test_a_killed_worker_costs_its_own_run_and_no_other(
    executor: LocalExecutor, job: TrainRun
) -> None:
    pid = start_training(executor, endless(job))
    executor.submit(job)
    assert executor.free_slots == 0
    assert executor.running() == [endless(job), job]
    os.kill(pid, signal.SIGKILL)
    results = drain(executor, 2)
    assert isinstance(results["r1-c01-s0"], Failure)
    assert results["r1-c01-s0"].cause.startswith("the worker died (exit code -9)")
    assert results["r1-c00-s0"].status == "complete"
    assert results["r1-c00-s0"] == read_result(job.folder / RESULT, job.run.identity)
    assert executor.free_slots == 2


def test_an_error_in_a_run_is_its_cause_and_the_workers_go_on(
    executor: LocalExecutor, job: TrainRun
) -> None:
    job.folder.parent.mkdir()
    (job.folder.parent / "file").write_text("in the way")
    bad = replace(job, run=replace(job.run, run_id="bad"), folder=job.folder.parent / "file" / "x")
    executor.submit(bad)
    executor.submit(job)
    results = drain(executor, 2)
    assert results["bad"].cause.startswith("NotADirectoryError: ")
    assert results["r1-c00-s0"].status == "complete"


def test_a_job_whose_images_do_not_come_is_ended_and_can_be_tried_again(
    jobs: Any, tmp_path: Path
) -> None:
    job = jobs.WaitsForItsImages(tmp_path / "pid")
    with LocalExecutor(("cpu",), hang_seconds=3) as executor:
        failed = dict(carry_out_all(executor, iter([job])))[job]
        assert failed.cause == "gave no sign of life for 3s, and was ended (--hang-timeout)"
        with pytest.raises(ProcessLookupError):
            os.kill(int(job.mark.read_text()), 0)
        assert dict(carry_out_all(executor, iter([job]))) == {job: [0, 1, 2, 3]}


@dataclass(frozen=True)
class FailsWhileItHolds:
    """A job whose frame holds something large when it fails."""

    def carry_out(self, _device: str, _check_in: CheckIn) -> None:
        held = Large()
        try:
            raise RuntimeError(f"too large: {held}")
        except RuntimeError as error:
            itself = error  # in its own frame: nothing lets go of either
            raise itself  # noqa: B904


class Large:
    """Its living instances are counted."""

    living = 0

    def __init__(self) -> None:
        Large.living += 1

    def __del__(self) -> None:
        Large.living -= 1


@dataclass(frozen=True)
class CountsLarge:
    def carry_out(self, _device: str, _check_in: CheckIn) -> int:
        return Large.living


def test_a_failed_job_leaves_nothing_in_memory_for_the_next() -> None:
    failed = attempt(FailsWhileItHolds(), "cpu", never)
    assert failed.cause.startswith("RuntimeError: too large")
    assert attempt(CountsLarge(), "cpu", never) == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks into /proc")
def test_a_ctrl_c_of_the_terminal_never_reaches_a_worker_that_starts(
    executor: LocalExecutor, job: TrainRun
) -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    executor.submit(endless(job))
    (pid,) = {child.pid for child in multiprocessing.active_children()} - before
    status = Path(f"/proc/{pid}/status").read_text()
    (blocked,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")]
    assert int(blocked, 16) & (1 << (signal.SIGINT - 1))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())  # here it counts


def test_closing_ends_workers_in_mid_run_and_leaves_no_process(
    executor: LocalExecutor, job: TrainRun
) -> None:
    before = {child.pid for child in multiprocessing.active_children()}
    start_training(executor, endless(job))
    executor.submit(job)
    pids = {child.pid for child in multiprocessing.active_children()} - before
    assert len(pids) == 2
    executor.close()
    assert {child.pid for child in multiprocessing.active_children()} == before
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def idle_worker(executor: LocalExecutor, jobs: Any) -> int:
    """The process of a worker that has nothing to do."""
    before = {child.pid for child in multiprocessing.active_children()}
    assert dict(carry_out_all(executor, iter([jobs.Doubles(1)])))
    (pid,) = {child.pid for child in multiprocessing.active_children()} - before
    assert pid is not None
    return pid


def test_a_worker_that_has_died_while_it_was_idle_is_replaced(
    executor: LocalExecutor, jobs: Any
) -> None:
    pid = idle_worker(executor, jobs)
    os.kill(pid, signal.SIGKILL)
    time.sleep(1.0)  # it is noticed meanwhile
    assert idle_worker(executor, jobs) != pid


def test_a_worker_whose_device_is_of_no_use_any_more_is_replaced(
    executor: LocalExecutor, jobs: Any
) -> None:
    asks, breaks = jobs.SaysItsProcess(), jobs.BreaksItsDevice()
    (before,) = dict(carry_out_all(executor, iter([asks]))).values()
    (failed,) = dict(carry_out_all(executor, iter([breaks]))).values()
    assert failed.cause == "RuntimeError: CUDA error: an illegal memory access was encountered"
    (after,) = dict(carry_out_all(executor, iter([asks]))).values()
    assert after != before


def test_a_worker_that_dies_as_it_starts_is_a_failure_and_is_replaced(
    executor: LocalExecutor, jobs: Any
) -> None:
    before = set(multiprocessing.active_children())
    executor.submit(jobs.Doubles(1))
    (child,) = set(multiprocessing.active_children()) - before
    child.kill()
    until = time.monotonic() + TIMEOUT_SECONDS
    while not (ended := list(executor.results(1.0))):
        assert time.monotonic() < until
    ((_, result),) = ended
    assert isinstance(result, Failure)
    assert result.cause.startswith("the worker died")
    assert dict(carry_out_all(executor, iter([jobs.Doubles(1)]))) == {jobs.Doubles(1): (2, "cpu")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_all_processes_stops_the_job_of_a_worker_that_starts(
    executor: LocalExecutor, jobs: Any, number: signal.Signals
) -> None:
    before = set(multiprocessing.active_children())
    executor.submit(jobs.ChecksIn(seconds=TIMEOUT_SECONDS))
    (child,) = set(multiprocessing.active_children()) - before
    assert child.pid is not None
    os.kill(child.pid, number)
    until = time.monotonic() + TIMEOUT_SECONDS
    while not (ended := list(executor.results(1.0))):
        assert time.monotonic() < until
    assert ended == [(jobs.ChecksIn(seconds=TIMEOUT_SECONDS), Stopped())]


def test_time_in_which_all_stood_still_does_not_count(
    jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 4
    with LocalExecutor(("cpu",), run_timeout_seconds=limit, hang_seconds=limit) as executor:
        idle_worker(executor, jobs)
        executor.submit(jobs.ChecksIn(seconds=1.0))
        assert list(executor.results(0.5)) == []
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + 3600)  # a lid that was closed
        monkeypatch.setattr(pulse, "MOST_BETWEEN_LOOKS", 1.0)
        ((_, result),) = carry_out_all(executor, iter([]))
        assert result == "done"


def test_a_worker_that_stands_still_ends_with_its_driver(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("of Linux")
    code = (
        "import multiprocessing, os, signal, sys; sys.path[:0] = sys.argv[1:];"
        "from cmtscale.search.executors.base import carry_out_all;"
        "from cmtscale.search.executors.local import LocalExecutor;"
        "from contract_jobs import Doubles;"
        "executor = LocalExecutor(('cpu',));"
        "list(carry_out_all(executor, iter([Doubles(1)])));"
        "(child,) = multiprocessing.active_children();"
        "os.kill(child.pid, signal.SIGSTOP); print(child.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "driver.py"
    path.write_text(f"if __name__ == '__main__':\n    {code}\n")
    folder = str(Path(__file__).parent)
    process = subprocess.run(
        [sys.executable, str(path), folder],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])},
    )
    assert process.returncode == -signal.SIGKILL
    until = time.monotonic() + 20.0
    while Path(f"/proc/{int(process.stdout)}/cmdline").exists():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_an_executor_that_did_nothing_starts_no_process() -> None:
    before = multiprocessing.active_children()
    with LocalExecutor(("cpu", "cpu")) as executor:
        assert list(executor.results(0.01)) == []
        assert multiprocessing.active_children() == before


def test_all_jobs_are_carried_out_by_workers_that_are_used_again(
    executor: LocalExecutor, tiny_base: Variant
) -> None:
    jobs = [TimeSteps(network=tiny_base, recipe=Recipe(), batch=size) for size in (2, 3, 4, 5)]
    results = dict(carry_out_all(executor, iter(jobs)))
    assert results.keys() == set(jobs)
    assert all(isinstance(seconds, float) and seconds > 0 for seconds in results.values())
    assert len(executor._workers) == 2


def test_workers_of_slots_that_are_gone_end_and_the_others_stay(tiny_base: Variant) -> None:
    with LocalExecutor(("cpu",), most_shared=2) as executor:
        executor.share(2)
        jobs = [TimeSteps(network=tiny_base, recipe=Recipe(), batch=size) for size in (2, 3)]
        assert dict(carry_out_all(executor, iter(jobs))).keys() == set(jobs)
        first, second = (worker.shared.pid for worker in executor._workers.values())
        executor.share(1)
        assert [worker.shared.pid for worker in executor._workers.values()] == [first]
        os.kill(first, 0)
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces training by an instant result; returns the ids of trained runs."""
    ids: list[str] = []

    def train(run: Run, **_: object) -> RunResult:
        ids.append(run.run_id)
        return RunResult(status="complete", val_loss=0.1 + 0.2, seconds=1.5)

    monkeypatch.setattr(loop, "train", train)
    return ids


def test_a_run_whose_result_is_there_is_not_trained_again(
    job: TrainRun, trained: list[str]
) -> None:
    assert job.carry_out("cpu", never) == job.carry_out("cpu", never)
    assert trained == [job.run.run_id]


@pytest.mark.parametrize(
    "stored",
    ["", "{", "[]", "failed", "another run's", "of an older scoring"],
    ids=lambda t: t or "empty",
)
def test_a_result_that_is_broken_failed_or_of_another_run_is_made_anew(
    job: TrainRun, trained: list[str], stored: str
) -> None:
    failed = RunResult(status="failed", cause="the worker died")
    complete = replace(failed, status="complete")
    path = job.folder / RESULT
    job.folder.mkdir(parents=True)
    match stored:
        case "failed":
            write_result(path, failed, job.run.identity)
        case "another run's":
            write_result(path, complete, "0123")
        case "of an older scoring":
            write_result(path, replace(complete, scoring=1), job.run.identity)
        case _:
            path.write_text(stored)
    result = job.carry_out("cpu", never)
    assert trained == [job.run.run_id]
    assert read_result(path, job.run.identity) == result
