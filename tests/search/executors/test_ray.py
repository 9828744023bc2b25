"""Ray clusters of several nodes on this machine: GPUs, a node that is lost, no shared folder."""

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from cmtscale.arch.errors import (
    NoRoomError,
    RequestError,
    StoppedError,
    TrainingError,
)
from cmtscale.arch.variant import Variant
from cmtscale.data.cache import LOCK
from cmtscale.data.sources import open_source
from cmtscale.record.folder import CHECKPOINT, RESULT, RUNS
from cmtscale.record.result import read_result
from cmtscale.search.executors import ray_files
from cmtscale.search.executors.base import Executor, Failure, Stopped, carry_out_all
from cmtscale.search.executors.left_over import end_left_over
from cmtscale.search.executors.ray import RayExecutor
from cmtscale.search.executors.ray_connect import connect
from cmtscale.search.executors.ray_files import Keeper, Sign, _own_folder, _Sender, at_hand
from cmtscale.search.executors.ray_task import _WithFiles, attempt, end_process, started_at
from cmtscale.search.jobs import ReadTestSplit, TrainRun
from cmtscale.train.checkpoint import PREVIOUS, WRITTEN, load_checkpoint
from cmtscale.train.recipe import Recipe, Run

TIMEOUT_SECONDS = 120.0


def stub_of(keeper: Any) -> Any:
    """The keeper as a task calls it; `ray.get` has to call what it is given."""

    class Stub:
        def __getattr__(self, name: str) -> Any:
            method = getattr(keeper, name)
            return SimpleNamespace(remote=lambda *arguments: lambda: method(*arguments))

    return Stub()


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a `stub_of` a keeper are carried out here."""
    pytest.importorskip("ray", reason="cmtscale[ray] is not installed")
    monkeypatch.setattr("ray.get", lambda call: call())


@pytest.fixture
def digits_run(
    tiny_base: Variant, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> TrainRun:
    """A run whose driver has a folder of it; the cache of this node is empty."""
    data = open_source("digits", cache_dir=cache_dir).pack(96).ref
    recipe = Recipe(epochs=1, train_images=64, batch_size=64)
    run = Run(run_id="r1-c00-s0", variant=tiny_base, recipe=recipe, seed=0, data=data)
    monkeypatch.setenv("CMTSCALE_CACHE", str(tmp_path / "node-cache"))
    folder = tmp_path / RUNS / run.run_id
    folder.mkdir(parents=True)
    (folder / CHECKPOINT).write_bytes(b"123456")
    return TrainRun(run=run, folder=folder, candidate="c00")


def first_result(executor: Executor) -> Any:
    until = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < until:
        for _, result in executor.results(1.0):
            return result
    raise AssertionError("no result came")


def wait_for(path: Path) -> None:
    until = time.monotonic() + TIMEOUT_SECONDS
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_runs_share_the_gpus_of_the_cluster(cluster: Any, jobs: Any) -> None:
    node = cluster.add_node(num_cpus=1, num_gpus=2)
    try:
        with RayExecutor(cluster.address, share=2) as executor:
            assert executor.devices == ("cuda:0", "cuda:1", "cuda:0", "cuda:1")
            ((_, result),) = carry_out_all(executor, iter([jobs.Doubles(2)]))
            assert result == (4, "cuda:0")  # the only one that its task sees
        with RayExecutor(cluster.address, workers=1, device="cpu") as executor:
            assert executor.devices == ("cpu",)
    finally:
        cluster.remove_node(node)


def test_a_run_whose_node_is_lost_fails_and_goes_on_elsewhere(
    cluster: Any, jobs: Any, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=0, num_gpus=1)
    with RayExecutor(cluster.address, device="cuda") as executor:
        job = jobs.Hangs(tmp_path / "pid")
        executor.submit(job)
        wait_for(tmp_path / "pid")
        cluster.remove_node(node, allow_graceful=False)
        lost = first_result(executor)
        assert isinstance(lost, Failure)
        assert "\n" not in lost.cause
        assert executor.free_slots == 1
        executor.submit(job)
        with pytest.raises(TrainingError, match=r"no GPU .it has 2 CPU, 0 GPU.; add a node"):
            first_result(executor)
        executor.cancel()
        node = cluster.add_node(num_cpus=0, num_gpus=1)
        ((_, result),) = carry_out_all(executor, iter([jobs.Doubles(2)]))
        assert result == (4, "cuda:0")
    cluster.remove_node(node)


def test_without_a_shared_folder_files_are_sent_and_a_run_goes_on_from_its_checkpoint(
    cluster: Any, tmp_path: Path, tiny_base: Variant, cache_dir: Path
) -> None:
    data = open_source("digits", cache_dir=cache_dir).pack(96).ref
    recipe = Recipe(epochs=10_000, train_images=64, batch_size=64)
    run = Run(run_id="r1-c00-s0", variant=tiny_base, recipe=recipe, seed=0, data=data)
    folder = tmp_path / "runs" / run.run_id
    endless = TrainRun(run=run, folder=folder, candidate="c00")
    short = replace(endless, run=replace(run, recipe=replace(recipe, epochs=1)))
    with RayExecutor(cluster.address, device="cpu", is_shared=False) as executor:
        executor.submit(endless)
        wait_for(folder / CHECKPOINT)
        executor.cancel()
        assert load_checkpoint(folder, endless.run.identity) is not None
        ((_, result),) = carry_out_all(executor, iter([short]))
        assert result == read_result(folder / RESULT, short.run.identity)
        ((_, score),) = carry_out_all(executor, iter([ReadTestSplit(run=short.run, folder=folder)]))
        assert score.images == 270
    (sent,) = Path(os.environ["CMTSCALE_CACHE"]).glob("sent-*")
    assert (sent / "images.npy").read_bytes() == (data.path / "images.npy").read_bytes()


def test_a_cluster_that_does_not_answer_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("ray", reason="cmtscale[ray] is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def init(**options: Any) -> None:
        assert options["address"] == "auto"
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RequestError, match=f"no Ray cluster answers at 127.0.0.1:{port} .*refused"):
        RayExecutor(f"127.0.0.1:{port}")
    with pytest.raises(
        RequestError, match=r"no Ray cluster answers on this machine .*ray start --head"
    ):
        RayExecutor()


def test_of_checkpoints_the_newest_alone_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    keeper = SimpleNamespace(
        write=SimpleNamespace(remote=lambda path, _: sent.append(path.name)),
    )
    monkeypatch.setattr("ray.get", lambda _: None)
    for name in (CHECKPOINT, PREVIOUS, WRITTEN, "metrics.jsonl"):
        (tmp_path / name).write_text("x")
    sender = _Sender(folder=tmp_path, target=tmp_path / "there", keeper=keeper)
    sender.send()
    assert sorted(sent) == [CHECKPOINT, "metrics.jsonl"]
    read = Path.read_bytes

    def replaced(path: Path) -> bytes:
        path.unlink()
        return read(path)

    (tmp_path / "row.json").write_text("x")
    monkeypatch.setattr(Path, "read_bytes", replaced)
    sender.send()  # a file that goes between two looks ends nothing
    monkeypatch.undo()
    assert "row.json" not in sender.sent


def test_a_token_that_was_removed_is_there_for_the_next_task(tmp_path: Path) -> None:
    executor = object.__new__(RayExecutor)  # no cluster is asked
    executor._tokens, executor._is_shared = {}, True
    run: Any = "a run"
    job = TrainRun(run=run, folder=tmp_path / RUNS / "c00-s0", candidate="c00")
    token = executor._token(job)
    end_left_over(tmp_path, pytest.fail)  # as the next check of the same folder does
    assert not token.exists()
    assert executor._token(job) == token
    assert token.exists()


TASK = """
import sys
from cmtscale.search.executors.ray_files import _own_folder
with _own_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_temporary_folders_of_killed_tasks_are_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # read again
    (tmp_path / "cmtscale-mine").mkdir()
    command = [sys.executable, "-P", "-c", TASK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as task:
        assert task.stdout is not None
        left = Path(task.stdout.readline().decode().strip())
        (left / CHECKPOINT).write_bytes(b"left")
        monkeypatch.setattr(ray_files, "NEW_SECONDS", -1.0)
        with _own_folder():
            assert left.exists()  # its task goes on
        task.kill()
    monkeypatch.setattr(ray_files, "NEW_SECONDS", 10.0)
    with _own_folder():
        assert left.exists()  # a new task may not have its lock yet
    monkeypatch.setattr(ray_files, "NEW_SECONDS", -1.0)
    with _own_folder() as folder:
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "cmtscale-mine", folder])
    assert [path.name for path in tmp_path.iterdir()] == ["cmtscale-mine"]


def test_sigterm_is_heard_as_before_once_ray_is_connected() -> None:
    def init(**_: Any) -> None:  # as Ray's in a main thread
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))

    before = signal.getsignal(signal.SIGTERM)
    try:
        assert connect(SimpleNamespace(is_initialized=lambda: False, init=init), "auto")
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, before)


def test_of_the_signs_those_that_are_asked_for_are_copied() -> None:
    keeper = Keeper()
    for name in ("ended", "under way"):
        keeper.hear(name, "node", 7, 1.0)
    signs = keeper.signs(["under way", "not begun"])
    keeper.hear("under way", "node", 7, 1.0)
    assert signs == {"under way": Sign(1, "node", 7, 1.0)}


@pytest.mark.usefixtures("without_ray")
def test_a_task_gives_signs_of_life_with_every_part_that_it_fetches(
    digits_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_files, "CHUNK", 2)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "images.npy").write_bytes(b"12345678")
    data = replace(digits_run.run.data, path=tmp_path / "images")
    job = replace(digits_run, run=replace(digits_run.run, data=data))
    signs: list[int] = []

    def check_in() -> bool:
        signs.append(1)
        return False

    with at_hand(job, stub_of(Keeper()), tmp_path / "unseen", check_in) as here:
        assert isinstance(here, TrainRun)
        assert (here.folder / CHECKPOINT).read_bytes() == b"123456"
        assert (here.run.data.path / "images.npy").read_bytes() == b"12345678"
    assert len(signs) == 4 + 3


@pytest.mark.usefixtures("without_ray")
def test_a_task_that_waits_for_anothers_fetch_gives_signs_of_life_and_can_be_stopped(
    digits_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_files, "LOCK_SECONDS", 0.01)
    signs = iter([False, False, True])
    (tmp_path / "node-cache").mkdir()
    task = _WithFiles(job=digits_run, keeper=stub_of(Keeper()), token=tmp_path / "unseen")
    with FileLock(tmp_path / "node-cache" / LOCK), ThreadPoolExecutor() as pool:
        assert pool.submit(attempt, task, "cpu", lambda: next(signs)).result() == Stopped()
    assert next(signs, None) is None
    with pytest.raises(StoppedError):
        task.carry_out("cpu", lambda: True)  # after the first part


@pytest.mark.usefixtures("without_ray")
def test_a_file_that_could_not_be_sent_is_sent_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_files, "SEND_SECONDS", 0.01)
    tries: list[bytes] = []
    arrived = threading.Event()

    def write(_: Path, content: bytes) -> None:
        tries.append(content)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        arrived.set()

    (tmp_path / CHECKPOINT).write_bytes(b"state")
    keeper = stub_of(SimpleNamespace(write=write))
    sender = _Sender(folder=tmp_path, target=tmp_path / "there", keeper=keeper)
    thread = threading.Thread(target=sender.go_on)
    thread.start()
    try:
        assert arrived.wait(TIMEOUT_SECONDS)
    finally:
        sender.is_over.set()
        thread.join()
    assert tries == [b"state", b"state"]


def test_a_disk_of_the_driver_that_stays_full_stops_all_work(
    digits_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="cmtscale[ray] is not installed")
    full = OSError(errno.ENOSPC, "No space left on device", "/results/checkpoint.pt")

    def get(call: Any) -> Any:  # an error of an actor comes in a class of Ray's and its own
        try:
            return call()
        except OSError as error:
            raise ray.exceptions.RayTaskError("write", "", error).as_instanceof_cause() from error

    def write(*_: Any) -> None:
        raise full

    def trains(job: TrainRun, *_: Any) -> None:
        (job.folder / CHECKPOINT).write_bytes(b"another state")

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr(Keeper, "write", write)
    monkeypatch.setattr(TrainRun, "carry_out", trains)
    task = _WithFiles(job=digits_run, keeper=stub_of(Keeper()), token=tmp_path / "unseen")
    error = attempt(task, "cpu", lambda: False)
    assert isinstance(error, NoRoomError)
    assert "the disk is full (/results/checkpoint.pt)" in str(error)


def test_a_keeper_that_is_lost_is_an_error_in_a_line_and_hides_no_other(
    cluster: Any, jobs: Any
) -> None:
    with RayExecutor(cluster.address, device="cpu") as executor:
        executor.submit(jobs.Doubles(1))
        executor._ray.kill(executor._keeper)
        with pytest.raises(TrainingError, match=r"lost the process.*same command goes on") as error:
            first_result(executor)
        assert "\n" not in str(error.value)
        with pytest.raises(TrainingError, match="lost the process"):
            executor.stop()
        executor.cancel()
        assert executor.running() == []


def test_only_the_process_that_gave_the_sign_is_killed() -> None:
    pytest.importorskip("ray", reason="cmtscale[ray] is not installed")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = started_at(process.pid)
        end_process(process.pid, started - 60.0)  # of another one, whose number it has now
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        end_process(process.pid, started)
        assert process.wait(TIMEOUT_SECONDS) == -signal.SIGKILL
    end_process(process.pid, started)  # it is gone: no error


@pytest.mark.parametrize(
    ("ended", "cancelled"),
    [
        ({"killing", "task"}, []),  # Ray aborts who cancels what has just ended
        ({"task"}, ["killing"]),  # the node does not answer, and shall not kill later
        (set(), ["killing", "task"]),
    ],
)
def test_of_a_task_that_hangs_only_what_has_not_ended_is_cancelled(
    ended: set[str], cancelled: list[str]
) -> None:
    asked: list[str] = []
    executor = object.__new__(RayExecutor)  # no cluster is asked
    executor._ray = SimpleNamespace(
        remote=lambda **_: lambda _: SimpleNamespace(remote=lambda *_: "killing"),
        wait=lambda references, **_: (ended.intersection(references), None),
        cancel=lambda reference, force: asked.append(reference),  # noqa: ARG005
        util=SimpleNamespace(
            scheduling_strategies=SimpleNamespace(
                NodeAffinitySchedulingStrategy=lambda *_, **__: None
            )
        ),
    )
    executor._end("task", Sign(1, "node", 7, 1.0))
    assert asked == cancelled
