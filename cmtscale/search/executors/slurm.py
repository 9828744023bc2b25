"""Jobs in Slurm's, through submitit: arrays whose elements each carry out one job or a few.

The driver needs no GPU: it waits on a login node. Results, and what the elements write, go through
the folder of results and the cache, which all nodes must see.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import CmtscaleError, RequestError, TrainingError
from cmtscale.data.cache import ALIVE, default_cache_dir
from cmtscale.search.executors.base import HANG_SECONDS, Job, Stopped
from cmtscale.search.executors.left_over import WANTED, write_note
from cmtscale.search.executors.outcome import failure, raise_if_all_stops
from cmtscale.search.executors.private import private_folder
from cmtscale.search.executors.slurm_group import Group
from cmtscale.search.executors.slurm_jobs import SlurmJobs
from cmtscale.search.executors.slurm_queue import (
    LASTING_SECONDS,
    UNREACHABLE,
    Queue,
    array_ids,
    cancel_pending,
    submitted_from,
)
from cmtscale.search.jobs import ReadTestSplit, TrainRun

REQUEUES = 20  # of a job at its time limit: it goes on from its checkpoint each time
LOOK_SECONDS = 0.2  # how often the driver looks for results
QUEUE_SECONDS = 15.0  # between two questions whether jobs can start, or two tries to submit some
PREEMPTED_SECONDS = 120.0  # in which Slurm has queued a preempted job again, or has cancelled it
# That cancelled jobs get to end in: Slurm kills what is left after its KillWait (30 s, unless it is
# set otherwise). A job needs less (see slurm_group.py); one that takes longer stays in the notes.
CANCEL_SECONDS = 30.0


class SlurmExecutor(AbstractContextManager["SlurmExecutor"]):
    """One Slurm job for each device, or for a few jobs that share it; see `SlurmJobs`.

    What is submitted between two looks at results is one job array. `cluster` is submitit's name
    for where: `slurm`, or here `local`, in processes, and `debug`, in this one. Submissions and
    logs are kept in the cache, and stay there where a Slurm job has ended without a result.
    """

    def __init__(
        self,
        jobs: SlurmJobs,
        *,
        cache_dir: Path | None = None,
        run_timeout_seconds: int | None = None,
        hang_seconds: int = HANG_SECONDS,
        cluster: str = "slurm",
    ) -> None:
        self._jobs = jobs
        self._run_timeout_seconds = run_timeout_seconds
        self._hang_seconds = hang_seconds
        submissions = private_folder((cache_dir or default_cache_dir()).absolute() / "slurm")
        self._folder = Path(tempfile.mkdtemp(prefix=time.strftime("%m%d-%H%M-"), dir=submissions))
        self._alive = self._folder / ALIVE
        self._alive.touch()
        try:
            self._submitit = _submitit_executor(self._folder, jobs, cluster)
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        self._waiting: list[Job] = []
        self._groups: list[_Submitted] = []
        self._ending: list[Any] = []  # handles of cancelled jobs that have not ended
        self._notes: dict[Path, Path] = {}  # by the folder of runs that it lies in
        self._queue = Queue()
        self._keeps_logs = False
        self._has_submitted = self._has_begun = False
        self._is_stopping = False
        self._is_slurm = cluster == "slurm"
        self._asked_at = time.monotonic()
        self._unreachable_since: float | None = None
        self._next_try_at = 0.0  # of submitting what waits

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._alive.unlink(missing_ok=True)
        if not self._keeps_logs:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def devices(self) -> tuple[str, ...]:
        return self._jobs.slots

    @property
    def free_slots(self) -> int:
        free = self._jobs.at_a_time - len(self._groups)
        return free * self._jobs.size - len(self._waiting)

    @property
    def most_shared(self) -> int:
        return 1

    def share(self, runs: int) -> None:
        assert runs == 1

    def submit(self, job: Job) -> None:
        assert self.free_slots
        assert not self._is_stopping
        self._waiting.append(job)

    def running(self) -> list[Job]:
        return [*(job for group in self._groups for job in group.jobs), *self._waiting]

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        if self._is_stopping:
            waiting, self._waiting = self._waiting, []
            yield from ((job, Stopped()) for job in waiting)
        self._submit_waiting()
        until = time.monotonic() + timeout_seconds
        while True:
            self._alive.touch()  # seen by the Slurm jobs: the driver lives
            ended = [group for group in self._groups if group.has_ended()]
            if ended or time.monotonic() > until:
                break
            self._ask_queue()
            time.sleep(LOOK_SECONDS)
        self._has_begun |= bool(ended)
        self._groups = [group for group in self._groups if group not in ended]
        for group in ended:
            for job, outcome in zip(group.jobs, self._outcomes(group), strict=True):
                yield job, raise_if_all_stops(outcome)

    def stop(self) -> None:
        self._is_stopping = True
        for group in self._groups:
            group.wanted.unlink(missing_ok=True)
        if self._is_slurm:
            cancel_pending(group.handle.job_id for group in self._groups)

    def cancel(self) -> None:
        """End all Slurm jobs, and wait until they have ended, or half a minute."""
        self._is_stopping = False
        self._waiting.clear()
        for group in self._groups:
            group.wanted.unlink(missing_ok=True)
            group.handle.cancel(check=False)
        until = time.monotonic() + (CANCEL_SECONDS if self._groups else 0.0)
        self._ending += [group.handle for group in self._groups]
        self._groups.clear()
        while self._has_ending() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        self._unreachable_since = None
        if self._take_strays_out() and not self._ending:
            self._forget_notes()

    def _take_strays_out(self) -> bool:
        """Cancel what waits in Slurm's queue and is of no group; False where Slurm does not say.

        sbatch may fail after Slurm has accepted its jobs, and a job may be queued again when its
        result is there. Such a job that runs ends by itself: nothing of it is wanted.
        """
        if not self._is_slurm or not self._has_submitted:
            return True
        queued = submitted_from(self._folder)
        if queued is None:
            return False
        cancel_pending(queued - array_ids(group.handle.job_id for group in self._groups))
        return True

    def _has_ending(self) -> bool:
        self._ending = [handle for handle in self._ending if not _has_ended(handle)]
        return bool(self._ending)

    def _submit_waiting(self) -> None:
        """Submit what waits as one array, each element with an equal part of it."""
        if not self._waiting or time.monotonic() < self._next_try_at:
            return
        count = -(-len(self._waiting) // self._jobs.size)
        parts = [self._waiting[start::count] for start in range(count)]
        groups = [
            Group(
                jobs=tuple(part),
                devices=self._jobs.devices[: len(part)],
                run_timeout_seconds=self._run_timeout_seconds,
                hang_seconds=self._hang_seconds,
                wanted=self._wanted_file(),
            )
            for part in parts
        ]
        from submitit.helpers import clean_env

        self._take_note()
        if self._unreachable_since is not None:
            self._take_strays_out()
        self._has_submitted = True
        try:
            with clean_env():  # the driver may be a Slurm job itself
                handles = self._submitit.submit_array(groups)
            self._groups += [
                _Submitted(handle=handle, jobs=group.jobs, wanted=group.wanted)
                for handle, group in zip(handles, groups, strict=True)
            ]
        except BaseException as error:
            for group in groups:  # sbatch may have accepted what has no handle: that ends soon
                group.wanted.unlink(missing_ok=True)
            if isinstance(error, Exception) and self._may_be_back(error):
                return
            self._waiting.clear()
            if isinstance(error, Exception):  # sbatch's words, in a type of submitit's
                raise self._refused(_words_of_sbatch(error)) from error
            raise
        self._waiting.clear()
        self._unreachable_since = None
        self._take_note()

    def _may_be_back(self, error: Exception) -> bool:
        """Whether Slurm cannot be reached since a short time: what waits is submitted later.

        Its controller may restart in mid-search. At the start it is rather not there.
        """
        if not self._has_begun or not UNREACHABLE.search(str(error)):
            return False
        now = time.monotonic()
        self._next_try_at = now + QUEUE_SECONDS
        self._unreachable_since = self._unreachable_since or now
        return now - self._unreachable_since < LASTING_SECONDS

    def _take_note(self) -> None:
        """Tell the folders of results which Slurm jobs work there, before and after it is so.

        Jobs that take times name no folder, so before the first run of a folder they leave no note:
        they write nothing, and end when no driver looks for them any more.
        """
        jobs = [job for job in self.running() if isinstance(job, TrainRun | ReadTestSplit)]
        handles = [*(group.handle for group in self._groups), *self._ending]
        job_ids = [handle.job_id for handle in handles if self._is_slurm]
        for runs in {*self._notes, *(job.folder.parent for job in jobs)}:
            self._notes[runs] = write_note(runs, self._folder, job_ids)

    def _forget_notes(self) -> None:
        for path in self._notes.values():
            path.unlink(missing_ok=True)
        self._notes.clear()

    def _wanted_file(self) -> Path:
        descriptor, path = tempfile.mkstemp(prefix=WANTED, dir=self._folder)
        os.close(descriptor)
        return Path(path)

    def _ask_queue(self) -> None:
        """From time to time: note what Slurm has lost, and raise for what never starts."""
        now = time.monotonic()
        if self._is_slurm and self._groups and now - self._asked_at > QUEUE_SECONDS:
            self._asked_at = now
            job_ids = [group.handle.job_id for group in self._groups]
            missing = self._queue.missing(job_ids)
            for group in self._groups:
                if group.handle.job_id in missing:
                    group.is_lost = not group.has_ended(ask=True)
            why = self._queue.hopeless(job_ids)
            if why is not None:
                raise self._refused(why)

    def _refused(self, words: str) -> CmtscaleError:
        if UNREACHABLE.search(words):
            return TrainingError(
                f"Slurm cannot be reached ({words}); the same command goes on once sinfo answers"
            )
        kind = TrainingError if self._has_begun else RequestError
        return kind(f"Slurm refuses the jobs ({words}); change --slurm")

    def _outcomes(self, group: "_Submitted") -> list[Any]:
        group.wanted.unlink(missing_ok=True)
        # of a preempted job that has not been queued again, submitit would wait for both for ever
        if group.handle.done() and group.handle.exception() is None:
            name, outcomes = group.handle.result()
            if name == group.wanted.name:
                return list(outcomes)
            group.is_lost = True  # its id has been given again
        if self._is_stopping:  # before it has started
            return [Stopped()] * len(group.jobs)
        self._keeps_logs = True
        state = group.handle.state
        if group.is_lost:
            cause = f"Slurm does not know its job {group.handle.job_id} any more (state {state})"
            return [failure(f"{cause}; has its controller been killed?")] * len(group.jobs)
        memory = "out of memory: " if state.startswith("OUT_OF_ME") else ""
        last_words = (group.handle.stderr() or "").strip().splitlines()[-1:]
        ended = failure(
            f"{memory}Slurm job {group.handle.job_id} ended without a result (state {state}): "
            f"{''.join(last_words) or 'no word'}; its log is {group.handle.paths.stderr}"
        )
        return [ended] * len(group.jobs)


@dataclass(kw_only=True, eq=False)
class _Submitted:
    """A group that was submitted: submitit's `handle`, and the file that says it is `wanted`.

    It `is_lost` where Slurm does not know its job any more.
    """

    handle: Any
    jobs: tuple[Job, ...]
    wanted: Path
    is_lost: bool = False
    preempted_at: float | None = None

    def has_ended(self, *, ask: bool = False) -> bool:
        """Whether there is a result, or will be none; submitit asks Slurm seldom, or with `ask`.

        submitit waits for a preempted job for ever: Slurm may queue it again. If it does not for
        some minutes it has cancelled it.
        """
        if self.is_lost or self.handle.done(force_check=ask):
            return True
        is_preempted = str(self.handle.state).startswith("PREEMPTED")
        if not is_preempted:
            self.preempted_at = None
        elif self.preempted_at is None:
            self.preempted_at = time.monotonic()
        since = self.preempted_at
        return since is not None and time.monotonic() - since > PREEMPTED_SECONDS


def _submitit_executor(folder: Path, jobs: SlurmJobs, cluster: str) -> Any:
    try:
        import submitit
    except ModuleNotFoundError:
        raise RequestError(
            "engine slurm needs submitit; run pip install 'cmtscale[slurm]'"
        ) from None
    try:
        executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise RequestError(
            f"engine slurm: this machine has no srun ({error}); start the search on a login node"
        ) from error
    executor.update_parameters(**jobs.parameters())
    return executor


def _words_of_sbatch(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("sbatch:")]
    errors = [line for line in own if line.startswith("sbatch: error:")]
    return (errors[-1:] or own or lines[-1:] or ["no word"])[0]


def _has_ended(handle: Any) -> bool:
    """Whether a cancelled job is at its end; submitit's debugging jobs raise there."""
    try:
        return bool(handle.done(force_check=True))
    except RuntimeError:
        return True
