"""The figures of an evaluation show its counts, and stay legible with many classes."""

import itertools

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from cmtscale.arch.errors import ResultsError
from cmtscale.record.evaluation import ClassScore, Confused, Evaluation, ImagePrediction
from cmtscale.report.confusion import SHOWN_PAIRS, confusion
from cmtscale.report.evaluation import save_evaluation_figures
from cmtscale.report.mistakes import mistakes
from cmtscale.report.saving import render


def made_up(matrix, names=None):
    """An evaluation with this confusion matrix."""
    matrix = np.array(matrix)
    names = names or [f"class {number}" for number in range(len(matrix))]
    pairs = [
        Confused(true=names[row], predicted=names[column], images=int(matrix[row, column]))
        for row, column in zip(*matrix.nonzero(), strict=True)
        if row != column
    ]
    classes = [
        ClassScore(
            name=name, images=int(images), predicted=int(predicted), right=int(right),
            precision=None, recall=None,
        )
        for name, images, predicted, right in zip(
            names, matrix.sum(1), matrix.sum(0), matrix.diagonal(), strict=True
        )
    ]  # fmt: skip
    return Evaluation(
        model="cmt-ti", weights="0" * 64, data="folder:/data/pets", split="test", own_data=True,
        reading=1, tta=None, device="cpu", images=int(matrix.sum()), unreadable=0,
        top1=float(matrix.trace() / matrix.sum()), top1_interval=(0.0, 1.0), top5=None,
        temperature=1.0, loss=1.0, raw_loss=1.0, calibration_error=0.0, raw_calibration_error=0.0,
        calibration_bins=15, classes=tuple(classes),
        confusions=tuple(sorted(pairs, key=lambda pair: -pair.images)),
    )  # fmt: skip


def random_matrix(classes):
    random = np.random.default_rng(classes)
    return random.poisson(0.3, (classes, classes)) + np.diag(random.integers(10, 40, classes))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def widest_overlap(labels, axis):
    """How far two tick labels reach into each other along an axis, in pixels; ≤ 0 for none."""
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.min[axis])
    return max(first.max[axis] - second.min[axis] for first, second in itertools.pairwise(boxes))


def test_the_matrix_shows_shares_of_rows_and_counts() -> None:
    figure = confusion(made_up([[6, 2, 0], [0, 5, 0], [0, 0, 0]], ["ant", "bee", "cat"]))
    ax = figure.axes[0]
    (image,) = ax.findobj(AxesImage)
    # nothing is or was taken for a cat
    assert np.array_equal(image.get_array(), [[0.75, 0.25], [0, 1]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ant", "bee"]
    assert sorted(text.get_text() for text in ax.texts) == ["2", "5", "6"]
    assert ax.get_title(loc="left") == "cmt-ti on pets, test\ntop-1 84.62 % of 13 images"


def test_a_class_that_is_only_predicted_has_an_empty_row() -> None:
    figure = confusion(made_up([[3, 1], [0, 0]]))
    (image,) = figure.axes[0].findobj(AxesImage)
    assert np.array_equal(np.ma.getmaskarray(image.get_array()), [[False, False], [True, True]])


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 60])
def test_class_names_never_overlap(classes: int) -> None:
    names = [f"a class of long name {number}" for number in range(classes)]
    figure = confusion(made_up(random_matrix(classes), names))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert bool(ax.texts) == (classes <= 20)
    assert widest_overlap(ax.get_yticklabels(), 1) <= 0
    assert widest_overlap(ax.get_xticklabels(), 0) <= 0
    sizes = [text.get_window_extent().width for text in ax.texts]
    cell_px = ax.get_window_extent().width / classes
    assert all(size <= cell_px for size in sizes)


@pytest.mark.parametrize("classes", [100, 1000])
def test_of_many_classes_the_most_confused_pairs_are_shown(classes: int) -> None:
    evaluation = made_up(random_matrix(classes))
    figure = confusion(evaluation)
    ax = figure.axes[0]
    assert not ax.findobj(QuadMesh)
    assert len(ax.patches) == SHOWN_PAIRS
    worst = evaluation.confusions[0]
    assert ax.get_yticklabels()[0].get_text() == f"{worst.true} → {worst.predicted}"
    images = {score.name: score.images for score in evaluation.classes}[worst.true]
    assert ax.patches[0].get_width() == pytest.approx(100 * worst.images / images)
    assert ax.texts[0].get_text() == f" {worst.images} of {images}"
    figure.draw_without_rendering()
    assert widest_overlap(ax.get_yticklabels(), 1) <= 0


def test_many_classes_without_a_mistake_have_no_figure() -> None:
    with pytest.raises(ResultsError, match="no image was taken for one of another class"):
        confusion(made_up(np.diag(np.full(61, 3))))


def predicted(probability, true="ant", name="bee"):
    return ImagePrediction(image="a.png", true=true, predicted=name, probability=probability)


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (5, 3), (24, 3)])
def test_mistakes_are_shown_with_what_was_said_and_what_is(count: int, channels: int) -> None:
    pixels = [np.full((9, 9, channels), number, dtype=np.uint8) for number in range(count)]
    worst = [predicted(0.999 - 0.01 * number) for number in range(count)]
    figure = mistakes(made_up([[9, 30], [1, 9]]), worst, pixels)
    assert len(figure.axes) == count
    for number, ax in enumerate(figure.axes):
        (image,) = ax.findobj(AxesImage)
        assert np.array_equal(image.get_array(), pixels[number].squeeze())
    assert texts(figure).count("is ant") == count
    assert "bee: 99.90 %" in texts(figure)
    assert f"the {count} most confident of 31 mistakes" in figure.get_suptitle()
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for ax in figure.axes for text in ax.texts]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_where_all_mistakes_are_shown_the_figure_says_so() -> None:
    figure = mistakes(made_up([[9, 1], [0, 9]]), [predicted(0.9)], [np.zeros((9, 9, 1), np.uint8)])
    assert "all mistakes, the most confident first" in figure.get_suptitle()


def test_no_mistakes_are_no_figure() -> None:
    with pytest.raises(ResultsError, match="no image was taken for one of another class"):
        mistakes(made_up([[9, 0], [0, 9]]), [], [])


def test_the_figures_of_an_earlier_evaluation_do_not_stay(tmp_path) -> None:
    pixels = [np.zeros((9, 9, 1), dtype=np.uint8)]
    both = save_evaluation_figures(
        tmp_path, made_up([[5, 1], [0, 5]]), worst=[predicted(0.9)], pixels=pixels
    )
    assert sorted(path.name for path in both) == ["confusion.png", "mistakes.png"]
    faultless = made_up([[5, 0], [0, 5]])
    saved = save_evaluation_figures(tmp_path, faultless, worst=[], pixels=[])
    assert saved == (tmp_path / "confusion.png",) == tuple(tmp_path.iterdir())


def test_class_names_are_shown_as_they_are() -> None:
    names = ["$a_1$", "犬"]  # neither mathematics nor letters of the font
    evaluation = made_up([[5, 1], [0, 5]], names)
    assert render(confusion(evaluation), "png", dpi=50).startswith(b"\x89PNG")
    shown = [label.get_text() for label in confusion(evaluation).axes[0].get_yticklabels()]
    assert shown == names
