"""The record of a search: its rows in memory and in `trials.csv`, which never loses one."""

from collections.abc import Callable, Iterable
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import (
    damaged_name,
    read_json,
    write_atomically,
    write_json,
    write_text_atomically,
)
from cmtscale.record.folder import ROW, RUNS, TRIALS
from cmtscale.record.row import (
    HEADER,
    NewerTableError,
    Row,
    read_rows,
    row_object,
    row_of_object,
    to_csv,
    to_line,
    whole_rows,
)


class Table:
    """The rows of a search by run id; only the process that holds the folder adds to them."""

    def __init__(self, folder: Path, rows: Iterable[Row]) -> None:
        self.folder = folder
        self._rows = {row.run_id: row for row in rows}
        self._lines: dict[str, str] = {}  # of the file, by run id: each row is formatted once
        self._content = b""  # of the file, as it was last written here

    @property
    def rows(self) -> list[Row]:
        """All rows, sorted by `Row.sort_key`."""
        return sorted(self._rows.values(), key=lambda row: row.sort_key)

    def add(self, row: Row) -> None:
        """Record how a run ended, in place of an earlier row of the same run.

        Rows that came into the file meanwhile are kept. Raises `ResultsError` if the file was
        damaged meanwhile: the row lies in `runs/` already.
        """
        write_json(self.folder / RUNS / row.run_id / ROW, row_object(row))
        path = self.folder / TRIALS
        if path.exists() and path.read_bytes() != self._content:
            for other in read_rows(path):
                self._rows.setdefault(other.run_id, other)
        self._rows[row.run_id] = row
        self._lines.pop(row.run_id, None)
        content = self._csv().encode(errors="backslashreplace")
        write_atomically(path, lambda file: file.write(content))
        self._content = content

    def _csv(self) -> str:
        """What `to_csv` gives for the rows."""
        for name, row in self._rows.items():
            if name not in self._lines:
                self._lines[name] = to_line(row)
        return HEADER + "".join(self._lines[row.run_id] for row in self.rows)


def open_table(folder: Path, note: Callable[[str], None]) -> Table:
    """The table of a folder; a missing or damaged one is rebuilt from the rows kept in `runs/`.

    `note` hears of what was done. A damaged file is kept as `trials.csv.damaged`, and its whole
    rows in the table, if `runs/` does not have them. Raises `ResultsError` for a damaged table
    without `runs/`, and for one of a newer version.
    """
    path = folder / TRIALS
    try:
        return Table(folder, read_rows(path))
    except FileNotFoundError:
        rows = _kept_rows(folder)
        if rows:
            note(f"{path} is missing; its {len(rows)} rows are taken from {folder / RUNS}")
    except NewerTableError:
        raise  # nothing is wrong with it
    except ResultsError as error:
        rows = _kept_rows(folder)
        if not rows:
            raise ResultsError(f"{error}; restore the table from a copy of it") from error
        rows = list({row.run_id: row for row in [*whole_rows(path), *rows]}.values())
        damaged = damaged_name(path)
        content = path.read_bytes()
        write_atomically(damaged, lambda file: file.write(content))
        note(
            f"{error}; kept as {damaged.name}, {len(rows)} rows are taken from it "
            f"and from {folder / RUNS}"
        )
    if rows:
        write_text_atomically(path, to_csv(rows))
    return Table(folder, rows)


def _kept_rows(folder: Path) -> list[Row]:
    rows = []
    for path in sorted((folder / RUNS).glob(f"*/{ROW}")):
        try:
            rows.append(row_of_object(read_json(path)))
        except (OSError, ValueError):  # damaged, or of another version: its run is looked up again
            continue
    return rows
