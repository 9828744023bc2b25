"""What Slurm says of jobs beyond what submitit asks it."""

import os
import re
import subprocess
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

JOB_NAME = "cmtscale"
TIMEOUT_SECONDS = 20.0
FILTERS = re.compile(r"SQUEUE_|SCANCEL_|SLURM_CLUSTERS")  # variables that hide jobs from commands
# Slurm accepts jobs that cannot start, unless it is set to enforce limits, and lets them wait. Of
# its reasons (https://slurm.schedmd.com/job_reason_codes.html) these ask for another request:
NEVER = re.compile(
    r"PartitionTimeLimit|BadConstraints|Invalid(?:Account|QOS)|(?:Account|QOS)NotAllowed"
    r"|\w*Per(?:Job|Node)\w*"
)
# and these may, but also stand where nodes are down or drained, or the partition is being changed:
PERHAPS = re.compile(r"Partition(?:Config|NodeLimit)")
LASTING_SECONDS = 600.0  # of such a reason, after which it is taken for one that stays
# All others pass without us: resources, priority, limits on what runs at once, a partition down.
MISSING_SECONDS = 120.0  # that accounting and file servers get to show the end of a job
# What Slurm's commands say while its controller restarts, or has too much to do:
UNREACHABLE = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted"
)


def is_running_still() -> bool:
    """Whether the job that this process is in goes on, by Slurm; outside of Slurm it does.

    A job that gets SIGTERM and goes on has been preempted and given some time, at whose end it is
    gone. One that does not has been cancelled, or Slurm queues it again itself.
    """
    job_id = os.environ.get("SLURM_JOB_ID")
    if job_id is None:
        return True
    return (_squeue("-j", job_id, "-o", "%T") or "").strip() == "RUNNING"


@dataclass(kw_only=True)
class Queue:
    """Which pending jobs may not start at present, which jobs are missing, and since when."""

    _since: dict[str, float] = field(default_factory=dict)
    _missing_since: dict[str, float] = field(default_factory=dict)

    def hopeless(self, job_ids: Iterable[str]) -> str | None:
        """Which of these jobs never starts, and why; None where all may."""
        pending = _squeue("--me", "-t", "PENDING", "-o", "%F %r")
        if pending is None:
            return None
        wanted, now, before = array_ids(job_ids), time.monotonic(), self._since
        self._since = {}
        for job_id, _, reason in (line.partition(" ") for line in pending.splitlines()):
            if job_id not in wanted:
                continue
            if NEVER.fullmatch(reason.strip()):
                return f"job {job_id} never starts: {reason.strip()}"
            if PERHAPS.fullmatch(reason.strip()):
                self._since[job_id] = before.get(job_id, now)
                if now - self._since[job_id] > LASTING_SECONDS:
                    return (
                        f"job {job_id} could not start for {LASTING_SECONDS / 60:.0f} minutes: "
                        f"{reason.strip()}, which is a request that is too large or nodes that "
                        f"are down; see sinfo"
                    )
        return None

    def missing(self, job_ids: Iterable[str]) -> set[str]:
        """Which of these jobs have not been in the queue for some time.

        They have ended, or the controller was killed: it forgets what it has accepted in its last
        seconds, and accounting shows that as pending for ever.
        """
        listed = _squeue("--me", "-r", "-o", "%i")
        if listed is None:
            self._missing_since.clear()
            return set()
        now, missing = time.monotonic(), set(job_ids) - set(listed.split())
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        long = {name for name, at in self._missing_since.items() if now - at > MISSING_SECONDS}
        for name in long:
            del self._missing_since[name]  # the id may be given again
        return long


def array_ids(job_ids: Iterable[str]) -> set[str]:
    """The ids of the arrays that these jobs are elements of."""
    return {job_id.partition("_")[0] for job_id in job_ids}


def cancel(job_ids: Iterable[str]) -> bool:
    """Have Slurm end these jobs or arrays of ours; whether scancel has accepted it."""
    return _scancel(job_ids)


def cancel_pending(job_ids: Iterable[str]) -> None:
    """Take those of these jobs that wait out of Slurm's queue."""
    _scancel(job_ids, "--state=PENDING")


def unfinished(arrays: Collection[str]) -> set[str] | None:
    """Which of these arrays still wait or run; None where squeue does not say."""
    queued = _squeue("--me", "-o", "%F")
    return None if queued is None else set(arrays).intersection(queued.split())


def submitted_from(folder: Path) -> set[str] | None:
    """The arrays whose scripts lie in a folder, and which wait or run; None as in `unfinished`."""
    queued = _squeue("--me", f"--name={JOB_NAME}", "-o", "%F %o")
    if queued is None:
        return None
    jobs = (line.partition(" ") for line in queued.splitlines())
    return {array for array, _, script in jobs if Path(script).is_relative_to(folder)}


def _scancel(job_ids: Iterable[str], *filters: str) -> bool:
    ids = sorted(job_ids)
    if not ids:  # without one, it would end all that the filters leave
        return True
    return _output("scancel", f"--name={JOB_NAME}", *filters, *ids) is not None


def _squeue(*arguments: str) -> str | None:
    """What squeue prints; None where it fails, as it does while a controller restarts."""
    return _output("squeue", "-h", *arguments)


def _output(*command: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not FILTERS.match(name)}
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout if ended.returncode == 0 else None
