"""What Slurm is asked for, and jobs that it warns, preempts, refuses or kills."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cmtscale.arch.errors import RequestError, TrainingError
from cmtscale.cli.app import run as cli
from cmtscale.search.executors import private, slurm
from cmtscale.search.executors.base import Failure, carry_out_all
from cmtscale.search.executors.slurm import SlurmExecutor
from cmtscale.search.executors.slurm_jobs import SlurmJobs, read_slurm

submitit = pytest.importorskip("submitit", reason="cmtscale[slurm] is not installed")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[SlurmExecutor]:
    """One job at a time in processes of submitit's on this machine."""
    jobs = SlurmJobs(gpus=0, at_a_time=1, minutes=5)
    with SlurmExecutor(jobs, cache_dir=tmp_path / "cache", cluster="local") as executor:
        yield executor


def jobs_of(text: str = "gpus=1", **changes: Any) -> SlurmJobs:
    request = {"device": "auto", "workers": None, "share": 1, **changes}
    return SlurmJobs.of(read_slurm(text), **request)


def test_jobs_become_one_array_of_packed_elements(
    on_path: Callable[[str, str], None], jobs: Any, tmp_path: Path
) -> None:
    on_path("srun", "exit 1")
    state = tmp_path / "state"
    state.write_text("JobID|State\n7_0|RUNNING\n7_1|RUNNING\n")
    on_path("scancel", f'sed -i "s/^$1|RUNNING/$1|CANCELLED/" {state}')
    on_path("sacct", f"cat {state}")
    on_path("sbatch", f"cp $1 {tmp_path}/submitted; echo Submitted batch job 7")
    options = "partition=gpu,gpus=1,cpus=4,time=2:00:00,mem=16G"
    asked = jobs_of(options, workers=6, share=2)
    assert (asked.at_a_time, asked.size) == (3, 2)
    with SlurmExecutor(asked, cache_dir=tmp_path / "cache") as executor:
        assert executor.devices == ("cuda:0", "cuda:0", "cuda:1", "cuda:1", "cuda:2", "cuda:2")
        for number in range(4):
            executor.submit(jobs.Doubles(number))
        assert not (tmp_path / "submitted").exists()  # all that is submitted goes together
        assert list(executor.results(0.01)) == []
        assert executor.free_slots == 2
        (folder,) = (tmp_path / "cache" / "slurm").glob("[0-9]*")
        text = (tmp_path / "submitted").read_text()
    assert state.read_text().count("CANCELLED") == 2
    parameters = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert parameters == [
        "#SBATCH --array=0-1%2",
        "#SBATCH --cpus-per-task=4",
        f"#SBATCH --error={folder}/%A_%a_0_log.err",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --job-name=cmtscale",
        "#SBATCH --mem=16G",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={folder}/%A_%a_0_log.out",
        "#SBATCH --partition=gpu",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=120",
        "#SBATCH --wckey=submitit",
    ]
    assert f"-m submitit.core._submit {folder}" in text


def test_what_slurm_refuses_is_an_error_at_once(
    on_path: Callable[[str, str], None], jobs: Any, tmp_path: Path
) -> None:
    on_path("srun", "exit 1")
    on_path("sbatch", "echo 'sbatch: error: invalid partition specified: gqu' >&2; exit 1")
    with SlurmExecutor(jobs_of("partition=gqu"), cache_dir=tmp_path) as executor:
        executor.submit(jobs.Doubles(1))
        with pytest.raises(RequestError, match=r"Slurm refuses.*partition specified: gqu.*--slurm"):
            list(executor.results(0.01))
        assert executor.running() == []
    assert list((tmp_path / "slurm").glob("[0-9]*")) == []


def test_what_waits_is_submitted_once_slurm_can_be_reached_again(
    on_path: Callable[[str, str], None],
    jobs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    state = tmp_path / "state"
    state.write_text("JobID|State\n7001|FAILED\n7002|PENDING\n")
    on_path("srun", "exit 1")
    on_path("sacct", f"cat {state}")
    on_path("squeue", "true")
    on_path("scancel", f"sed -i s/PENDING/CANCELLED/ {state}")
    words = "Batch job submission failed: Unable to contact slurm controller (connect failure)"
    refuses = f"(echo 'sbatch: account x'; echo 'sbatch: error: {words}') >&2; exit 1"
    unreachable = r"Slurm cannot be reached \(sbatch.*contact slurm.*; the same command goes on"
    on_path("sbatch", refuses)
    with SlurmExecutor(jobs_of("gpus=0"), cache_dir=tmp_path) as executor:
        executor.submit(jobs.Doubles(1))
        with pytest.raises(TrainingError, match=unreachable):  # at the start that is the end
            list(executor.results(0.01))
        on_path("sbatch", "echo Submitted batch job 7001")
        executor.submit(jobs.Doubles(1))
        ((_, outcome),) = carry_out_all(executor, iter([]))
        assert "state FAILED" in outcome.cause
        on_path("sbatch", refuses)
        executor.submit(jobs.Doubles(2))
        assert list(executor.results(0.01)) == []
        assert executor.running() == [jobs.Doubles(2)]
        assert not list(tmp_path.rglob("wanted-*"))  # if it was accepted, it ends at once
        on_path("sbatch", f"touch {tmp_path}/submitted; echo Submitted batch job 7002")
        assert list(executor.results(0.01)) == []
        assert (tmp_path / "submitted").exists()
        on_path("sbatch", refuses)
        monkeypatch.setattr(slurm, "LASTING_SECONDS", -1.0)
        executor.submit(jobs.Doubles(3))
        with pytest.raises(TrainingError, match=unreachable):
            list(executor.results(0.01))


def test_a_result_of_another_job_with_the_same_id_is_not_taken(
    here: SlurmExecutor, jobs: Any, tmp_path: Path
) -> None:
    here.submit(jobs.Doubles(1))
    assert list(here.results(0.0)) == []
    (group,) = here._groups
    group.wanted.unlink()
    group.wanted = tmp_path / "wanted-another"  # as if Slurm had forgotten its job
    ((job, outcome),) = carry_out_all(here, iter([]))
    assert job == jobs.Doubles(1)
    assert isinstance(outcome, Failure)
    assert f"does not know its job {group.handle.job_id} any more" in outcome.cause


def test_a_job_that_is_queued_again_once_it_has_ended_is_cancelled_at_the_end(
    on_path: Callable[[str, str], None],
    jobs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)
    on_path("srun", "exit 1")
    on_path("sbatch", "echo Submitted batch job 7003")
    on_path("sacct", "printf 'JobID|State\n7003|FAILED\n'")
    here = f"$(echo {tmp_path}/slurm/[0-9]*)"
    on_path("squeue", f"echo 7003 {here}/submission.sh; echo 6999 {tmp_path}/another.sh")
    on_path("scancel", f"echo $* >> {tmp_path}/asked")
    with SlurmExecutor(jobs_of("gpus=0"), cache_dir=tmp_path) as executor:
        executor.submit(jobs.Doubles(1))
        ((_, outcome),) = executor.results(10.0)
        assert "state FAILED" in outcome.cause
    assert (tmp_path / "asked").read_text() == "--name=cmtscale --state=PENDING 7003\n"


def test_without_slurm_the_error_says_where_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = f"search --budget 4G --engine slurm --out {out} --cache-dir {cache}"
    assert cli(command.split()) == 2
    assert "no srun" in capsys.readouterr().err
    assert not out.exists()
    assert list((cache / "slurm").glob("[0-9]*")) == []


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_job_that_slurm_warns_or_preempts_is_queued_again_and_goes_on(
    here: SlurmExecutor, jobs: Any, number: int, tmp_path: Path
) -> None:
    job = jobs.SignalsItsParent(int(number), tmp_path / "mark")
    assert list(carry_out_all(here, iter([job]))) == [(job, "carried out again")]


def test_a_slurm_job_that_is_killed_is_a_failure_that_names_its_log(
    here: SlurmExecutor, jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)  # for slow file servers
    job = jobs.SignalsItsParent(int(signal.SIGKILL), tmp_path / "mark")
    ((_, result),) = carry_out_all(here, iter([job]))
    assert isinstance(result, Failure)
    assert "ended without a result (state FINISHED)" in result.cause
    log = Path(result.cause.rpartition("its log is ")[2])
    here.__exit__()
    assert log.exists()


@pytest.mark.parametrize(
    ("time_asked", "minutes"),
    [
        ("90", 90),
        ("2:00:00", 120),
        ("30:30", 31),
        ("1-12", 2160),
        ("1-0:30", 1470),
        ("1-1:2:3", 1503),
    ],
)
def test_times_are_read_as_slurm_reads_them(time_asked: str, minutes: int) -> None:
    assert jobs_of(f"time={time_asked}").minutes == minutes


def test_of_the_options_only_counts_become_numbers() -> None:
    asked = read_slurm("gpus=2,cpus=08,account=0042,mem=16000")
    assert asked == {"gpus": 2, "cpus": 8, "account": "0042", "mem": "16000"}


def test_workers_are_the_runs_of_all_slurm_jobs() -> None:
    asked = jobs_of("gpus=0,cpus=4", workers=8)
    assert (asked.at_a_time, len(asked.slots)) == (2, 8)
    assert len(jobs_of("gpus=1,cpus=4", workers=3).slots) == 3  # the cores are of the one GPU


def test_options_of_a_file_are_those_of_text_with_lists(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('gres = "gpu:a100:2"\ngpus = 2\nsetup = ["module load cuda"]\n')
    asked = jobs_of(str(path))
    assert asked.devices == ("cuda:0", "cuda:1")
    assert asked.parameters()["slurm_setup"] == ["module load cuda"]
    assert asked.parameters()["slurm_additional_parameters"] == {"gres": "gpu:a100:2"}
    assert "gpus_per_node" not in asked.parameters()


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("partition", {}, "'partition' is not an option with a value; write partition=gpu"),
        ("none.toml", {}, "none.toml does not exist"),
        ("gpus=two", {}, "gpus of --slurm 'two' is not a whole number"),
        ("cpus=0", {}, "cpus of --slurm 0 is not a whole number from 1 on"),
        ("time=soon", {}, "time 'soon' of --slurm is no time"),
        ("time=0", {}, "under a minute"),
        ("nodes=2", {}, "nodes of --slurm cannot be set"),
        ("gpus=1", {"device": "cpu"}, "device cpu and gpus=1 of --slurm contradict"),
        ("gpus=0", {"device": "cuda"}, "device cuda and gpus=0 of --slurm contradict"),
        ("gpus=1", {"device": "cuda:3"}, "use auto, cpu or cuda"),
        ("gpus=0,cpus=4", {"workers": 6}, "workers 6 is not a multiple of the 4 runs.*; use 8"),
        ("gpus=2", {"workers": 1}, "workers 1 is not a multiple of the 2 runs.*; use 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    text: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        jobs_of(text, **changes)


def test_a_preempted_job_that_is_not_queued_again_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Handle:
        state = "PREEMPTED"

        def done(self, *, force_check: bool) -> bool:  # noqa: ARG002
            return False

    handle = Handle()
    group = slurm._Submitted(handle=handle, jobs=(), wanted=Path("wanted"))
    assert not group.has_ended()
    now[0] += slurm.PREEMPTED_SECONDS + 1
    handle.state = "PENDING"
    assert not group.has_ended()
    handle.state = "PREEMPTED"
    assert not group.has_ended()
    now[0] += slurm.PREEMPTED_SECONDS + 1
    assert group.has_ended()


def test_a_preempted_job_that_has_ended_is_a_failure_without_waiting(here: SlurmExecutor) -> None:
    def wait() -> None:
        raise AssertionError("submitit waits here until the job is queued again")

    handle = SimpleNamespace(
        done=lambda: False,
        exception=wait,
        result=wait,
        state="PREEMPTED",
        stderr=lambda: "",
        job_id="7",
        paths=SimpleNamespace(stderr="7.err"),
    )
    jobs: Any = ("one", "two")
    group = slurm._Submitted(handle=handle, jobs=jobs, wanted=here._wanted_file())
    causes = [outcome.cause for outcome in map(slurm.raise_if_all_stops, here._outcomes(group))]
    assert len(causes) == 2
    assert "Slurm job 7 ended without a result (state PREEMPTED)" in causes[0]
    assert not group.wanted.exists()


def test_groups_leave_no_file_open(here: SlurmExecutor) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    wanted = {here._wanted_file() for _ in range(20)}
    assert len(wanted) == 20
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_what_is_unpickled_lies_where_nobody_else_can_write(tmp_path: Path) -> None:
    jobs = SlurmJobs(gpus=0, at_a_time=1, minutes=5)
    with SlurmExecutor(jobs, cache_dir=tmp_path, cluster="local"):
        assert (tmp_path / "slurm").stat().st_mode & 0o777 == 0o700
    (tmp_path / "slurm").chmod(0o770)
    with pytest.raises(RequestError, match="use a --cache-dir of your own"):
        SlurmExecutor(jobs, cache_dir=tmp_path, cluster="local")
    (tmp_path / "slurm").rename(tmp_path / "elsewhere")
    (tmp_path / "slurm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match="is not yours alone"):
        SlurmExecutor(jobs, cache_dir=tmp_path, cluster="local")
    (tmp_path / "slurm").unlink()
    tmp_path.chmod(0o777)
    with pytest.raises(RequestError, match=rf"others can write to {tmp_path}, and so replace"):
        SlurmExecutor(jobs, cache_dir=tmp_path / "below", cluster="local")
    tmp_path.chmod(0o1777)  # as /tmp: nobody else can rename what is ours
    with SlurmExecutor(jobs, cache_dir=tmp_path / "below", cluster="local"):
        pass


def test_a_group_that_only_the_user_is_in_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(st_mode=0o040775, st_gid=os.getgid())
    monkeypatch.setattr(private, "_is_named_after_user", lambda _: True)
    assert not private._may_be_changed_by_others(status)
    monkeypatch.setattr(private, "_is_named_after_user", lambda _: False)
    assert private._may_be_changed_by_others(status)


def test_what_an_interrupted_sbatch_may_have_accepted_is_not_wanted(
    here: SlurmExecutor, jobs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(groups: list[Any]) -> None:
        assert all(group.wanted.exists() for group in groups)
        raise KeyboardInterrupt

    monkeypatch.setattr(here._submitit, "submit_array", interrupted)
    here.submit(jobs.Doubles(1))
    with pytest.raises(KeyboardInterrupt):
        list(here.results(0.01))
    assert list((tmp_path / "cache" / "slurm").rglob("wanted-*")) == []
    assert here.running() == []
