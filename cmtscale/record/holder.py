"""Who holds a folder: host, process and since when, for whoever is refused."""

import os
import re
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, write_json
from cmtscale.record.typed import record_of

HOLDER = ".holder.json"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process on a host that holds a folder since a time (UTC)."""

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        since = re.sub(r"\.\d+", "", self.since)  # whole seconds are enough to read
        return f"process {self.pid} on {self.host}, since {since}"


def write_holder(folder: Path) -> None:
    """Name this process as the folder's; only the process that has the lock may."""
    now = datetime.now(UTC).isoformat()
    write_json(
        folder / HOLDER, asdict(Holder(host=socket.gethostname(), pid=os.getpid(), since=now))
    )


def read_holder(folder: Path) -> Holder | None:
    """Who was last named and has not let go; None where nobody is, or the file is damaged."""
    try:
        return record_of(Holder, read_json(folder / HOLDER))
    except (FileNotFoundError, ValueError):
        return None


def require_same_host(folder: Path) -> None:
    """Raise `ResultsError` where a process of another host has not let go of the folder.

    The lock does not tell whether that one is alive where a network disk shares no locks.
    """
    holder = read_holder(folder)
    if holder is not None and holder.host != socket.gethostname():
        raise ResultsError(
            f"{folder} is held by {holder}, another host, whose locks may not reach this one; wait "
            f"for it, or, if that process has ended, remove {folder / HOLDER}"
        )
