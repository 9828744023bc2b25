"""Scores of predictions that were made up, against numbers worked out by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cmtscale.deploy.summary import (
    ImageScores,
    calibration_error,
    class_scores,
    confusion_matrix,
    confusions,
    wilson_interval,
    worst_mistakes,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 1])
NAMES = ("ant", "bee", "cat", "dog")


def test_the_calibration_error_is_the_weighted_distance_of_the_bins() -> None:
    # (0.5, 0.6]: 2 images, accuracy 0.5, confidence 0.55; (0.9, 1]: 3 images, 2/3 and 0.96
    confidences = np.array([0.52, 0.58, 0.93, 0.95, 1.0])
    right = np.array([True, False, True, False, True])
    expected = 2 / 5 * abs(0.5 - 0.55) + 3 / 5 * abs(2 / 3 - 0.96)
    assert calibration_error(confidences, right, bins=10) == pytest.approx(expected)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    # both in (0.25, 0.5]: their distances cancel, which they would not in two bins
    confidences, right = np.array([0.5, 0.375]), np.array([True, False])
    assert calibration_error(confidences, right, bins=4) == pytest.approx(abs(0.5 - 0.4375))


def test_a_network_that_is_as_often_right_as_it_says_is_calibrated() -> None:
    confidences = np.full(10, 0.7)
    assert calibration_error(confidences, np.arange(10) < 7) == pytest.approx(0)
    assert calibration_error(confidences, np.arange(10) < 10) == pytest.approx(0.3)


def test_classes_have_the_precision_and_recall_of_counting() -> None:
    matrix = confusion_matrix(LABELS, PREDICTED, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    ant, bee, cat, dog = class_scores(matrix, NAMES)
    assert (ant.images, ant.predicted, ant.right) == (3, 2, 2)
    assert (ant.precision, ant.recall) == (1.0, 2 / 3)
    assert (bee.precision, bee.recall) == (1 / 3, 0.5)
    assert (cat.precision, cat.recall) == (0.0, 0.0)
    assert (dog.precision, dog.recall) == (None, None)


def test_confusions_come_most_frequent_first() -> None:
    labels, predicted = np.array([2, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 2])
    pairs = confusions(confusion_matrix(labels, predicted, 3), NAMES[:3])
    assert [(pair.true, pair.predicted, pair.images) for pair in pairs] == [
        ("ant", "bee", 2),
        ("bee", "cat", 1),
        ("cat", "ant", 1),
    ]


def test_the_interval_of_an_accuracy_is_wilson_s() -> None:
    for right, images in ((8, 10), (0, 7), (50, 50), (9_312, 10_000)):
        expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
        assert wilson_interval(right, images) == pytest.approx((expected.low, expected.high))


def test_the_worst_mistakes_are_the_surest_ones() -> None:
    confidences = np.array([0.99, 0.6, 0.7, 0.9, 0.8, 0.95])
    scores = ImageScores(
        positions=np.arange(6),
        labels=LABELS,
        predicted=PREDICTED,
        ranks=np.zeros(6, dtype=np.int64),
        confidences=confidences,
        losses=np.zeros(6),
        raw_predicted=PREDICTED,
        raw_confidences=confidences,
        raw_losses=np.zeros(6),
    )
    assert worst_mistakes(scores, 2).tolist() == [5, 4]
    assert worst_mistakes(scores, 9).tolist() == [5, 4, 2]
