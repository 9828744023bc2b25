"""Readings of a test split with a trained model: each is logged where the model is, and counted."""

import os
from dataclasses import dataclass
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.folder import RUN, TEST_READS
from cmtscale.record.model_folder import MODEL, ModelDescription
from cmtscale.record.reads import log_reading, readings


@dataclass(frozen=True, kw_only=True)
class ReadingLog:
    """Where a reading is logged (`folder`), of which model (its folder `home`) and `data`.

    `data` is "" for the model's own, as in `cmtscale.record.reads.Reading`. `was_read` says that
    the model knows its test accuracy.
    """

    folder: Path
    home: Path
    data: str
    was_read: bool

    def add(self, *, by: str, images: int, accuracy: float) -> int:
        """Log a reading that happens now; returns which one of its split it is, from 1."""
        number = self.earlier() + 1
        log_reading(
            self.folder,
            by=by,
            run_id=self.home.name,
            images=images,
            accuracy=accuracy,
            data=self.data,
        )
        return number

    def earlier(self) -> int:
        """How many readings of this split were logged; raises `ResultsError` for a damaged log."""
        logged = [entry for folder in {self.home, self.folder} for entry in readings(folder)]
        count = sum(reading.data == self.data for reading in logged)
        # the log stays behind where the model's folder alone is copied
        return max(count, int(self.was_read and not self.data))


def open_log(
    model: Path, description: ModelDescription, *, data: str, out: Path | None
) -> ReadingLog:
    """The log for readings of `data` with the model in the folder `model`.

    It lies in the folder of the training, or in that of a model that stands alone; where this
    cannot be written, in `out`. Raises `ResultsError` without `out`, or for a damaged log.
    """
    is_of_training = model.name == MODEL and (model.parent / RUN).is_file()
    home = model.parent if is_of_training else model
    is_writable = os.access(home, os.W_OK)
    if not is_writable and out is None:
        raise ResultsError(
            f"a reading of the test split is logged, and {home / TEST_READS} cannot be written; "
            "use --out, and it is logged there"
        )
    log = ReadingLog(
        folder=home if is_writable or out is None else out,
        home=home,
        data=data,
        was_read=description.scores.test_accuracy is not None,
    )
    log.earlier()
    return log
