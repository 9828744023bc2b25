"""What a job comes to in a worker, as plain data that any engine can send back."""

import traceback
from typing import Any

from cmtscale.arch.budget import format_duration
from cmtscale.arch.errors import CmtscaleError, DataError, NoRoomError, StoppedError
from cmtscale.record.files import no_room
from cmtscale.search.executors.base import Failure, Job, Stopped
from cmtscale.train.stop import CheckIn


def attempt(job: Job, device: str, check_in: CheckIn) -> Any:
    """Do the job, in a worker: its result, a `Failure`, `Stopped`, or what stops all work.

    A failed job leaves nothing in memory for the next: the variables of its frames, a network and a
    half-built graph after a GPU's memory was too small, are let go of.
    """
    try:
        return job.carry_out(device, check_in)
    except StoppedError:
        return Stopped()
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        return outcome_of(error)


def outcome_of(error: BaseException) -> Failure | CmtscaleError:
    """What an error in a job means: that job has failed, or all work has to stop.

    A full disk, and images that are gone, stop all work.
    """
    from cmtscale.train.out_of_memory import is_out_of_memory, spoils_process

    if isinstance(error, DataError):
        return error
    if isinstance(error, OSError) and (words := no_room(error)):
        return NoRoomError(words)
    name = type(error).__name__
    cause = f"{name}: {error}" if str(error) else name
    words = f"out of memory ({cause})" if is_out_of_memory(error) else cause
    return failure(words, spoils_process=spoils_process(error))


def raise_if_all_stops(outcome: Any) -> Any:
    """An outcome as the driver gets it; what stops all work is raised."""
    if isinstance(outcome, CmtscaleError):
        raise outcome
    return outcome


def failure(cause: str, *, spoils_process: bool = False) -> Failure:
    """A failure whose cause is one line."""
    return Failure(cause=" ".join(cause.split()), spoils_process=spoils_process)


def worker_died(how: str) -> Failure:
    """The failure of a job whose process has ended by itself."""
    return failure(f"the worker died ({how}); out of memory is the usual reason")


def took_too_long(limit_seconds: int) -> Failure:
    """The failure of a job that was ended at the limit of `--run-timeout`."""
    return failure(
        f"took longer than the limit of {format_duration(limit_seconds)} (--run-timeout)"
    )


def gave_no_sign(limit_seconds: int) -> Failure:
    """The failure of a job that was ended because it hung."""
    return failure(
        f"gave no sign of life for {format_duration(limit_seconds)}, and was ended (--hang-timeout)"
    )
