"""What a run logs while it trains, and the curves that a search keeps of it."""

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import write_text_atomically
from cmtscale.record.folder import CURVES, METRICS, RUNS
from cmtscale.record.row import Row

CURVE_COLUMNS = ("run_id", "step", "images", "train_loss", "val_loss_raw", "val_accuracy")


def read_metrics(run_folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a torn last line, of a killed run, is left out."""
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(FileNotFoundError, ValueError, RecursionError):
        for line in (run_folder / METRICS).read_text().splitlines():
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)]


def append_metrics(run_folder: Path, line: dict[str, Any]) -> None:
    """Log one line."""
    with (run_folder / METRICS).open("a") as file:
        file.write(json.dumps(line) + "\n")


def drop_metrics_after(run_folder: Path, step: int, *, validated_step: int | None = None) -> None:
    """Forget lines of an attempt that was killed after its last checkpoint.

    That was at `step`, and the last validation it knows of at `validated_step` (None: the same).
    """
    last_score = step if validated_step is None else validated_step
    kept = [
        line
        for line in read_metrics(run_folder)
        if line["step"] <= (last_score if "val_accuracy" in line else step)
    ]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    write_text_atomically(run_folder / METRICS, text)


def export_curves(folder: Path, rows: Iterable[Row]) -> None:
    """Gather the runs' logs in `curves.csv`, which is small enough to keep.

    Curves of runs whose log is gone stay as they were exported before.
    """
    exported: dict[str, list[dict[str, Any]]] = {}
    for line in read_curves(folder):
        exported.setdefault(line["run_id"], []).append(line)
    lines: list[dict[str, Any]] = []
    for row in rows:
        logged = read_metrics(folder / RUNS / row.run_id) or exported.get(row.run_id, [])
        lines += [{**line, "run_id": row.run_id} for line in logged]
    write_curves(folder, lines)


def write_curves(folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write `curves.csv`, atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(lines)
    write_text_atomically(folder / CURVES, text.getvalue())


def read_curves(folder: Path) -> list[dict[str, str]]:
    """The whole lines of `curves.csv`; none where it is missing, `ResultsError` for no text."""
    path = folder / CURVES
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path} is damaged: {error}; restore it, or remove it") from error
    return [line for line in lines if _is_whole(line)]


def require_curves(folder: Path) -> None:
    """Raise `ResultsError` if exporting curves would drop a line, or a column, of `curves.csv`."""
    path = folder / CURVES
    read_curves(folder)
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text))
    is_whole = all(_is_whole(line) for line in reader) and text.endswith("\n")
    if tuple(reader.fieldnames or ()) != CURVE_COLUMNS or not is_whole:
        raise ResultsError(f"{path} is damaged; restore it, or remove it")


def _is_whole(line: dict[str, str]) -> bool:
    return line.keys() == set(CURVE_COLUMNS) and None not in line.values()
