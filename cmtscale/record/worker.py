"""Where a run is trained, for who looks on from elsewhere."""

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import WORKER
from cmtscale.record.typed import record_of


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process on a host that has a run, and the device it trains on, as it sees it."""

    host: str
    pid: int
    device: str

    def __str__(self) -> str:
        return f"{self.host} {self.device}"


def write_worker(folder: Path, device: str) -> None:
    """Name this process as the one that trains the folder's run."""
    worker = Worker(host=socket.gethostname(), pid=os.getpid(), device=device)
    write_json(folder / WORKER, asdict(worker))


def read_worker(folder: Path) -> Worker | None:
    """Who was last named; None where nobody was, or the file is damaged."""
    try:
        return record_of(Worker, read_json(folder / WORKER))
    except (FileNotFoundError, ValueError):
        return None
