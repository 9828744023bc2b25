"""What every executor does alike, whatever happens to a job."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import DataError, NoRoomError, RequestError
from cmtscale.arch.variant import Variant
from cmtscale.data.sources import open_source
from cmtscale.record.folder import RESULT
from cmtscale.record.result import read_result
from cmtscale.search.executors.base import Executor, Failure, Job, Stopped, carry_out_all
from cmtscale.search.executors.engine import Engine, open_engine
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.executors.ray import RayExecutor
from cmtscale.search.executors.slurm import SlurmExecutor
from cmtscale.search.executors.slurm_jobs import SlurmJobs
from cmtscale.search.jobs import ReadTestSplit, TimeSteps, TrainRun
from cmtscale.train.recipe import Recipe, Run

TIMEOUT_SECONDS = 120.0
LIMIT_SECONDS, HANG_SECONDS = 4, 3
SLOTS = {"local": 2, "slurm": 4, "slurm-debug": 4, "slurm-cluster": 4, "ray": 2}
CLUSTERS = {"slurm": "local", "slurm-debug": "debug", "slurm-cluster": "slurm"}  # of submitit
ENGINES = (
    "local",
    "slurm",  # submitit's processes in its place
    pytest.param(
        "slurm-debug",
        marks=[
            pytest.mark.slow,
            # submitit's debugging executor leaves its logs open
            pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
        ],
    ),
    pytest.param("slurm-cluster", marks=pytest.mark.slow),
    "ray",
)
Make = Callable[..., Executor]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, jobs: Any) -> str:  # noqa: ARG001
    if request.param.startswith("slurm"):
        pytest.importorskip("submitit", reason="cmtscale[slurm] is not installed")
    if request.param == "slurm-cluster":
        request.getfixturevalue("slurm")
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return str(request.param)


@pytest.fixture
def make(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes an executor of the engine."""
    with ExitStack() as stack:

        def open_one(**limits: int) -> Executor:
            if engine == "local":
                local = LocalExecutor(("cpu", "cpu"), most_shared=2, **limits)
                return stack.enter_context(local)
            if engine == "ray":
                address = request.getfixturevalue("cluster").address
                return stack.enter_context(RayExecutor(address, **limits))
            slurm = SlurmExecutor(
                SlurmJobs(gpus=0, share=SLOTS[engine], at_a_time=1, minutes=5),
                cache_dir=tmp_path / "cache",
                cluster=CLUSTERS[engine],
                **limits,
            )
            return stack.enter_context(slurm)

        yield open_one


def drain(executor: Executor, jobs: list[Job]) -> dict[Job, Any]:
    """The results of all these jobs, each once."""
    results = list(carry_out_all(executor, iter(jobs)))
    assert len(results) == len(jobs)
    return dict(results)


def wait_for(path: Path, text: str = "") -> int:
    """The number that is written to a file, once it is there, or is the one that is waited for."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while not (path.exists() and path.read_text() and text in path.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return int(path.read_text())


def ends(pid: int) -> bool:
    """Whether a process is gone, or is at its end and so soon after."""
    until = time.monotonic() + 20.0
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_each_job_comes_back_once_however_it_ends(
    make: Make, jobs: Any, engine: str, tmp_path: Path
) -> None:
    executor = make(run_timeout_seconds=LIMIT_SECONDS)
    assert executor.devices == ("cpu",) * SLOTS[engine]
    hangs = jobs.Hangs(tmp_path / "pid")
    asked = [
        jobs.Doubles(3),
        hangs,
        jobs.Raises(),
        jobs.Dies(),
        jobs.RunsOutOfMemory(on_gpu=True),
        jobs.RunsOutOfMemory(on_gpu=False),
        jobs.Doubles(4),
    ]
    results = drain(executor, asked)
    assert results[asked[0]] == (6, "cpu")
    assert results[asked[-1]] == (8, "cpu")  # the workers of failed jobs are there again
    causes = {job: result.cause for job, result in results.items() if isinstance(result, Failure)}
    assert set(causes) == set(asked[1:-1])
    assert causes[hangs] == "took longer than the limit of 4s (--run-timeout)"
    assert causes[jobs.Raises()] == "RuntimeError: first second third"
    assert "worker died" in causes[jobs.Dies()]
    assert causes[asked[4]] == "out of memory (OutOfMemoryError: CUDA: 2 GiB wanted)"
    assert causes[asked[5]] == "out of memory (MemoryError)"
    assert ends(int((tmp_path / "pid").read_text()))
    assert (executor.running(), executor.free_slots) == ([], SLOTS[engine])


def test_a_search_may_let_jobs_share_a_device_where_that_is_open(
    make: Make, jobs: Any, engine: str
) -> None:
    executor = make()
    assert executor.most_shared == (2 if engine == "local" else 1)
    for runs in (executor.most_shared, 1):
        executor.share(runs)
        slots = runs * SLOTS[engine]
        assert executor.devices == ("cpu",) * slots
        assert executor.free_slots == slots
        if executor.most_shared > 1:
            results = drain(executor, [jobs.Doubles(number) for number in range(slots + 1)])
            assert results[jobs.Doubles(slots)] == (2 * slots, "cpu")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("FillsTheDisk", NoRoomError, r"disk is full \(/data/checkpoint.pt\).*command again"),
        ("LosesItsImages", DataError, "packed images are gone"),
    ],
)
def test_what_no_other_job_can_do_without_stops_all_work(
    make: Make, jobs: Any, name: str, error: type[Exception], words: str
) -> None:
    executor = make()
    with pytest.raises(error, match=words):
        drain(executor, [getattr(jobs, name)()])
    assert executor.running() == []


def test_jobs_that_are_asked_to_stop_come_back_and_can_be_carried_out_again(
    make: Make, jobs: Any, engine: str, tmp_path: Path
) -> None:
    if engine == "slurm-debug":
        pytest.skip("which carries a job out when its result is asked for, in this process")
    executor = make()
    works = jobs.Works(tmp_path / "mark")
    for times in ("1", "2"):
        executor.submit(works)
        assert list(executor.results(0.01)) == []
        wait_for(works.mark, times)
        executor.stop()
        until = time.monotonic() + TIMEOUT_SECONDS
        while not (ended := list(executor.results(0.5))):
            assert time.monotonic() < until
        assert ended == [(works, Stopped())]
        assert executor.running() == []
        executor.cancel()
    assert drain(executor, [works]) == {works: 3}


def test_a_job_whose_process_stands_still_is_ended(
    make: Make, jobs: Any, engine: str, tmp_path: Path
) -> None:
    if engine == "slurm-debug":
        pytest.skip("whose own process would stand still")
    executor = make(hang_seconds=HANG_SECONDS)
    freezes = jobs.Freezes(tmp_path / "pid")
    results = drain(executor, [freezes, jobs.Doubles(2)])
    assert results[jobs.Doubles(2)] == (4, "cpu")
    assert results[freezes].cause == "gave no sign of life for 3s, and was ended (--hang-timeout)"
    assert ends(int(freezes.pid_file.read_text()))
    assert drain(executor, [jobs.Doubles(1)]) == {jobs.Doubles(1): (2, "cpu")}


def test_cancelling_ends_what_runs_and_the_executor_goes_on(
    make: Make, jobs: Any, engine: str, tmp_path: Path
) -> None:
    executor = make()
    job = jobs.Hangs(tmp_path / "pid")
    executor.submit(job)
    assert (executor.running(), executor.free_slots) == ([job], SLOTS[engine] - 1)
    pid = None
    if engine != "slurm-debug":  # which starts a job when its result is asked for
        assert list(executor.results(0.01)) == []
        pid = wait_for(tmp_path / "pid")
    executor.cancel()
    assert (executor.running(), executor.free_slots) == ([], SLOTS[engine])
    assert pid is None or ends(pid)
    assert drain(executor, [jobs.Doubles(1)]) == {jobs.Doubles(1): (2, "cpu")}


def test_the_jobs_of_a_search_train_time_and_test(
    make: Make, tmp_path: Path, tiny_base: Variant, cache_dir: Path
) -> None:
    data = open_source("digits", cache_dir=cache_dir).pack(96).ref
    recipe = Recipe(epochs=1, train_images=64, batch_size=64)
    run = Run(run_id="r1-c00-s0", variant=tiny_base, recipe=recipe, seed=0, data=data)
    folder = tmp_path / "runs" / run.run_id
    trains = TrainRun(run=run, folder=folder, candidate="c00")
    times = TimeSteps(network=tiny_base, recipe=recipe, batch=2)
    executor = make()
    results = drain(executor, [trains, times])
    assert results[trains] == read_result(folder / RESULT, run.identity)
    assert results[trains].status == "complete"
    assert results[times] > 0
    (score,) = drain(executor, [ReadTestSplit(run=run, folder=folder)]).values()
    assert score.images == 270


def test_a_device_that_is_not_there_is_an_error_at_once(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if engine.startswith("slurm"):
        pytest.skip("sbatch says so: see test_slurm.py")
    asked, words = Engine(), "device cuda: there is no CUDA device on this machine; use cpu or auto"
    if engine == "ray":
        asked = Engine(name="ray", address=request.getfixturevalue("cluster").address)
        words = "the Ray cluster has no GPU .it has 2 CPU, 0 GPU.; add a node that has"
    with pytest.raises(RequestError, match=words):
        open_engine(asked, device="cuda", workers=None, cache_dir=tmp_path)
