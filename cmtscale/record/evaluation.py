"""What a trained model scores on a split: the numbers, class by class and image by image.

evaluation.json   the numbers (`Evaluation`)
per_class.csv     images, precision and recall of each class
predictions.csv   each image: its class, the predicted one, and the probability of that
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, write_json, write_text_atomically
from cmtscale.record.typed import record_of

EVALUATION, PER_CLASS, PREDICTIONS = "evaluation.json", "per_class.csv", "predictions.csv"
TTA = Literal["flip"]  # test-time augmentation


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class: how many images it has, how many were predicted, how many of those `right`.

    `precision` is right / predicted, None if it was never predicted; `recall` is right / images,
    None of a class without images.
    """

    name: str
    images: int
    predicted: int
    right: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True, kw_only=True)
class Confused:
    """How many images of the class `true` were taken for `predicted`, another one."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True, kw_only=True)
class ImagePrediction:
    """One image: its class, the predicted one, and the probability that this was given."""

    image: str
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of one model on one split; accuracies are fractions, losses mean nats.

    `weights` is the sha256 of the weights. `own_data`: the model was trained on this data set.
    `reading`: the how-manyth logged one of this test split; None of another split. `unreadable`
    files are in no number. `top5` is None for five classes or fewer. `top1_interval` holds the true
    accuracy with 95 % confidence, for images drawn alike. The `raw_` numbers are of the network's
    probabilities as they are, the others of those at the model's `temperature`; `calibration_error`
    is the ECE over `calibration_bins` bins of equal width (Guo et al., 2017). `confusions` are in
    order of their images, most first.
    """

    model: str
    weights: str
    data: str
    split: str
    own_data: bool
    reading: int | None
    tta: TTA | None
    device: str
    images: int
    unreadable: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    temperature: float
    loss: float
    raw_loss: float
    calibration_error: float
    raw_calibration_error: float
    calibration_bins: int
    classes: tuple[ClassScore, ...]
    confusions: tuple[Confused, ...]

    def confusion_matrix(self) -> npt.NDArray[np.int64]:
        """(classes, classes): how many images of a row's class were taken for a column's."""
        number = {score.name: index for index, score in enumerate(self.classes)}
        matrix = np.diag(np.array([score.right for score in self.classes], dtype=np.int64))
        for pair in self.confusions:
            matrix[number[pair.true], number[pair.predicted]] = pair.images
        return matrix


def write_evaluation(
    folder: Path, evaluation: Evaluation, predictions: Sequence[ImagePrediction]
) -> tuple[Path, ...]:
    """Write the three files; those of an earlier evaluation are replaced. Raises `OSError`."""
    files = {
        PER_CLASS: _table(ClassScore, evaluation.classes),
        PREDICTIONS: _table(ImagePrediction, predictions),
    }
    for name, text in files.items():
        write_text_atomically(folder / name, text)
    write_json(folder / EVALUATION, asdict(evaluation))
    return tuple(folder / name for name in (EVALUATION, *files))


def read_evaluation(folder: Path) -> Evaluation:
    """The numbers in `evaluation.json`; raises `ResultsError` where there are none."""
    path = folder / EVALUATION
    try:
        table = read_json(path)
    except FileNotFoundError as error:
        raise ResultsError(f"{path} does not exist; `cmtscale eval … --out` writes it") from error
    try:
        return record_of(Evaluation, table)
    except ValueError as error:
        raise ResultsError(f"{path} is damaged: {error}; evaluate anew") from error


def _table(kind: type, rows: Iterable[Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(kind))
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()
