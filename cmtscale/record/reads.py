"""The log of every reading of a test split: a split that is read often chooses, too."""

import csv
import io
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import write_text_atomically
from cmtscale.record.folder import TEST_READS


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One reading: when (UTC), by which command, of which run's network, and the accuracy.

    `data` is "" for the test split of the images that the network was trained on, else the data
    set that was read instead.
    """

    when: str
    by: str
    run_id: str
    images: int
    accuracy: float
    data: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"accuracy {self.accuracy} is not a fraction")


COLUMNS = tuple(field.name for field in fields(Reading))
EARLIER_COLUMNS = tuple(name for name in COLUMNS if name != "data")  # of logs begun before


def log_reading(
    folder: Path, *, by: str, run_id: str, images: int, accuracy: float, data: str = ""
) -> None:
    """Add a reading that happens now to the folder's log."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Reading(when=now, by=by, run_id=run_id, images=images, accuracy=accuracy, data=data)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(reading) for reading in [*readings(folder), entry])
    write_text_atomically(folder / TEST_READS, text.getvalue())


def readings(folder: Path) -> list[Reading]:
    """All readings that the folder's log holds, oldest first; `ResultsError` if it is damaged."""
    path = folder / TEST_READS
    try:
        text = path.read_bytes().decode()
        if not text.endswith("\n"):
            raise ValueError("its end is missing")
        header, *lines = csv.reader(io.StringIO(text, newline=""))
        if tuple(header) not in (COLUMNS, EARLIER_COLUMNS):
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        return [_parse(dict(zip(header, line, strict=True))) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, csv.Error) as error:
        raise ResultsError(f"{path} is damaged: {error}; restore it, or remove it") from error


def accuracy_read_by_training(folder: Path) -> float | None:
    """What `train --test` read in this folder; None if it did not.

    `eval` logs there, too, by other means or of other images.
    """
    own = [reading.accuracy for reading in readings(folder) if reading.by == "train"]
    return own[-1] if own else None


def _parse(line: dict[str, str]) -> Reading:
    texts = {name: line[name] for name in ("when", "by", "run_id")}
    return Reading(
        **texts,
        images=int(line["images"]),
        accuracy=float(line["accuracy"]),
        data=line.get("data", ""),
    )
