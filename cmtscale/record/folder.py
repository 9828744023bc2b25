"""A folder of results: what its files are called, and that one process at a time works in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import no_room, remove_unfinished
from cmtscale.record.holder import HOLDER, read_holder, require_same_host, write_holder

LOCK = ".lock"
ANOTHER_OUT = "use another --out"  # what to do where a folder cannot be used, for most commands
# of a search
REQUEST = "request.toml"
ENVIRONMENT = "environment.json"
TRIALS = "trials.csv"
TIMINGS = "timings.json"
CLOCK = "clock.json"
DECISIONS = "decisions.json"
FORECAST = "forecast.csv"
VAL_LOSSES = "val_losses.npz"
CURVES = "curves.csv"
CHOICE = "choice.json"
BEST = "best.toml"
TEST_READS = "test_reads.csv"
RUNS = "runs"
WINNER = "winner"
WINNER_RECORD = "winner.json"
# of a check of its twins, in twins/, or of its learning rate, in rates/
CHECK = "check.json"
TWINS = "twins"
TWIN_TABLE = "twins.csv"
RATES = "rates"
RATE_TABLE = "rates.csv"
# of a run, in runs/ID or alone
RUN = "run.json"
METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.pt"
RESULT = "result.json"
IMAGE_LOSSES = "val_losses.npy"
ROW = "row.json"
WORKER = "worker.json"


@contextmanager
def held(folder: Path, *, instead: str = ANOTHER_OUT) -> Iterator[None]:
    """Make the folder and hold it; raises `ResultsError` if somebody else does, or it cannot be.

    `instead` says what to do then. The lock is the system's (`flock`) and ends with its process,
    however that ends. A process of another host that has not let go holds the folder even where its
    lock does not reach this host.
    A folder that was made here and got no file is removed again, with parents made for it.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        holder = read_holder(folder)
        who = f" ({holder})" if holder else ""
        raise ResultsError(
            f"another process is at work in {folder}{who}; wait for it, or {instead}"
        ) from None
    except OSError as error:
        if no_room(error):
            raise
        raise ResultsError(f"{folder} cannot be written ({error.strerror}); {instead}") from error
    try:
        require_same_host(folder)
        write_holder(folder)
        remove_unfinished(folder)
        try:
            yield
        finally:
            (folder / HOLDER).unlink(missing_ok=True)
    finally:
        if missing and not holds_anything(folder):
            with suppress(OSError):  # somebody else has begun to use one of them
                (folder / LOCK).unlink(missing_ok=True)
                for path in missing:
                    path.rmdir()
        lock.release()


def require_free(folder: Path, *, instead: str = ANOTHER_OUT) -> None:
    """Raise `ResultsError` if another process holds the folder; nothing is made there."""
    if (folder / LOCK).exists():
        with held(folder, instead=instead):
            pass


def require_folder(folder: Path, *, instead: str = ANOTHER_OUT) -> None:
    """Raise `ResultsError` if there is a file in the folder's place."""
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder} is a file, not a folder; {instead}")


def free_bytes(folder: Path) -> int:
    """What is free on the disk that a folder is on, or will be on."""
    absolute = folder.absolute()
    return shutil.disk_usage(
        next(path for path in (absolute, *absolute.parents) if path.exists())
    ).free


def holds_anything(folder: Path) -> bool:
    """Whether there is anything in the folder but hidden files, such as our lock."""
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
