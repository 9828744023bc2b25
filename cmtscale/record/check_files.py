"""The two files of a check, in a folder inside the search's: `check.json`, and a table."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, write_json, write_text_atomically
from cmtscale.record.folder import CHECK
from cmtscale.record.typed import record_of

Check = TypeVar("Check")


def write_check(folder: Path, table: dict[str, Any]) -> None:
    """Write what was found as `check.json`, atomically."""
    write_json(folder / CHECK, table)


def write_lines(path: Path, kind: type[Any], lines: Iterable[Any]) -> None:
    """Write a table, a column per field of the dataclass `kind` and a row per line, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    writer.writerows(
        [f"{value:.6g}" if isinstance(value, float) else value for value in astuple(line)]
        for line in lines
    )
    write_text_atomically(path, text.getvalue())


def read_check(folder: Path, kind: type[Check]) -> Check | None:
    """The `check.json` of a folder; None before, `ResultsError` if the file is damaged."""
    path = folder / CHECK
    try:
        return record_of(kind, read_json(path))
    except FileNotFoundError:
        return None
    except ResultsError:
        raise
    except ValueError as error:
        raise ResultsError(f"{path} is damaged: {error}; remove it, and check again") from error
