"""A driver stopped by Ctrl-C, then killed with SIGKILL, both in mid-run, then run to its end.

The first trains on one worker, the second on two, the last in this process. Runs that are to be
stopped wait at their second step until they may go on, so that the tests do not depend on timing.
Then the other signals, each to a driver of its own.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import torch

from cmtscale.arch.variant import Variant
from cmtscale.cli.app import run as cli
from cmtscale.data.sources import open_source
from cmtscale.record.folder import CHECKPOINT, REQUEST
from cmtscale.record.holder import HOLDER
from cmtscale.record.result import RunResult
from cmtscale.search.candidates import grid
from cmtscale.search.executors import engine
from cmtscale.search.executors.base import Executor
from cmtscale.search.settings import Settings, read_settings
from cmtscale.search.training import STOP_SECONDS
from cmtscale.train.loop import train
from cmtscale.train.recipe import Run

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"
)
# Restores the handler of Ctrl-C: children of a background job start with SIGINT ignored.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from cmtscale.cli.app import main; main()"
)
TIMEOUT_SECONDS = 120.0
SEEDS = 2
BASE, DEPTH, WIDTH, RESOLUTION = (
    "d1.1.1.1-w4-r64",
    "d4.3.3.3-w4-r64",
    "d1.1.1.1-w6-r64",
    "d1.1.1.1-w4-r96",
)
INTERRUPTED = (f"{WIDTH}-2x64-s0",)  # after two runs have ended
KILLED = (f"{BASE}-2x64-s1", f"{DEPTH}-2x64-s1")  # after all runs of the first seed
# Loaded by every process of the driver: the named runs stop before they log their second step.
SITECUSTOMIZE = """
import importlib.util, os, sys, time

class Finder:
    def find_spec(self, name, path, target=None):
        if name != "cmtscale.train.run_log":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_wrap(module):
            execute(module)
            log = module.append_metrics

            def log_or_wait(folder, line):
                if folder.name in os.environ["CMTSCALE_TEST_WAITING"] and line["step"] > 1:
                    (folder / "waiting").touch()
                    while not (folder / "go").exists():
                        time.sleep(0.05)
                log(folder, line)

            module.append_metrics = log_or_wait

        spec.loader.exec_module = execute_and_wrap
        return spec

sys.meta_path.insert(0, Finder())
"""
Rows = dict[str, dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A stopped driver: exit code, output, recorded rows, and processes that outlived it."""

    code: int
    stderr: str
    rows: Rows
    survivors: list[int]


@dataclass(frozen=True, kw_only=True)
class StoppedTwice:
    interrupted: Stopped
    kept_step: int
    killed: Stopped
    exit_code: int
    rows: Rows
    uninterrupted: dict[str, RunResult]


def read_rows(folder: Path) -> Rows:
    path = folder / "trials.csv"
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}


def living_processes(mark: str) -> list[int]:
    """Processes with this text in their environment; zombies have none."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                pids.append(int(path.parent.name))
        except OSError:  # has ended, or belongs to another user
            continue
    return pids


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A search that goes on while its `waiting` runs are in the middle of their training."""

    pid: int
    errors: Path
    waiting: list[Path]

    def stop(self, number: int) -> None:
        """Send a signal as a terminal or Slurm does, to all processes; then the runs go on."""
        os.killpg(self.pid, number)
        assert wait_until(lambda: "stopping: " in self.errors.read_text(), TIMEOUT_SECONDS)
        for folder in self.waiting:
            (folder / "go").touch()

    def stop_twice(self) -> None:
        """Press Ctrl-C again while the runs do not go on."""
        os.killpg(self.pid, signal.SIGINT)
        assert wait_until(lambda: "stopping: " in self.errors.read_text(), TIMEOUT_SECONDS)
        os.killpg(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """As the kernel does where memory is short."""
        os.kill(self.pid, signal.SIGKILL)


def start_and_stop(
    arguments: list[str], folder: Path, stop: Callable[[Driver], None], waiting: tuple[str, ...]
) -> Stopped:
    """Start a search and stop it when the runs `waiting` are in the middle of their training."""
    mark = f"CMTSCALE_TEST={uuid4()}"
    name, value = mark.split("=")
    (folder.parent / "sitecustomize.py").write_text(SITECUSTOMIZE)
    output, errors = folder.parent / "stdout", folder.parent / "stderr"
    with output.open("w") as stdout, errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=stdout,
            stderr=stderr,
            env={
                **os.environ,
                name: value,
                "CMTSCALE_TEST_WAITING": " ".join(waiting),
                "PYTHONPATH": os.pathsep.join(
                    [str(folder.parent), os.environ.get("PYTHONPATH", "")]
                ),
            },
            start_new_session=True,  # so that a Ctrl-C reaches the workers too, as in a terminal
        )
    runs = [folder / "runs" / run_id for run_id in waiting]
    markers = [run / "waiting" for run in runs]
    try:
        wait_until(
            lambda: all(path.exists() for path in markers) or process.poll() is not None,
            TIMEOUT_SECONDS,
        )
        if not all(path.exists() for path in markers):
            process.kill()
            pytest.fail(f"the runs never reached the waiting point: {errors.read_text()}")
        stop(Driver(pid=process.pid, errors=errors, waiting=runs))
        process.wait(timeout=TIMEOUT_SECONDS)
        assert output.read_text() == ""
        wait_until(lambda: not living_processes(mark), 20)
        return Stopped(
            code=process.returncode,
            stderr=errors.read_text(),
            rows=read_rows(folder),
            survivors=living_processes(mark),
        )
    finally:
        for pid in living_processes(mark):
            os.kill(pid, signal.SIGKILL)


def command_of(folder: Path, tiny_base: Variant, cache_dir: Path) -> list[str]:
    """A search of four networks; the number of workers is to follow."""
    base = folder.with_suffix(".toml")
    base.write_text(tiny_base.to_toml())
    arguments = f"search --budget 1.22M --base {base} --no-proxy --out {folder} --seeds {SEEDS} "
    arguments += f"--trials 4 --epochs 2 --train-images 64 --batch-size 64 --cache-dir {cache_dir} "
    arguments += "--device cpu --workers"
    return arguments.split()


def train_each(settings: Settings, cache_dir: Path) -> Iterator[tuple[str, RunResult]]:
    """Train the first run of each candidate one after the other, without a search."""
    data = open_source("digits", cache_dir=cache_dir).pack(96).ref
    for candidate in grid(settings):
        run = Run(
            run_id=f"{candidate.name}-2x64-s0",
            variant=candidate.trained,
            recipe=settings.run_recipe(0),
            seed=0,
            data=data,
        )
        yield run.run_id, train(run, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Variant,
    cache_dir: Path,
    in_process_class: Callable[[], Executor],
) -> StoppedTwice:
    folder = tmp_path_factory.mktemp("interrupted") / "search"
    command = command_of(folder, tiny_base, cache_dir)
    interrupted = start_and_stop(
        [*command, "1"], folder, lambda driver: driver.stop(signal.SIGINT), INTERRUPTED
    )
    checkpoint = torch.load(folder / "runs" / INTERRUPTED[0] / CHECKPOINT, weights_only=True)
    killed = start_and_stop([*command, "2"], folder, Driver.kill, KILLED)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "LocalExecutor", lambda _, **__: in_process_class())
        exit_code = cli([*command, "1"])
    uninterrupted = dict(train_each(read_settings(folder / REQUEST), cache_dir))
    torch.set_num_threads(threads)
    return StoppedTwice(
        interrupted=interrupted,
        kept_step=checkpoint["step"],
        killed=killed,
        exit_code=exit_code,
        rows=read_rows(folder),
        uninterrupted=uninterrupted,
    )


def test_both_were_stopped_in_mid_run(searched: StoppedTwice) -> None:
    first_seed = [f"{name}-2x64-s0" for name in (BASE, DEPTH, WIDTH, RESOLUTION)]
    assert sorted(searched.interrupted.rows) == sorted(first_seed[:2])
    assert sorted(searched.killed.rows) == sorted(first_seed)
    assert len(searched.rows) == 8


def test_ctrl_c_is_one_line_and_exit_code_130(searched: StoppedTwice) -> None:
    assert searched.interrupted.code == 130
    assert (
        searched.interrupted.stderr.splitlines()[-1]
        == "cmtscale: stopped; the same command goes on"
    )
    assert "Traceback" not in searched.interrupted.stderr
    assert "KeyboardInterrupt" not in searched.interrupted.stderr


def test_a_run_that_goes_on_keeps_its_state_at_its_next_step(searched: StoppedTwice) -> None:
    assert searched.kept_step == 2


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGHUP"])
def test_other_signals_are_heard_as_ctrl_c_is(
    tmp_path: Path, tiny_base: Variant, cache_dir: Path, name: str
) -> None:
    number = getattr(signal, name)
    folder = tmp_path / "search"
    command = [*command_of(folder, tiny_base, cache_dir), "1"]
    stopped = start_and_stop(
        command, folder, lambda driver: driver.stop(number), (f"{BASE}-2x64-s0",)
    )
    assert stopped.code == 128 + number
    assert stopped.stderr.splitlines()[-1] == "cmtscale: stopped; the same command goes on"
    assert stopped.survivors == []
    assert stopped.rows == {}
    assert not (folder / HOLDER).exists()
    checkpoint = torch.load(folder / "runs" / f"{BASE}-2x64-s0" / CHECKPOINT, weights_only=True)
    assert checkpoint["step"] == 2


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, tiny_base: Variant, cache_dir: Path) -> None:
    folder = tmp_path / "search"
    command = [*command_of(folder, tiny_base, cache_dir), "1"]
    began = time.monotonic()
    stopped = start_and_stop(command, folder, Driver.stop_twice, (f"{BASE}-2x64-s0",))
    assert time.monotonic() - began < STOP_SECONDS
    assert stopped.code == 130
    assert stopped.stderr.splitlines()[-1] == "cmtscale: stopped; the same command goes on"
    assert "Traceback" not in stopped.stderr
    assert stopped.survivors == []


def test_no_worker_outlives_its_driver(searched: StoppedTwice) -> None:
    assert searched.interrupted.survivors == []
    assert searched.killed.code == -signal.SIGKILL
    assert searched.killed.survivors == []


def test_the_same_command_finishes_what_was_killed(searched: StoppedTwice) -> None:
    assert searched.exit_code == 0
    assert {row["status"] for row in searched.rows.values()} == {"complete"}
    assert sorted(searched.rows) == sorted(
        f"{name}-2x64-s{seed}" for name in (BASE, DEPTH, WIDTH, RESOLUTION) for seed in range(SEEDS)
    )


def test_finished_runs_are_not_repeated(searched: StoppedTwice) -> None:
    # a repeated run would have recorded another duration
    for stopped in (searched.interrupted, searched.killed):
        for run_id, row in stopped.rows.items():
            assert searched.rows[run_id] == row


def test_results_are_those_of_an_uninterrupted_search_to_the_bit(searched: StoppedTwice) -> None:
    assert len(searched.uninterrupted) == 4
    for run_id, result in searched.uninterrupted.items():
        for name in ("val_loss", "val_loss_raw", "val_accuracy", "train_loss"):
            assert searched.rows[run_id][name] == str(getattr(result, name)), (run_id, name)
