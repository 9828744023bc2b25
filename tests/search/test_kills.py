"""A driver that is killed at fifty moments, killed workers and jobs, full disks: nothing is lost.

Half of the moments are writes: the driver is killed before it opens, renames, removes or makes the
n-th file or folder of its results, n drawn anew each time. The other half are times. The same
command goes on after each, and once it ends its table is that of a search that nobody killed, to
the bit, but for how long runs took. What was killed and lost is printed (`pytest -s`).
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import torch

from cmtscale.arch.variant import Variant
from cmtscale.cli.app import run as cli
from cmtscale.record.folder import RESULT, RUNS, TRIALS
from cmtscale.record.row import Row, read_rows
from cmtscale.search.executors import engine
from cmtscale.search.executors.base import Executor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"
    ),
]
PROGRAM = "from cmtscale.cli.app import main; main()"
KILLS, WORKER_KILLS = 50, 6
FIRST_SECONDS, LAST_SECONDS = 2.0, 9.0  # of a session, in which its end is drawn
LAST_WRITE = 90
SESSION_SECONDS = 240.0
SLURM_KILLS, JOB_KILLS = 6, 6
SLURM_SECONDS = (4.0, 20.0)
FULL_DISKS, DISK_KB = 8, 16_000
# Loaded by every process of a search: the driver is killed before the write that is due, or from
# there on the disk of the driver, or of each worker, is full.
SITECUSTOMIZE = """
import errno, os, signal, sys

due, folder = int(os.environ["CMTSCALE_TEST_WRITE"]), os.environ["CMTSCALE_TEST_FOLDER"]
fault = os.environ["CMTSCALE_TEST_FAULT"]
is_driver = "multiprocessing" not in " ".join(sys.orig_argv)
done = 0

def count(event, arguments):
    global done
    if event not in ("open", "os.rename", "os.remove", "os.mkdir"):
        return
    if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if str(arguments[0]).startswith(folder):
        done += 1
        if fault == "kill" and done == due:
            os.kill(os.getpid(), signal.SIGKILL)
        if "full" in fault and done >= due and event in ("open", "os.mkdir"):
            raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))

if due and is_driver is not (fault == "worker full"):
    sys.addaudithook(count)
"""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A search of four networks with two seeds: its command, and its rows where nobody kills it."""

    command: Callable[[Path], list[str]]
    rows: dict[str, Row]


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Variant,
    cache_dir: Path,
    in_process_class: Callable[[], Executor],
) -> Searched:
    base = tmp_path_factory.mktemp("base") / "tiny.toml"
    base.write_text(tiny_base.to_toml())
    options = f"--budget 1.22M --base {base} --no-proxy --seeds 2 --trials 4 --epochs 2 "
    options += f"--train-images 128 --batch-size 32 --cache-dir {cache_dir} --device cpu"

    def command(folder: Path) -> list[str]:
        return f"search {options} --workers 2 --out {folder}".split()

    folder = tmp_path_factory.mktemp("whole") / "search"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "LocalExecutor", lambda *_, **__: in_process_class())
        assert cli(command(folder)) == 0
    torch.set_num_threads(threads)
    return Searched(command=command, rows={row.run_id: row for row in read_rows(folder / TRIALS)})


@dataclass(kw_only=True)
class Session:
    """A search's process, with all that it starts."""

    process: "subprocess.Popen[bytes]"
    mark: str
    errors: Path

    @classmethod
    def start(
        cls, command: list[str], folder: Path, *, write: int = 0, fault: str = "kill"
    ) -> "Session":
        """`write` is the number of the write at which `fault` happens; 0 for none."""
        name, value = "CMTSCALE_TEST", str(uuid4())
        (folder.parent / "sitecustomize.py").write_text(SITECUSTOMIZE)
        errors = folder.parent / "errors"
        path = os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")])
        counted = {
            "CMTSCALE_TEST_WRITE": str(write),
            "CMTSCALE_TEST_FAULT": fault,
            "CMTSCALE_TEST_FOLDER": str(folder),
        }
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *command],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **counted, name: value, "PYTHONPATH": path},
            )
        return cls(process=process, mark=f"{name}={value}", errors=errors)

    def wait(self, seconds: float) -> int | None:
        """Its exit code; None where it goes on."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_or_kill(self, seconds: float) -> int | None:
        """Its exit code; where it goes on, that of the kill."""
        code = self.wait(seconds)
        if code is None:
            self.process.kill()
            code = self.wait(SESSION_SECONDS)
        return code

    def wait_for_a_row(self, folder: Path) -> None:
        until = time.monotonic() + SESSION_SECONDS
        while not recorded(folder):
            assert time.monotonic() < until, self.errors.read_text()
            time.sleep(0.1)

    def processes(self) -> set[int]:
        """The living processes of it, by the mark in their environment; zombies have none."""
        pids = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    pids.add(int(path.parent.name))
            except OSError:  # has ended, or belongs to another user
                continue
        return pids

    def require_gone(self) -> None:
        """Nothing of it may live on for long."""
        until = time.monotonic() + 20.0
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert left == set()


def recorded(folder: Path) -> dict[str, Row]:
    path = folder / TRIALS
    return {row.run_id: row for row in read_rows(path)} if path.exists() else {}


def finished_seconds(folder: Path) -> dict[str, float]:
    """How long the runs took that have ended, be they recorded or not."""
    results = (folder / RUNS).glob(f"*/{RESULT}")
    return {path.parent.name: json.loads(path.read_text())["seconds"] for path in results}


def require_kept(before: dict[str, float], folder: Path) -> None:
    """The runs that had ended have not run again: they would have taken another time."""
    now = finished_seconds(folder)
    assert {name: now.get(name) for name in before} == before
    rows = recorded(folder)
    assert all(round(now[name], 3) == row.seconds for name, row in rows.items())


def require_whole(folder: Path, searched: Searched) -> None:
    """The table is that of the search that nobody killed, and nothing half written is left."""
    rows = recorded(folder)
    assert {name: row.outcome for name, row in rows.items()} == {
        name: row.outcome for name, row in searched.rows.items()
    }
    hidden = {path.name for path in folder.rglob(".*")}
    assert hidden <= {".lock"}


def test_a_driver_that_is_killed_at_fifty_moments_loses_nothing_and_repeats_nothing(
    searched: Searched, tmp_path: Path
) -> None:
    draw = random.Random(0)
    kills = searches = 0
    while kills < KILLS:
        folder = tmp_path / str(searches) / "search"
        folder.parent.mkdir()
        code: int | None = None
        while code != 0:
            before = finished_seconds(folder)
            by_write = kills % 2 == 0 and kills < KILLS
            write = draw.randint(1, LAST_WRITE) if by_write else 0
            session = Session.start(searched.command(folder), folder, write=write)
            seconds = draw.uniform(FIRST_SECONDS, LAST_SECONDS)
            code = session.wait_or_kill(SESSION_SECONDS if by_write or kills >= KILLS else seconds)
            session.require_gone()
            require_kept(before, folder)
            assert code in (0, -signal.SIGKILL), session.errors.read_text()
            kills += code != 0
            moment = f"write {write}" if by_write else f"{seconds:.1f} s"
            print(f"search {searches}, kill {kills} at {moment}: {len(recorded(folder))} runs")
        require_whole(folder, searched)
        searches += 1


@pytest.mark.parametrize(("fault", "last_write"), [("driver full", 90), ("worker full", 40)])
def test_a_disk_that_is_full_from_some_write_on_is_one_line_and_nothing_is_lost(
    searched: Searched, tmp_path: Path, fault: str, last_write: int
) -> None:
    draw = random.Random(2)
    times = searches = 0
    while times < FULL_DISKS:
        folder = tmp_path / str(searches) / "search"
        folder.parent.mkdir()
        code: int | None = None
        while code != 0:
            before = finished_seconds(folder)
            write = draw.randint(1, last_write) if times < FULL_DISKS else 0
            session = Session.start(searched.command(folder), folder, write=write, fault=fault)
            code = session.wait(SESSION_SECONDS)
            session.require_gone()
            require_kept(before, folder)
            errors = session.errors.read_text()
            assert code in (0, 1), errors
            if code:
                assert errors.splitlines()[-1].startswith("cmtscale: the disk is full"), errors
                assert "Traceback" not in errors
                times += 1
            print(f"search {searches}, {times} times full from write {write} on: exit code {code}")
        require_whole(folder, searched)
        searches += 1


def test_files_that_may_not_grow_are_one_line_and_nothing_is_lost(
    searched: Searched, tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    for limit in (20_000, 100_000):
        before = finished_seconds(folder)
        with limited_files(limit):
            session = Session.start(searched.command(folder), folder)
        assert session.wait(SESSION_SECONDS) == 1, session.errors.read_text()
        session.require_gone()
        require_kept(before, folder)
        assert "may not grow that large here" in session.errors.read_text().splitlines()[-1]
    session = Session.start(searched.command(folder), folder)
    assert session.wait(SESSION_SECONDS) == 0, session.errors.read_text()
    require_whole(folder, searched)


@contextmanager
def limited_files(most_bytes: int) -> Iterator[None]:
    """What is started meanwhile writes no file that is larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")
def test_a_small_disk_that_fills_up_is_one_line_and_nothing_is_lost(
    searched: Searched, tmp_path: Path
) -> None:
    draw = random.Random(3)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no disk can be mounted here")
    try:
        folder, filler = disk / "search", disk / "filler"
        codes: list[int | None] = []
        while not codes or codes[-1] != 0:
            assert len(codes) < 2 * FULL_DISKS
            before = finished_seconds(folder)
            filler.unlink(missing_ok=True)
            if len(codes) < FULL_DISKS:
                status = os.statvfs(disk)
                free = status.f_bavail * status.f_frsize
                filler.write_bytes(bytes(max(0, free - 1000 * draw.randint(4, 6000))))
            session = Session.start(searched.command(folder), tmp_path / "none")
            codes.append(session.wait(SESSION_SECONDS))
            session.require_gone()
            require_kept(before, folder)
            errors = session.errors.read_text()
            assert codes[-1] in (0, 1), errors
            assert "Traceback" not in errors
            if codes[-1]:
                assert "the disk is full" in errors.splitlines()[-1], errors
            print(f"exit code {codes[-1]}, {len(recorded(folder))} runs")
        assert codes.count(1) > 1
        require_whole(folder, searched)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_workers_that_are_killed_cost_their_own_run_a_part(
    searched: Searched, tmp_path: Path
) -> None:
    draw = random.Random(1)
    folder = tmp_path / "search"
    kills = sessions = 0
    while not recorded(folder) or has_failed(folder):
        sessions += 1
        assert sessions < WORKER_KILLS + 3
        session = Session.start(searched.command(folder), folder)
        while session.wait(draw.uniform(1.0, 3.0)) is None:
            workers = sorted(pid for pid in session.processes() if is_worker(pid))
            if workers and kills < WORKER_KILLS:
                os.kill(draw.choice(workers), signal.SIGKILL)
                kills += 1
        session.require_gone()
        assert session.process.returncode in (0, 1), session.errors.read_text()
    print(f"{kills} workers killed in {sessions} sessions")
    assert kills
    require_whole(folder, searched)


def test_a_ray_cluster_that_is_killed_leaves_nothing_behind_and_costs_no_finished_run(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="cmtscale[ray] is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_process_group_cleanup_enabled", "0")  # of this process's own group
    from ray.cluster_utils import Cluster

    mark = f"cluster-{uuid4()}"  # in the environment of all processes of the cluster
    monkeypatch.setenv("CMTSCALE_TEST_CLUSTER", mark)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0})
    folder = tmp_path / "search"
    session = Session.start(
        [*searched.command(folder), "--engine", "ray", "--address", cluster.address], folder
    )
    session.wait_for_a_row(folder)
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    before = finished_seconds(folder)
    assert session.wait(SESSION_SECONDS) not in (0, None)  # Ray ends it, after a minute
    print(f"{len(before)} runs had ended when the cluster was killed")
    session.require_gone()
    Session(process=session.process, mark=mark, errors=session.errors).require_gone()
    session = Session.start(searched.command(folder), folder)
    assert session.wait(SESSION_SECONDS) == 0, session.errors.read_text()
    require_kept(before, folder)
    require_whole(folder, searched)


@pytest.fixture
def slurm_of_tests(slurm: None) -> None:  # noqa: ARG001
    """Skips on a Slurm whose jobs may be somebody's."""
    shown = subprocess.run(
        ["scontrol", "show", "config"], capture_output=True, text=True, check=True
    )
    if "= cmtscale_tests\n" not in shown.stdout:
        pytest.skip("this Slurm is not of executors/one_node_slurm.sh")


@pytest.mark.usefixtures("slurm_of_tests")
def test_drivers_on_slurm_that_are_killed_leave_no_job_and_repeat_nothing(
    searched: Searched, tmp_path: Path
) -> None:
    draw = random.Random(4)
    sessions: list[Session] = []
    kills = searches = 0
    while kills < SLURM_KILLS:
        folder = tmp_path / str(searches) / "search"
        folder.parent.mkdir()
        code: int | None = None
        while code != 0:
            before = finished_seconds(folder)
            sessions.append(Session.start(on_slurm(searched, folder), folder))
            seconds = draw.uniform(*SLURM_SECONDS) if kills < SLURM_KILLS else SESSION_SECONDS
            code = sessions[-1].wait_or_kill(seconds)
            require_kept(before, folder)
            assert code in (0, -signal.SIGKILL), sessions[-1].errors.read_text()
            kills += code != 0
            moment = f"{seconds:.1f} s: {len(recorded(folder))} runs, jobs {jobs()}"
            print(f"search {searches}, kill {kills} at {moment}")
        require_no_jobs()
        require_whole(folder, searched)
        searches += 1
    for session in sessions:
        session.require_gone()


@pytest.mark.usefixtures("slurm_of_tests")
def test_slurm_jobs_that_are_killed_cost_their_own_run_a_part(
    searched: Searched, tmp_path: Path
) -> None:
    draw = random.Random(5)
    ends = [["scancel"], ["scancel", "--signal=KILL"], ["scontrol", "requeue"]]
    kills = searches = 0
    while kills < JOB_KILLS:
        folder = tmp_path / str(searches) / "search"
        folder.parent.mkdir()
        sessions = 0
        while not recorded(folder) or has_failed(folder):
            sessions += 1
            assert sessions < JOB_KILLS
            session = Session.start(on_slurm(searched, folder), folder)
            while session.wait(draw.uniform(2.0, 6.0)) is None:
                running = sorted(job for job, state in jobs().items() if state == "RUNNING")
                if running and kills < JOB_KILLS:
                    end = [*ends[kills % len(ends)], draw.choice(running)]
                    kills += subprocess.run(end, check=False).returncode == 0
            session.require_gone()
            assert session.process.returncode in (0, 1), session.errors.read_text()
            require_no_jobs()
        require_whole(folder, searched)
        searches += 1
        print(f"search {searches}, {kills} jobs ended, {sessions} sessions")


@pytest.mark.usefixtures("slurm_of_tests")
def test_a_search_waits_for_a_controller_of_slurms_that_restarts(
    searched: Searched, tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    session = Session.start(on_slurm(searched, folder), folder)
    session.wait_for_a_row(folder)
    subprocess.run(["pkill", "-x", "slurmctld"], check=True)
    before = finished_seconds(folder)
    try:
        assert session.wait(15.0) is None, session.errors.read_text()
        assert len(recorded(folder)) < len(searched.rows)
    finally:
        subprocess.run(["slurmctld"], check=True)
    assert session.wait(SESSION_SECONDS) == 0, session.errors.read_text()
    assert "Unable to contact slurm controller" in session.errors.read_text()
    session.require_gone()
    require_kept(before, folder)
    require_whole(folder, searched)


def on_slurm(searched: Searched, folder: Path) -> list[str]:
    return [*searched.command(folder), "--engine", "slurm", "--slurm", "gpus=0,cpus=1,time=20:00"]


def has_failed(folder: Path) -> bool:
    return any(row.status == "failed" for row in recorded(folder).values())


def require_no_jobs() -> None:
    """What has just ended leaves Slurm's queue in a moment."""
    until = time.monotonic() + 20.0
    while jobs() and time.monotonic() < until:
        time.sleep(0.2)
    assert jobs() == {}


def jobs() -> dict[str, str]:
    """The user's jobs that Slurm holds, with their states."""
    squeue = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    listed = subprocess.run(squeue, check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in listed.splitlines())


def is_worker(pid: int) -> bool:
    """Whether it carries out jobs; Python starts a process that looks after others, too."""
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
