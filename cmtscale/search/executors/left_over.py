"""What drivers leave in a folder of results if they are killed: jobs that Slurm still holds, and
Ray's tokens. The next driver ends and removes that before it trains.
"""

import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.data.cache import ALIVE
from cmtscale.record.files import no_room, read_json, set_aside, write_json
from cmtscale.record.folder import RUNS
from cmtscale.record.typed import record_of
from cmtscale.search.executors.slurm_queue import array_ids, cancel, unfinished

NOTE = ".slurm-"  # begins the name of a driver's note of its Slurm jobs, in runs/
TOKEN = ".driver-"  # begins the name of the file by which Ray's nodes see that they share runs/
WANTED = "wanted-"  # begins the name of the file without which a Slurm job ends
END_SECONDS = 60.0  # that Slurm gets to end the jobs in: twice its KillWait, after which it kills
LOOK_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class SlurmNote:
    """The arrays of a driver whose jobs train in `runs`, and the folder of its submissions.

    A copy of `runs`, with another path and another inode, has no jobs.
    """

    submissions: str
    arrays: tuple[str, ...]
    runs: str
    inode: int

    def __post_init__(self) -> None:
        if not all(array.isascii() and array.isdecimal() for array in self.arrays):
            raise ValueError(f"{self.arrays} are no ids of Slurm's")


def write_note(runs: Path, submissions: Path, job_ids: Iterable[str]) -> Path:
    """Note in `runs/` that these Slurm jobs work there; returns the note's path."""
    path = runs / f"{NOTE}{submissions.name}.json"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        slurm_note = SlurmNote(
            submissions=str(submissions),
            arrays=tuple(sorted(array_ids(job_ids))),
            runs=str(runs.absolute()),
            inode=runs.stat().st_ino,
        )
        write_json(path, asdict(slurm_note))
    except OSError as error:
        if no_room(error):
            raise
        raise ResultsError(
            f"{runs} cannot be written ({error.strerror}); mend that and run the same command again"
        ) from error
    return path


def end_left_over(folder: Path, note: Callable[[str], None]) -> None:
    """End what earlier drivers of a folder have left; `note` hears of it.

    Only the process that holds the folder may. Raises `ResultsError` where Slurm does not end jobs,
    or does not say so; their note stays.
    """
    runs = folder / RUNS
    for token in runs.glob(f"{TOKEN}*"):
        token.unlink(missing_ok=True)
    for path in sorted(runs.glob(f"{NOTE}*.json")):
        try:
            earlier_note = record_of(SlurmNote, read_json(path))
        except ValueError:  # ResultsError is one
            kept = set_aside(path)
            note(
                f"{path} cannot be read; it is kept as {kept.name}. It named Slurm jobs of an "
                f"earlier driver: look for them with squeue --me"
            )
            continue
        is_of_here = earlier_note.runs == str(runs.absolute())
        if is_of_here or earlier_note.inode == runs.stat().st_ino:
            _end_jobs_of(earlier_note, folder, note)
        path.unlink()


def _end_jobs_of(earlier_note: SlurmNote, folder: Path, note: Callable[[str], None]) -> None:
    submissions, arrays = Path(earlier_note.submissions), earlier_note.arrays
    if (submissions / ALIVE).exists():
        for wanted in submissions.glob(f"{WANTED}*"):  # a job without it ends, or does not begin
            wanted.unlink(missing_ok=True)
    if not arrays:
        return
    names = ", ".join(arrays)
    whose = f"Slurm jobs of an earlier driver of {folder}"
    if shutil.which("scancel") is None:
        note(
            f"{whose} ({names}) end by themselves, within a minute or when they start: "
            f"this machine has no scancel"
        )
        return
    is_cancelled = cancel(arrays)
    until = time.monotonic() + END_SECONDS
    while (unfinished_arrays := unfinished(arrays)) != set():
        if time.monotonic() > until:
            if unfinished_arrays is None:
                raise ResultsError(
                    f"squeue does not say whether {whose} have ended ({names}); run the same "
                    f"command again once it answers"
                )
            raise ResultsError(
                f"{whose} do not end ({', '.join(sorted(unfinished_arrays))}); wait for them, or "
                f"scancel them"
            )
        time.sleep(LOOK_SECONDS)
        is_cancelled = is_cancelled or cancel(arrays)
    note(f"{whose} are cancelled: {names}")
