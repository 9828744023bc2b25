"""Files that are never half written (temporary file, fsync, replace), and reading them back."""

import errno
import json
import os
import tempfile
import tomllib
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import IO, Any

from cmtscale.arch.errors import ResultsError

UNFINISHED = ".tmp"  # the end of the names of files that are not whole yet


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let `write` fill a binary file that then replaces `path`; on an error `path` is untouched.

    The folder is made if need be. Raises `OSError` (a full disk, no permission) as it comes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text_atomically(path: Path, text: str) -> None:
    """`write_atomically` for UTF-8 text; what it cannot hold, of a file's name, is escaped."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def write_json(path: Path, content: Any) -> None:
    """Write an object as indented JSON, atomically."""
    write_text_atomically(path, json.dumps(content, indent=1) + "\n")


def no_room(error: OSError) -> str:
    """What to tell where a disk, one's share of it, or a limit on files leaves no room; else ''."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}; free some space, and run the same command again"
    if error.errno == errno.EFBIG:
        return (
            f"files may not grow that large here{where}; raise the limit (ulimit -f), and run the "
            f"same command again"
        )
    return ""


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes were writing, in a folder that nobody else writes to."""
    for path in folder.glob(f".*.????????{UNFINISHED}"):
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that nothing overwrites it; its new name."""
    kept = damaged_name(path)
    path.replace(kept)
    return kept


def damaged_name(path: Path) -> Path:
    """`NAME.damaged` beside `path`, or with a number after it if that exists."""
    first = path.with_name(f"{path.name}.damaged")
    numbered = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return next(name for name in chain([first], numbered) if not name.exists())


def seconds_untouched(path: Path) -> float:
    """How long ago a file was written or touched, by the clock of the disk that it is on.

    Raises `FileNotFoundError`.
    """
    touched = path.stat().st_mtime
    with tempfile.TemporaryFile(prefix=".clock.", dir=path.parent) as clock:
        return max(0.0, os.fstat(clock.fileno()).st_mtime - touched)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises `ResultsError` for anything else, `FileNotFoundError`."""
    text = _read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is damaged: {error}; restore it, or remove it") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path} is damaged: it holds no object; restore it, or remove it")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file; raises `ResultsError` for anything else, `FileNotFoundError`."""
    text = _read_text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{path} is damaged: {error}; restore it") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is damaged: {error}; restore it") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
