"""The worst mistakes of a model as a contact sheet of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cmtscale.arch.errors import ResultsError
from cmtscale.record.evaluation import Evaluation, ImagePrediction
from cmtscale.report.confusion import headline, shortened
from cmtscale.report.layout import COLUMN_IN, VERMILLION, styled

COLUMNS = 6


@styled
def mistakes(
    evaluation: Evaluation,
    worst: Sequence[ImagePrediction],
    pixels: Sequence[npt.NDArray[np.uint8]],
) -> Figure:
    """Images (side, side, C) that were taken for another class with the most confidence.

    Below each the predicted class with its probability, and the true one. Raises `ResultsError`
    if there is none.
    """
    if not worst:
        raise ResultsError("no image was taken for one of another class")
    columns = min(COLUMNS, len(worst))
    rows = -(-len(worst) // columns)
    width_in = max(COLUMN_IN, 2 * COLUMN_IN * columns / COLUMNS)
    figure = Figure(figsize=(width_in, 0.6 + 1.4 * rows), layout="constrained")
    for number, (mistake, image) in enumerate(zip(worst, pixels, strict=True)):
        ax = figure.add_subplot(rows, columns, number + 1)
        ax.imshow(
            image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255
        )
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        below: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 6.5}
        below |= {"transform": ax.transAxes, "parse_math": False}
        said = f"{shortened(mistake.predicted)}: {_percent(mistake.probability)}"
        ax.text(0.5, -0.03, said, color=VERMILLION, **below)
        ax.text(0.5, -0.14, f"is {shortened(mistake.true)}", color="black", **below)
    wrong = sum(pair.images for pair in evaluation.confusions)
    which = f"the {len(worst)} most confident of {wrong:,} mistakes"
    if len(worst) == wrong:
        which = "all mistakes, the most confident first"
    figure.suptitle(
        f"{headline(evaluation)}\n{which}: "
        "what was predicted, and what it is",
        x=0.01, ha="left", fontsize=7.5, parse_math=False,
    )  # fmt: skip
    return figure


def _percent(probability: float) -> str:
    """`97 %`, and with decimals where the nearest whole per cent would be 100."""
    percent = 100 * probability
    if percent >= 99.995:
        return "> 99.99 %"
    return f"{percent:.2f} %" if percent >= 99.5 else f"{percent:.0f} %"
