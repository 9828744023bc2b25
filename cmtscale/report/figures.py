"""The figures of a search, and saving them; a figure without data raises `ResultsError`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cmtscale.arch.errors import ResultsError
from cmtscale.report import frames
from cmtscale.report.against_macs import ablation, accuracy_flops
from cmtscale.report.curves import learning_curves
from cmtscale.report.horizons import forecast, ranking
from cmtscale.report.saving import render, write_figures
from cmtscale.report.ternary import certainty, triangle
from cmtscale.report.twins import load_twins, twins

__all__ = [
    "SavedFigures",
    "ablation",
    "accuracy_flops",
    "certainty",
    "forecast",
    "learning_curves",
    "ranking",
    "save_figures",
    "triangle",
    "twins",
]


@dataclass(frozen=True, kw_only=True)
class SavedFigures:
    """The files that `save_figures` wrote, and per figure that was left out, why."""

    files: tuple[Path, ...]
    skipped: dict[str, str]


def save_figures(path: str | Path, out: str | Path | None = None) -> SavedFigures:
    """Draw all figures of a run folder, or of a root of them, as PNG and SVG into `out`.

    `out` is `<path>/figures` by default. The same results give the same SVG bytes. Every file
    is replaced whole, after all were drawn. Raises `ResultsError`.
    """
    rows = frames.load_candidates(path)
    standings, expected = frames.load_standings(path), frames.load_forecast(path)
    curves = pd.concat([frames.load_curves(folder) for folder in frames.run_folders(path)])
    drawings: dict[str, Callable[[], Figure]] = {
        "accuracy-flops": lambda: accuracy_flops(rows, frames.load_literature()),
        "ablation": lambda: ablation(rows),
        "triangle": lambda: triangle(rows),
        "forecast": lambda: forecast(expected, standings, rows),
        "ranking": lambda: ranking(standings, rows),
        "certainty": lambda: certainty(standings, rows),
        "learning-curves": lambda: learning_curves(curves, rows),
    }
    checked = load_twins(path)
    if not checked.empty:
        drawings["twins"] = lambda: twins(checked)
    rendered: dict[str, bytes] = {}
    skipped: dict[str, str] = {}
    for name, draw in drawings.items():
        try:
            figure = draw()
        except ResultsError as error:
            skipped[name] = str(error)
            continue
        rendered |= {f"{name}.{kind}": render(figure, kind) for kind in ("png", "svg")}
    folder = Path(path) / "figures" if out is None else Path(out)
    return SavedFigures(files=write_figures(folder, rendered), skipped=skipped)
