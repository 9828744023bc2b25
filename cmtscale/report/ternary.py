"""The triangle of log shares, coloured by score, or by how probably one is among the best."""

from dataclasses import asdict
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from mpltern.ternary import TernaryAxes

from cmtscale.arch import paper
from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import ResultsError
from cmtscale.arch.scaling import Scaling
from cmtscale.report.frames import complete
from cmtscale.report.horizons import NO_FORECAST, heading
from cmtscale.report.labels import Label, label_points
from cmtscale.report.layout import BLACK, GREY, PALE, VERMILLION, about, describe, panels, styled

_CORNERS = ["resolution", "depth", "width"]  # top, left, right


@styled
def triangle(candidates: pd.DataFrame) -> Figure:
    """The on-budget candidates in the triangle of log shares, coloured by validation loss.

    One panel per run and rung, each with its own colours: losses of different rungs do not
    compare. Raises `ResultsError` where no on-budget candidate is complete.
    """
    completed = complete(candidates)
    on_budget = completed[completed["on_budget"] & completed[_CORNERS].notna().all(axis=1)]
    if on_budget.empty:
        raise ResultsError("no candidate on the budget has finished; wait for one")
    figure, groups = panels(on_budget, ["run", "rung"], height_in=3.5, axes_class=TernaryAxes)
    labelled_axes: list[tuple[Axes, list[Label], Any]] = []
    for ax, group in groups:
        _draw_frame(ax)
        budget = format_macs(group["budget_macs"].iloc[0])
        label = f"validation loss for {budget} (lower is better)"
        points = _draw_points(ax, group, group["val_loss"], label)
        labels = _mark_choice_and_paper(ax, group)
        rows = about(candidates, group, ["run", "rung"])
        title = describe(rows, name_run=len(groups) > 1) + _tokens_note(group)
        ax.set_title(title, x=-0.2, y=1, pad=30)  # above the corner's name
        labelled_axes.append((ax, labels, points.get_offsets()))
    label_points(figure, labelled_axes)
    return figure


@styled
def certainty(standings: pd.DataFrame, candidates: pd.DataFrame) -> Figure:
    """The candidates that may be chosen, coloured by how probably they are as good as the best.

    One panel per run, all with the same colours. Raises `ResultsError` where no search made a
    forecast.
    """
    on_budget = standings[standings["may_win"].astype(bool)]
    if on_budget.empty:
        raise ResultsError(NO_FORECAST)
    figure, groups = panels(on_budget, ["run"], height_in=3.5, axes_class=TernaryAxes)
    labelled_axes: list[tuple[Axes, list[Label], Any]] = []
    for ax, group in groups:
        _draw_frame(ax)
        label = f"probability of being as good as the best at {group['target_images'].iloc[0]:,}"
        points = _draw_points(ax, group, group["near"], label, limits=(0.0, 1.0))
        labels = _mark_choice_and_paper(ax, group)
        title = heading(group, candidates, len(groups)) + _tokens_note(group)
        ax.set_title(title, x=-0.2, y=1, pad=30)  # above the corner's name
        labelled_axes.append((ax, labels, points.get_offsets()))
    label_points(figure, labelled_axes)
    return figure


def _draw_frame(ax: Any) -> None:
    """The frame: edges, a line per quarter share, corners named by what alone grows there."""
    growth = paper.PHI_BASE
    for axis, name in (
        (ax.taxis, f"resolution only\nγ = {growth ** (1 / paper.RESOLUTION_EXPONENT):.3g}"),
        (ax.laxis, f"depth only\nα = {growth:.3g}"),
        (ax.raxis, f"width only\nβ = {growth ** (1 / paper.WIDTH_EXPONENT):.3g}"),
    ):
        axis.set_label_text(name)
        axis.set_label_rotation_mode("horizontal")
        axis.labelpad = 6  # off the ring round a choice in the corner
        axis.set_ticks([0.25, 0.5, 0.75])
        axis.set_tick_params(length=0, label1On=False)
        axis.grid(color=PALE, lw=0.4)
    for edge in ax.spines.values():
        edge.set(color=GREY, lw=0.8)
    ax.set_axisbelow(True)


def _draw_points(
    ax: Any,
    group: pd.DataFrame,
    values: "pd.Series[float]",
    label: str,
    limits: tuple[float, float] | None = None,
) -> PathCollection:
    """Dots in the colours of `values`; yellow is what one looks for."""
    low, high = limits or (None, None)
    points: PathCollection = ax.scatter(
        *(group[name] for name in _CORNERS), c=values, vmin=low, vmax=high,
        cmap="viridis" if limits else "viridis_r",
        s=34, ec=BLACK, lw=0.4, zorder=3, clip_on=False,
    )  # fmt: skip
    bar = ax.figure.colorbar(points, ax=ax, location="bottom", aspect=30, pad=0.02)
    bar.set_label(label)
    bar.ax.xaxis.set_major_locator(MaxNLocator(5))
    return points


def _mark_choice_and_paper(ax: Any, group: pd.DataFrame) -> list[Label]:
    """A ring round the choice, a diamond round the paper's constants; returns their labels."""
    chosen = [
        (row, f"choice {row['candidate']}", BLACK, {"marker": "o", "ms": 9.5})
        for _, row in group[group["chosen"]].iterrows()
    ]
    published = pd.Series(asdict(Scaling(1.0).shares))  # they sum to 0.93; the direction counts
    marks = [*chosen, (published, "paper's constants", VERMILLION, {"marker": "D", "ms": 8.5})]
    labels: list[Label] = []
    for shares, text, colour, look in marks:
        (mark,) = ax.plot(
            *shares[_CORNERS], mfc="none", mec=colour, mew=1.2, zorder=4, clip_on=False, **look
        )
        labels.append((*mark.get_xydata()[0], text, colour))
    return labels


def _tokens_note(group: pd.DataFrame) -> str:
    native, smallest = group["native_px"].min(), group["proxy_resolution_px"].min()
    if not smallest > native:
        return ""
    return f"\nimages of {native:.0f} px: resolution adds tokens, not detail"
