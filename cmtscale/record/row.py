"""One run of a search: a row of `trials.csv`. Its columns stand here and nowhere else."""

import csv
import io
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from cmtscale.arch.errors import ResultsError
from cmtscale.arch.scaling import Shares, shares_of_factors
from cmtscale.record.result import Status

Sizes = tuple[int, ...]


class NewerTableError(ResultsError):
    """A table with columns that this version does not know, and would drop if it wrote it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run that ended: which candidate, trained how, and with what result.

    `run_id` is readable, `identity` the hash of what decided the result. `asked` numbers the
    candidates in the order in which they came into the search, `asked_after` those before the
    generation that `asked_by` (a sampler, or the grid) named it in. `alpha` to
    `stray`, `macs`, `params`, `activations`, `resolution_px`, `dims` and `depths` are those of the
    real variant; `proxy_…` those of what was trained. `epochs` and `train_images` (of an epoch) are
    the run's horizon. Losses are in nats, accuracy is a fraction; both are None unless the run is
    complete.
    """

    run_id: str
    candidate: str
    alpha: float
    beta: float
    gamma: float
    phi: float
    macs: int
    params: int
    proxy_macs: int
    resolution_px: int
    dims: Sizes
    depths: Sizes
    seed: int
    epochs: int
    train_images: int
    val_loss: float | None
    val_loss_raw: float | None
    val_accuracy: float | None
    train_loss: float | None
    images_per_second: float | None
    seconds: float
    status: Status
    cause: str
    role: str
    on_budget: bool
    stray: float
    activations: int
    proxy_params: int
    proxy_resolution_px: int
    proxy_dims: Sizes
    proxy_depths: Sizes
    temperature: float | None
    asked: int
    asked_after: int
    asked_by: str
    scoring: int
    identity: str

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} {value} is not a finite number")

    @property
    def horizon(self) -> tuple[int, int]:
        """(epochs, images of an epoch): only rows of one horizon compare."""
        return self.epochs, self.train_images

    @property
    def images_seen(self) -> int:
        """Training images seen in the whole run, each pass counted."""
        return self.epochs * self.train_images

    @property
    def shares(self) -> Shares:
        """Log shares of depth, width and resolution; all zero for the base."""
        return shares_of_factors(self.alpha, self.beta, self.gamma)

    @property
    def outcome(self) -> tuple[object, ...]:
        """What a repetition of the run must agree in; neither how long it took nor its number."""
        losses = (self.val_loss, self.val_loss_raw, self.val_accuracy, self.train_loss)
        return self.identity, self.scoring, self.status, *losses

    @property
    def sort_key(self) -> tuple[int, int, int, int, str]:
        """Where the row stands in the table: by candidate, horizon and seed."""
        return self.asked, self.images_seen, self.epochs, self.seed, self.run_id


def horizon_name(horizon: tuple[int, int]) -> str:
    """`2x12800`: epochs, and the training images of each."""
    epochs, train_images = horizon
    return f"{epochs}x{train_images}"


def _joined(cells: Iterable[str]) -> str:
    text = io.StringIO()
    # the writer quotes what holds a character of the line's end: both kinds must be quoted
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


COLUMNS = tuple(field.name for field in fields(Row))
_TYPES = get_type_hints(Row)
HEADER = _joined(COLUMNS)


def to_csv(rows: Iterable[Row]) -> str:
    """The table as text, floats in full, sorted by `Row.sort_key`."""
    return HEADER + "".join(map(to_line, sorted(rows, key=lambda row: row.sort_key)))


def to_line(row: Row) -> str:
    """The row as a line of the table."""
    return _joined(map(_to_cell, vars(row).values()))


def read_rows(path: Path) -> list[Row]:
    """The rows of a `trials.csv`; a run that a merge doubled counts once, however long each took.

    Raises `ResultsError` with the line for a table that is damaged, lacks columns, or holds two
    different results of one run; `OSError` (it is missing, no permission) as it comes.
    """
    header, records = _records(path)
    rows: dict[str, Row] = {}
    for number, cells in records:
        try:
            row = _parse(header, cells)
        except ValueError as error:
            raise ResultsError(f"{path} is damaged: line {number}: {error}") from error
        if rows.setdefault(row.run_id, row).outcome != row.outcome:
            raise ResultsError(
                f"{path} has two different results of {row.run_id}, one in line {number}; "
                f"remove one of the two lines"
            )
    return sorted(rows.values(), key=lambda row: row.sort_key)


def whole_rows(path: Path) -> list[Row]:
    """The rows of a damaged table that are whole; of two results of one run, the first."""
    rows: dict[str, Row] = {}
    with suppress(ResultsError):
        header, records = _records(path)
        for _, cells in records:
            with suppress(ValueError):
                row = _parse(header, cells)
                rows.setdefault(row.run_id, row)
    return list(rows.values())


def row_object(row: Row) -> dict[str, Any]:
    """The row as plain JSON values."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(row).items()
    }


def row_of_object(content: Any) -> Row:
    """The row of `row_object`; raises `ValueError` for anything else."""
    if not isinstance(content, dict) or content.keys() != set(COLUMNS):
        raise ValueError("not a row of this version")
    return Row(**{name: _from_plain(_TYPES[name], content[name]) for name in COLUMNS})


def _records(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the cells of each row with the line it begins in."""
    records: list[tuple[int, list[str]]] = []
    try:
        text = path.read_bytes().decode()
        reader = csv.reader(io.StringIO(text, newline=""))
        header = next(reader, [])
        number = reader.line_num + 1
        for cells in reader:
            records.append((number, cells))
            number = reader.line_num + 1
    except (UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{path} is damaged: {error}") from error
    if missing := [name for name in COLUMNS if name not in header]:
        if {"run_id", "rung", "candidate"} <= set(header):
            raise ResultsError(
                f"{path} was written by cmtscale 0.1.0, whose runs were scored in another way; "
                f"search again with another --out"
            )
        raise ResultsError(
            f"{path} is damaged: it lacks the columns {', '.join(missing)}; if it is from "
            f"`cmtscale search`, the same search makes it again from runs/"
        )
    if foreign := [name for name in header if name not in COLUMNS]:
        raise NewerTableError(
            f"{path} has columns that this version of cmtscale does not know "
            f"({', '.join(foreign)}); use the version that wrote it, or remove them"
        )
    if records and not text.endswith("\n"):  # torn: the last cell may lack its end
        del records[-1][1][-1:]
    return header, records


def _parse(header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise ValueError(f"it has {len(cells)} cells, not {len(header)}")
    named = dict(zip(header, cells, strict=True))
    return Row(**{name: _from_cell(_TYPES[name], named[name]) for name in COLUMNS})


def _from_plain(kind: Any, value: Any) -> Any:
    """A JSON value as a field of the type `kind`; `ValueError` if a cell could not hold it."""
    value = tuple(value) if isinstance(value, list) else value
    if _from_cell(kind, _to_cell(value)) != value:
        raise ValueError(f"{value!r} does not fit its column")
    return value


def _to_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return str(value)


def _from_cell(kind: Any, text: str) -> Any:
    """The value of a cell whose column has the type `kind`; `ValueError` if it is none."""
    if isinstance(kind, UnionType):  # float | None
        return None if text == "" else _from_cell(get_args(kind)[0], text)
    if kind is bool:
        if text not in ("True", "False"):
            raise ValueError(f"{text!r} is neither True nor False")
        return text == "True"
    if kind == Sizes:
        return tuple(int(part) for part in text.split("-"))
    if kind is int:
        return int(text)
    if kind is float:
        return float(text)
    if kind == Status and text not in get_args(Status):
        raise ValueError(f"{text!r} is no status")
    return text
