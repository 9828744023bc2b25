"""Learning curves: one line per candidate, the best labelled."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import ResultsError
from cmtscale.report.labels import Label, label_ends
from cmtscale.report.layout import (
    ACCURACY,
    BLUE,
    GREEN,
    ORANGE,
    PALE,
    PURPLE,
    VERMILLION,
    about,
    accuracy_axis,
    describe,
    panels,
    styled,
)

_LOOKS = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (ORANGE, "D"))


@styled
def learning_curves(curves: pd.DataFrame, candidates: pd.DataFrame) -> Figure:
    """Validation accuracy against images seen, one line per candidate (mean over its seeds).

    Training loss where nothing was evaluated on the way. The three best by score, the choice and
    the paper's constants are labelled with their shares. One panel per run and rung. Raises
    `ResultsError` where no curve of a complete run was kept.
    """
    completed = curves[curves["status"] == "complete"]
    if completed.empty:
        raise ResultsError("no metrics.jsonl or curves.csv holds the curve of a complete run")
    evaluations = completed.groupby("run_id")["val_accuracy"].count()
    metric, factor = ("val_accuracy", 100.0) if evaluations.max() > 1 else ("train_loss", 1.0)
    keys = ["run", "rung", "candidate", "images"]
    lines = completed.dropna(subset=[metric]).groupby(keys)[[metric]].mean().reset_index()
    figure, groups = panels(lines, ["run", "rung"], height_in=2.7)
    labelled_axes: list[tuple[Axes, list[Label]]] = []
    for ax, group in groups:
        rows = about(candidates, group, ["run", "rung"])
        labels: list[Label] = []
        highlights = _highlights(rows)
        for name, line in group.groupby("candidate", sort=True):
            colour, marker, text = highlights.get(
                str(name), (PALE, "." if len(line) == 1 else "", "")
            )
            x, y = line["images"].to_numpy(), factor * line[metric].to_numpy()
            width, zorder = (1.4, 3) if text else (0.7, 2)
            ax.plot(x, y, color=colour, marker=marker, ms=3, lw=width, zorder=zorder, label=name)
            labels += [(x[-1], y[-1], text, colour)] if text else []
        ax.set(xlabel="training images seen", ylabel=ACCURACY if factor > 1 else "training loss")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        title = describe(rows, name_run=len(groups) > 1)
        budget = format_macs(rows["budget_macs"].iloc[0])
        ax.set_title(f"{title}\nfor {budget}; labels: depth/width/resolution share in %")
        # the first third rises steeply for all alike and would flatten the rest
        start = group["images"].max() / 3
        late_values = factor * group[group["images"] >= start][metric]
        ax.set_xlim(left=0.9 * start)
        spread = np.ptp(late_values) or 1.0
        ax.set_ylim(late_values.min() - 0.02 * spread, late_values.max() + 0.05 * spread)
        if factor > 1:
            accuracy_axis(ax)
        labelled_axes.append((ax, labels))
    label_ends(figure, labelled_axes)
    return figure


def _highlights(candidates: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and label of the candidates that a learning curve is labelled for."""
    ranked = candidates[candidates["may_win"]].sort_values("val_loss")
    chosen = ranked[ranked["chosen"]]
    marked = pd.concat([chosen, ranked.head(3)]).drop_duplicates("candidate")
    looks = list(zip(marked.itertuples(), _LOOKS, strict=False))
    papers = ranked[(ranked["role"] == "paper") & ~ranked["candidate"].isin(marked["candidate"])]
    looks += [(row, (PURPLE, "P")) for row in papers.itertuples()]
    return {
        str(row.candidate): (colour, marker, _share_label(row)) for row, (colour, marker) in looks
    }


def _share_label(row: Any) -> str:
    shares = "/".join(f"{100 * share:.0f}" for share in (row.depth, row.width, row.resolution))
    return shares + (" choice" if row.chosen else " paper" if row.role == "paper" else "")
