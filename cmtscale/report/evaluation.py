"""The figures of an evaluation as files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cmtscale.arch.errors import ResultsError
from cmtscale.record.evaluation import Evaluation, ImagePrediction
from cmtscale.report.confusion import confusion
from cmtscale.report.mistakes import mistakes
from cmtscale.report.saving import render, write_figures

CONFUSION, MISTAKES = "confusion.png", "mistakes.png"
DPI = 200  # pictures of images are large


def save_evaluation_figures(
    out: Path,
    evaluation: Evaluation,
    *,
    worst: Sequence[ImagePrediction],
    pixels: Sequence[npt.NDArray[np.uint8]],
) -> tuple[Path, ...]:
    """Write `confusion.png` and `mistakes.png` into `out`; returns the files.

    Without mistakes there may be nothing to draw: then a figure of an earlier evaluation is
    removed. Raises `ResultsError` where `out` cannot be written.
    """
    drawings: dict[str, Callable[[], Figure]] = {
        CONFUSION: lambda: confusion(evaluation),
        MISTAKES: lambda: mistakes(evaluation, worst, pixels),
    }
    contents = {}
    for name, draw in drawings.items():
        try:
            contents[name] = render(draw(), "png", dpi=DPI)
        except ResultsError:
            (out / name).unlink(missing_ok=True)
    return write_figures(out, contents)
