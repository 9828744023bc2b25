"""Which classes a model takes for which: the confusion matrix, or of many the worst pairs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cmtscale.arch.errors import ResultsError
from cmtscale.record.evaluation import Evaluation
from cmtscale.report.layout import BLUE, COLUMN_IN, GREY, styled

MOST_WITH_COUNTS = 20  # classes: above that, numbers in the cells are too small to read
MOST_IN_MATRIX = 60  # classes: above that, names beside the rows are
SHOWN_PAIRS = 30
LONGEST_NAME = 18  # characters of a class
CELL_IN, SMALL_CELL_IN = 0.34, 0.12


@styled
def confusion(evaluation: Evaluation) -> Figure:
    """The share of each class (row) that was taken for each class (column), as an image.

    With counts up to 20 classes; above 60 the pairs that were confused most, as bars. Classes that
    neither occur nor were predicted are left out. Raises `ResultsError` where bars would be drawn
    and nothing was confused.
    """
    kept = [
        index for index, score in enumerate(evaluation.classes) if score.images or score.predicted
    ]
    if len(kept) > MOST_IN_MATRIX:
        return _pairs(evaluation)
    names = [shortened(evaluation.classes[index].name) for index in kept]
    matrix = evaluation.confusion_matrix()[np.ix_(kept, kept)]
    has_counts = len(kept) <= MOST_WITH_COUNTS
    side_in = max(2.0, len(kept) * (CELL_IN if has_counts else SMALL_CELL_IN))
    figure = Figure(figsize=(side_in + 1.9, side_in + 1.5), layout="constrained")
    ax = figure.add_subplot()
    _draw(ax, matrix, names, has_counts=has_counts)
    ax.set_title(headline(evaluation), parse_math=False)
    return figure


def _draw(ax: Axes, matrix: np.ndarray, names: list[str], *, has_counts: bool) -> None:
    sums = matrix.sum(axis=1, keepdims=True)
    # a class without images has a row of no colour
    shares = np.where(sums > 0, matrix / np.maximum(sums, 1), np.nan)
    # the root makes a hundredth visible: most cells hold few images
    image = ax.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    positions = range(len(names))
    size = 6.5 if has_counts else 5.0
    ax.set_xticks(positions, names, rotation=90, fontsize=size, parse_math=False)
    ax.set_yticks(positions, names, fontsize=size, parse_math=False)
    ax.tick_params(length=0)
    ax.set(xlabel="predicted", ylabel="true class")
    ax.spines[:].set_visible(False)
    ax.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#E4E4E4", linewidth=0.3)
    ax.tick_params(which="minor", length=0)
    assert ax.figure is not None
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, aspect=30, pad=0.02)
    bar.set_ticks([0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.set_label("share of the class's images")
    bar.outline.set_visible(False)
    if has_counts:
        for row, column in zip(*matrix.nonzero(), strict=True):
            ax.text(
                column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=6.0,
                color="white" if shares[row, column] > 0.4 else "black",
            )  # fmt: skip


def _pairs(evaluation: Evaluation) -> Figure:
    pairs = evaluation.confusions[:SHOWN_PAIRS]
    if not pairs:
        raise ResultsError("no image was taken for one of another class")
    sizes = {score.name: score.images for score in evaluation.classes}
    figure = Figure(figsize=(1.6 * COLUMN_IN, 0.9 + 0.17 * len(pairs)), layout="constrained")
    ax = figure.add_subplot()
    positions = range(len(pairs))
    shares = [100 * pair.images / sizes[pair.true] for pair in pairs]
    ax.barh(positions, shares, height=0.7, color=BLUE)
    for position, share, pair in zip(positions, shares, pairs, strict=True):
        counts = f" {pair.images:,} of {sizes[pair.true]:,}"
        ax.text(share, position, counts, va="center", fontsize=6.0, color=GREY)
    labels = [f"{shortened(pair.true)} → {shortened(pair.predicted)}" for pair in pairs]
    ax.set_yticks(positions, labels, fontsize=6.5, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_ylim(len(pairs) - 0.4, -0.6)
    ax.set_xlim(0, 1.18 * max(shares))
    ax.set_xlabel("% of the true class's images")
    wrong = sum(pair.images for pair in evaluation.confusions)
    shown = sum(pair.images for pair in pairs)
    ax.set_title(
        f"{headline(evaluation)}\ntrue → predicted: the {len(pairs)} most frequent, "
        f"{shown:,} of {wrong:,} mistakes",
        parse_math=False,
    )
    return figure


def headline(evaluation: Evaluation) -> str:
    """Model, data, split and accuracy; two lines."""
    data = evaluation.data.rsplit("/", 1)[-1]
    mirrored = ", with mirror images" if evaluation.tta else ""
    return (
        f"{evaluation.model} on {data}, {evaluation.split}{mirrored}\n"
        f"top-1 {100 * evaluation.top1:.2f} % of {evaluation.images:,} images"
    )


def shortened(name: str) -> str:
    """A class's name, without its middle where it is too long for a figure."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2]}…{name[-(LONGEST_NAME // 2 - 1) :]}"
