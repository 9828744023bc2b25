"""What Slurm says of jobs beyond what submitit asks it."""

import os
import re
import subprocess
from collections.abc import Iterable

TIMEOUT_SECONDS = 20.0
# Slurm accepts such jobs, unless it is set to enforce limits, and lets them wait for ever
NEVER = re.compile(
    r"Partition(?:Config|NodeLimit|TimeLimit)|BadConstraints|Invalid(?:Account|QOS)|\w*PerJob\w*"
)


def is_running_still() -> bool:
    """Whether the job that this process is in goes on, by Slurm; outside of Slurm it does.

    A job that gets SIGTERM and goes on has been preempted and given some time, at whose end it is
    gone. One that does not has been cancelled, or Slurm queues it again itself.
    """
    job_id = os.environ.get("SLURM_JOB_ID")
    return job_id is None or _squeue("-j", job_id, "-o", "%T").strip() == "RUNNING"


def hopeless(job_ids: Iterable[str]) -> str | None:
    """Which of these jobs never starts, and why; None where all may."""
    wanted = {job_id.partition("_")[0] for job_id in job_ids}
    for line in _squeue("--me", "-t", "PENDING", "-o", "%F %r").splitlines():
        job_id, _, reason = line.partition(" ")
        if job_id in wanted and NEVER.fullmatch(reason.strip()):
            return f"job {job_id} never starts: {reason.strip()}"
    return None


def cancel_pending(job_ids: Iterable[str]) -> None:
    """Take those of these jobs that wait out of Slurm's queue."""
    _ask("scancel", "--state=PENDING", *job_ids)


def _squeue(*arguments: str) -> str:
    return _ask("squeue", "-h", *arguments)


def _ask(*command: str) -> str:
    """What a command prints; nothing where it fails, as it does while a controller restarts."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
