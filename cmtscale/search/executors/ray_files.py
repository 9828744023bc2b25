"""What Ray's nodes and the driver tell each other beside results: files, and signs of life."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from cmtscale.arch.errors import StoppedError
from cmtscale.data.cache import LOCK, default_cache_dir
from cmtscale.data.dataset import DataRef, read_packed
from cmtscale.record.files import write_atomically
from cmtscale.search.executors.base import Job
from cmtscale.search.jobs import ReadTestSplit, TrainRun
from cmtscale.train.stop import CheckIn, stop_if_asked

CHUNK = 64 << 20  # bytes that are sent at a time
TASK = "cmtscale-ray-task-"  # begins the name of a task's temporary folder
NEW_SECONDS = 10.0  # in which a task has locked its new folder
SEND_SECONDS = 5.0  # how often what a run has written is sent
LOCK_SECONDS = 1.0  # how often a task looks whether another one has fetched the images


class Sign(NamedTuple):
    """How often a task has given a sign of life, and the process it is, which `started` then."""

    beats: int
    node_id: str
    pid: int
    started: float


class Keeper:
    """An actor beside the driver: it reads and writes its files for other nodes, and hears tasks.

    Its methods may be called at the same time.
    """

    def __init__(self) -> None:
        self._signs: dict[str, Sign] = {}
        self._is_stopping = False

    def hear(self, task: str, node_id: str, pid: int, started: float) -> bool:
        """Take a task's sign of life; whether it shall stop."""
        count = self._signs[task].beats if task in self._signs else 0
        self._signs[task] = Sign(count + 1, node_id, pid, started)
        return self._is_stopping

    def signs(self, tasks: list[str]) -> dict[str, Sign]:
        """What has been heard of these tasks, so far as they have begun."""
        return {task: self._signs[task] for task in tasks if task in self._signs}

    def stop(self, are_asked: bool) -> None:
        """Whether all tasks are asked to stop."""
        self._is_stopping = are_asked

    def names(self, folder: Path) -> list[str]:
        """The files of a folder; none where there is no folder yet."""
        return [path.name for path in folder.glob("*") if path.is_file()]

    def read(self, path: Path, offset: int) -> bytes:
        """The next bytes of a file; none at its end."""
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK)

    def write(self, path: Path, content: bytes) -> None:
        """Replace a file, atomically."""
        write_atomically(path, lambda file: file.write(content))


@contextmanager
def at_hand(job: Job, keeper: Any, token: Path, check_in: CheckIn) -> Iterator[Job]:
    """The job with its images and its folder where this node has them.

    A node that sees the driver's `token` sees its folders. Elsewhere the job works in a folder of
    its own, from what the driver's holds, and what it writes is sent while it runs, so that another
    node can go on from its checkpoint. Images are fetched once into the node's cache. Raises
    `StoppedError` where it is asked to stop meanwhile.
    """
    if not isinstance(job, TrainRun | ReadTestSplit):
        yield job
        return
    is_seen = token.exists()
    data = _images(job.run.data, keeper, check_in, is_seen=is_seen)
    run = replace(job.run, data=data)
    if is_seen:
        yield replace(job, run=run)
        return
    with _own_folder() as folder:
        _fetch(keeper, job.folder, folder, check_in)
        with _sending(folder, job.folder, keeper):
            yield replace(job, run=run, folder=folder)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A temporary folder; those of tasks that were killed on this node are removed first."""
    for path in Path(tempfile.gettempdir()).glob(f"{TASK}*/{LOCK}"):
        with suppress(OSError, Timeout):  # another user's, or of a task that goes on
            if time.time() - path.stat().st_mtime > NEW_SECONDS:
                with FileLock(path, timeout=0):
                    shutil.rmtree(path.parent, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=TASK) as text, FileLock(Path(text) / LOCK):
        yield Path(text)


def _images(data: DataRef, keeper: Any, check_in: CheckIn, *, is_seen: bool) -> DataRef:
    """The packed images where this node has them; one process of it fetches what it lacks."""
    if is_seen and _holds(data.path, data):
        return data
    cache_dir = default_cache_dir()
    entry = cache_dir / f"sent-{data.content_hash[:16]}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(cache_dir / LOCK, check_in):
        if not _holds(entry, data):
            entry.mkdir(exist_ok=True)
            _fetch(keeper, data.path, entry, check_in)
    return replace(data, path=entry)


def _holds(folder: Path, data: DataRef) -> bool:
    dataset = read_packed(folder)
    return dataset is not None and dataset.content_hash == data.content_hash


@contextmanager
def _locked(path: Path, check_in: CheckIn) -> Iterator[None]:
    """Hold a lock; a task that waits for it gives signs of life."""
    try:
        held = FileLock(path).acquire(poll_interval=LOCK_SECONDS, cancel_check=check_in)
    except Timeout:
        raise StoppedError from None
    with held:
        yield


def _fetch(keeper: Any, source: Path, folder: Path, check_in: CheckIn) -> None:
    for name in _answer(keeper.names.remote(source)):
        with (folder / name).open("wb") as file:
            while chunk := _answer(keeper.read.remote(source / name, file.tell())):
                file.write(chunk)
                stop_if_asked(check_in)


def _answer(reference: Any) -> Any:
    """What the keeper answers; its errors, such as a full disk, as it raised them."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


@contextmanager
def _sending(folder: Path, target: Path, keeper: Any) -> Iterator[None]:
    """Send what changes in `folder` to the driver's `target`, every few seconds and at the end."""
    sender = _Sender(folder, target, keeper)
    sender.take_note()
    thread = threading.Thread(target=sender.go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        sender.is_over.set()
        thread.join()
        sender.send()


@dataclass
class _Sender:
    folder: Path
    target: Path
    keeper: Any
    sent: dict[str, int] = field(default_factory=dict)  # when each file was written
    is_over: threading.Event = field(default_factory=threading.Event)

    def take_note(self) -> None:
        """What is there already need not be sent."""
        self.sent = self._written()

    def go_on(self) -> None:
        while not self.is_over.wait(SEND_SECONDS):
            with suppress(Exception):  # tried again at the next look; at the end it is raised
                self.send()

    def send(self) -> None:
        written = self._written()
        for name in written:
            if self.sent.get(name) == written[name]:
                continue
            try:
                content = (self.folder / name).read_bytes()
            except FileNotFoundError:  # replaced just now: the next look finds the new one
                continue
            _answer(self.keeper.write.remote(self.target / name, content))
            self.sent[name] = written[name]

    def _written(self) -> dict[str, int]:
        """When each file was written; of checkpoints the newest alone, removals are not sent."""
        from cmtscale.train.checkpoint import PREVIOUS, WRITTEN

        times: dict[str, int] = {}
        for path in self.folder.iterdir():
            if path.name in (PREVIOUS, WRITTEN) or path.name.startswith("."):  # being written
                continue
            with suppress(FileNotFoundError):
                times[path.name] = path.stat().st_mtime_ns
        return times
