"""`forecast.csv`: the loss that a search expects of each candidate after so many images."""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import write_text_atomically
from cmtscale.record.folder import FORECAST


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The median loss after a training that sees so many images, and the 90 % interval about it."""

    candidate: str
    images: int
    loss: float
    low: float
    high: float


_COLUMNS = [field.name for field in fields(Expected)]


def write_forecast(folder: Path, expected: Iterable[Expected]) -> None:
    """Write the table, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(
        [candidate, images, *(f"{value:.6g}" for value in values)]
        for candidate, images, *values in map(astuple, expected)
    )
    write_text_atomically(folder / FORECAST, text.getvalue())


def read_forecast(folder: Path) -> list[Expected]:
    """The table of a folder; none where it is missing, `ResultsError` where it is damaged."""
    path = folder / FORECAST
    try:
        header, *lines = csv.reader(io.StringIO(path.read_bytes().decode(), newline=""))
        if header != _COLUMNS:
            raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
        return [_parse(line) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, csv.Error) as error:
        raise ResultsError(f"{path} is damaged: {error}; restore it, or remove it") from error


def _parse(line: list[str]) -> Expected:
    candidate, images, loss, low, high = line
    return Expected(
        candidate=candidate,
        images=int(images),
        loss=float(loss),
        low=float(low),
        high=float(high),
    )
