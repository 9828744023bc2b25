"""How good a trained model is on labelled images; each reading of a test split is logged."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cmtscale.arch.errors import DataError
from cmtscale.data.preprocess import Preprocess
from cmtscale.deploy.images import LabelledImages, open_images
from cmtscale.deploy.load import load_model
from cmtscale.deploy.reading import open_log
from cmtscale.deploy.scoring import score_images
from cmtscale.deploy.summary import (
    BINS,
    TOP,
    ImageScores,
    calibration_error,
    class_scores,
    confusion_matrix,
    confusions,
    wilson_interval,
    worst_mistakes,
)
from cmtscale.record.evaluation import TTA, Evaluation, ImagePrediction
from cmtscale.record.folder import held
from cmtscale.record.model_folder import ModelDescription, find_model, read_description

MISTAKES = 24  # on a contact sheet
BY = "eval"  # what the log of readings calls this


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """An evaluation with what it rests on.

    `predictions` of each image that could be read, in order; `mistakes`, the worst first, with the
    `mistake_pixels` that the network saw, uint8 (side, side, C). `unreadable` says of each other
    file why. `cautions` are doubts about the scores. `log` is the folder in which a reading
    of the test split was logged.
    """

    evaluation: Evaluation
    predictions: tuple[ImagePrediction, ...]
    mistakes: tuple[ImagePrediction, ...]
    mistake_pixels: tuple[npt.NDArray[np.uint8], ...]
    unreadable: tuple[str, ...]
    cautions: tuple[str, ...]
    log: Path | None


def evaluate(
    path: str | Path,
    data: str,
    *,
    split: str | None = None,
    tta: TTA | None = None,
    device: str = "cpu",
    out: Path | None = None,
    cache_dir: Path | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> Evaluated:
    """Score the model in the folder `path` on a split of `data`, with its own preprocessing.

    Which split, and which images are in it: see `open_images`. A reading of a test split is logged
    in the folder of the training or the model, or in `out` where that cannot be written. Files
    that cannot be read are left out and named. With `tta` the probabilities are averaged over an
    image and its mirror image. `watch` hears of images done, and of all. Raises a `CmtscaleError`
    before anything is read where model and data do not go together.
    """
    folder = find_model(Path(path))
    description, weights = read_description(folder)
    temperature = description.scores.temperature
    images = open_images(description, data, split=split, cache_dir=cache_dir)
    if tta is not None and not images.may_flip:
        raise DataError(f"a mirrored image of {images.data} may be of another class; drop --tta")
    with ExitStack() as stack:
        log = None
        if images.split == "test":
            its_data = "" if images.is_own else images.data
            log = open_log(folder, description, data=its_data, out=out)
            stack.enter_context(held(log.folder))
        preprocess = Preprocess(description.preprocessing)
        count = len(images.labels)
        scores, unreadable = score_images(
            load_model(folder, device=device).model,
            preprocess,
            images,
            temperature=temperature,
            mirrored=tta is not None,
            watch=None if watch is None else lambda done: watch(done, count),
        )
        reading = None
        if log is not None:
            by = BY if tta is None else f"{BY} --tta {tta}"
            accuracy = float((scores.predicted == scores.labels).mean())
            reading = log.add(by=by, images=len(scores), accuracy=accuracy)
    evaluation = _evaluation(
        description, images, scores, weights=weights, tta=tta, device=device,
        reading=reading, unreadable=len(unreadable),
    )  # fmt: skip
    predictions = _predictions(scores, images, description.classes)
    worst = worst_mistakes(scores, MISTAKES)
    return Evaluated(
        evaluation=evaluation,
        predictions=predictions,
        mistakes=tuple(predictions[row] for row in worst),
        mistake_pixels=tuple(
            preprocess.pixels(images.read(int(scores.positions[row]))) for row in worst
        ),
        unreadable=unreadable,
        cautions=_cautions(description, images, tta),
        log=None if log is None else log.folder,
    )


def _cautions(
    description: ModelDescription, images: LabelledImages, tta: TTA | None
) -> tuple[str, ...]:
    unlike = "the model was not trained on mirrored images: their mean may well score worse"
    is_unlike = tta == "flip" and description.recipe.get("flip") is False
    return tuple(filter(None, (images.caution, unlike if is_unlike else "")))


def _evaluation(
    description: ModelDescription,
    images: LabelledImages,
    scores: ImageScores,
    *,
    weights: str,
    tta: TTA | None,
    device: str,
    reading: int | None,
    unreadable: int,
) -> Evaluation:
    classes = description.classes
    matrix = confusion_matrix(scores.labels, scores.predicted, len(classes))
    right = scores.predicted == scores.labels
    return Evaluation(
        model=description.network.name,
        weights=weights,
        data=images.data,
        split=images.split,
        own_data=images.is_own,
        reading=reading,
        tta=tta,
        device=device,
        images=len(scores),
        unreadable=unreadable,
        top1=float(right.mean()),
        top1_interval=wilson_interval(int(right.sum()), len(scores)),
        top5=float((scores.ranks < TOP).mean()) if len(classes) > TOP else None,
        temperature=description.scores.temperature,
        loss=float(scores.losses.mean()),
        raw_loss=float(scores.raw_losses.mean()),
        calibration_error=calibration_error(scores.confidences, right),
        raw_calibration_error=calibration_error(
            scores.raw_confidences, scores.raw_predicted == scores.labels
        ),
        calibration_bins=BINS,
        classes=class_scores(matrix, classes),
        confusions=confusions(matrix, classes),
    )


def _predictions(
    scores: ImageScores, images: LabelledImages, classes: tuple[str, ...]
) -> tuple[ImagePrediction, ...]:
    return tuple(
        ImagePrediction(
            image=images.names[position],
            true=classes[label],
            predicted=classes[predicted],
            probability=probability,
        )
        for position, label, predicted, probability in zip(
            scores.positions.tolist(),
            scores.labels.tolist(),
            scores.predicted.tolist(),
            scores.confidences.tolist(),
            strict=True,
        )
    )
