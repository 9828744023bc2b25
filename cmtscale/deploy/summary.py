"""From what a network says of each image to the scores of a split: arithmetic without torch."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmtscale.record.evaluation import ClassScore, Confused

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BINS = 15  # of the calibration error, as in Guo et al. (2017)
TOP = 5
NORMAL_95 = 1.959964  # the 97.5 % point of the normal distribution


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageScores:
    """What scores need of each image that could be read: arrays (n,).

    `positions` are those in the split; `labels` and `predicted` outputs of the network; `ranks` how
    many classes are likelier than the true one; `confidences` the probabilities of what is
    predicted and `losses` in nats, at the model's temperature. The `raw_` ones are without it:
    averaged over mirror images, the likeliest class may be another one.
    """

    positions: IntArray
    labels: IntArray
    predicted: IntArray
    ranks: IntArray
    confidences: FloatArray
    losses: FloatArray
    raw_predicted: IntArray
    raw_confidences: FloatArray
    raw_losses: FloatArray

    def __len__(self) -> int:
        return len(self.labels)


def calibration_error(
    confidences: FloatArray, right: npt.NDArray[np.bool_], *, bins: int = BINS
) -> float:
    """ECE (Guo et al., 2017, equation 3): how far confidence is from accuracy, as a fraction.

    Images are put into bins of equal width, (0, 1/bins] and so on, by the probability of their
    predicted class; the distances of the bins' accuracy and mean confidence are averaged, weighted
    by images.
    """
    number = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    differences = np.bincount(number, weights=right - confidences, minlength=bins)
    return float(np.abs(differences).sum() / len(confidences))


def wilson_interval(right: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a fraction of which `right` of `images` were seen (Wilson, 1927)."""
    square = NORMAL_95**2
    fraction = right / images
    centre = fraction + square / (2 * images)
    reach = NORMAL_95 * math.sqrt(fraction * (1 - fraction) / images + square / (4 * images**2))
    scale = 1 + square / images
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def confusion_matrix(labels: IntArray, predicted: IntArray, classes: int) -> IntArray:
    """(classes, classes): images of a row's class that were taken for a column's."""
    counts = np.bincount(labels * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def class_scores(matrix: IntArray, names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Images, precision and recall of each class, from the confusion matrix."""
    return tuple(
        ClassScore(
            name=name,
            images=images,
            predicted=predicted,
            right=right,
            precision=right / predicted if predicted else None,
            recall=right / images if images else None,
        )
        for name, images, predicted, right in zip(
            names,
            matrix.sum(axis=1).tolist(),
            matrix.sum(axis=0).tolist(),
            matrix.diagonal().tolist(),
            strict=True,
        )
    )


def confusions(matrix: IntArray, names: tuple[str, ...]) -> tuple[Confused, ...]:
    """The pairs of classes that were confused, most images first."""
    wrong = matrix - np.diag(matrix.diagonal())
    true, predicted = wrong.nonzero()
    counts = wrong[true, predicted]
    return tuple(
        Confused(true=names[true[n]], predicted=names[predicted[n]], images=int(counts[n]))
        for n in np.argsort(-counts, kind="stable")
    )


def worst_mistakes(scores: ImageScores, count: int) -> IntArray:
    """The images, as rows of `scores`, with the most confidence in a wrong class, most first."""
    wrong = np.flatnonzero(scores.predicted != scores.labels)
    return wrong[np.argsort(-scores.confidences[wrong], kind="stable")][:count]
