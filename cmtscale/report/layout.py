"""How figures look: size, fonts, palette, panels, and labels that do not overlap."""

import itertools
import textwrap
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from cmtscale.arch.budget import format_macs

COLUMN_IN = 3.5  # one column of a two-column page; several panels take both
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 7.0,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "svg.hashsalt": "cmtscale",  # the same frame gives the same bytes
}
ACCURACY = "validation accuracy (%)"
# Okabe and Ito's palette for any colour vision, without its yellow, too pale for lines
BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, BLACK, GREY, PALE = "#CC79A7", "#56B4E9", "#000000", "#767676", "#C8C8C8"
MARKS = (
    (BLUE, "o"),
    (VERMILLION, "s"),
    (GREEN, "^"),
    (ORANGE, "D"),
    (PURPLE, "v"),
    (SKY, "P"),
    (BLACK, "X"),
)

_LEADER = {"arrowstyle": "-", "lw": 0.5, "shrinkA": 0}
_DISTANCES = (8, 14, 20, 28, 38, 50)  # in points, from a mark to the nearest edge of its label
_ANGLES = np.deg2rad(range(0, 360, 30))
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).round(3)
_TITLE_CHARACTERS = 50  # what fits over one column's axes
_NO_BREAK = "\N{NO-BREAK SPACE}"

Label = tuple[float, float, str, str]  # x, y in data coordinates, text, colour
_Arguments = ParamSpec("_Arguments")


def styled(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Run a drawing function under `STYLE`, whatever the user's matplotlibrc says."""

    @wraps(draw)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return wrapper


def panels(
    frame: pd.DataFrame, by: list[str], *, height_in: float, axes_class: type[Axes] = Axes
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with one panel per group of `frame`: one column wide, or two with several."""
    groups: list[tuple[Hashable, pd.DataFrame]] = list(frame.groupby(by, sort=True))
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(COLUMN_IN * columns, height_in * rows), layout="constrained")
    axes = [
        figure.add_subplot(rows, columns, number + 1, axes_class=axes_class)
        for number in range(len(groups))
    ]
    return figure, [(ax, group) for ax, (_, group) in zip(axes, groups, strict=True)]


def about(candidates: pd.DataFrame, group: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """All candidates, failed ones too, of the runs that a panel shows."""
    return candidates.merge(group[by].drop_duplicates(), on=by)


def describe(group: pd.DataFrame, *, name_run: bool = False) -> str:
    """A panel's title: data, seeds, horizon, failed runs, and if it is a tour or unfinished."""
    failed = int(group["failed"].sum())
    parts = [
        ", ".join(sorted({data.rsplit("/", 1)[-1] for data in group["data"]})),
        _range(group["seeds"], "seed"),
        f"{_range(group['epochs'], 'epoch')} of {_range(group['train_images'], 'image')}",
    ]
    if failed:
        parts.append(f"{failed} run{'s' if failed > 1 else ''} failed")
    lines = [", ".join(part.replace(" ", _NO_BREAK) for part in parts)]
    if name_run:
        names = ", ".join(sorted(set(group["run"])))
        one_of_several = group["rungs"].max() > 1 and group["rung"].nunique() == 1
        lines.insert(0, f"{names}, rung {group['rung'].iloc[0]}" if one_of_several else names)
    if group["tour"].all():
        lines.append("tour: recommends nothing")
    elif group["tour"].any():
        lines.append("tours among them recommend nothing")
    unfinished, searches = group.loc[~group["finished"], "run"].nunique(), group["run"].nunique()
    if unfinished and searches == 1:
        lines.append("the search is not finished")
    elif unfinished:
        lines.append(f"{unfinished} of {searches} searches not finished")
    wrapped = [textwrap.fill(line, _TITLE_CHARACTERS) for line in lines]
    return "\n".join(wrapped).replace(_NO_BREAK, " ")


def macs_axis(ax: Axes, macs: Iterable[float]) -> None:
    """Cost along x: logarithmic unless all cost about the same; ticks as budgets are written."""
    values = list(macs)
    low, high = min(values), max(values)
    if high > 1.5 * low:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        ax.set_xlim(low / 1.4, high * 1.25)
    else:
        middle = (low + high) / 2
        ax.set_xlim(min(low, 0.96 * middle), max(high, 1.04 * middle))
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_macs(value)))


def accuracy_axis(ax: Axes) -> None:
    """End the axis of accuracies in % at 100 and half a marker; call when all is drawn."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, min(high, 100 + 0.03 * (100 - low)))


def label_points(
    figure: Figure,
    panels: Sequence[tuple[Axes, Sequence[Label], Iterable[tuple[float, float]]]],
) -> None:
    """Write each label beside its point, at the nearest offset that covers no point and no text.

    To be called once, when everything else is drawn: what is drawn later moves the axes.
    """
    figure.draw_without_rendering()
    for ax, labels, points in panels:
        _place(figure, ax, labels, points)


def _place(
    figure: Figure, ax: Axes, labels: Sequence[Label], points: Iterable[tuple[float, float]]
) -> None:
    px_per_point = figure.dpi / 72
    marks = ax.transData.transform([*points, *((x, y) for x, y, _, _ in labels)])
    obstacles = [text.get_window_extent() for text in ax.findobj(Text) if text.get_text()]
    obstacles += [Bbox.from_bounds(x, y, 0, 0).padded(3 * px_per_point) for x, y in marks]
    panel = ax.get_tightbbox()
    assert panel is not None
    for x, y, text, colour in labels:
        measured = figure.text(0, 0, text)
        size = np.asarray(measured.get_window_extent().size)
        measured.remove()
        shifts = [
            distance * px_per_point * direction + size / 2 * np.sign(direction)
            for distance, direction in itertools.product(_DISTANCES, _DIRECTIONS)
        ]
        corner = ax.transData.transform((x, y)) - size / 2
        boxes = [Bbox.from_bounds(*(corner + shift), *size) for shift in shifts]
        best = int(np.argmin([_penalty(box, panel, obstacles) for box in boxes]))
        line_needed = best >= len(_DIRECTIONS)  # not at the smallest distance
        note = ax.annotate(
            text, (x, y), shifts[best] / px_per_point, textcoords="offset points", color=colour,
            ha="center", va="center",
            arrowprops={**_LEADER, "color": colour, "shrinkB": 6} if line_needed else None,
        )  # fmt: skip
        note.set_in_layout(False)
        obstacles.append(boxes[best].padded(px_per_point))


def _penalty(box: Bbox, panel: Bbox, obstacles: Iterable[Bbox]) -> int:
    """How many obstacles a label's box covers; a box outside of the panel is worse than any."""
    inside = panel.contains(box.x0, box.y0) and panel.contains(box.x1, box.y1)
    return sum(box.overlaps(obstacle) for obstacle in obstacles) + 100 * (not inside)


def label_ends(figure: Figure, panels: Sequence[tuple[Axes, Sequence[Label]]]) -> None:
    """Write labels right of each of the axes at the height of their line ends, moved apart.

    To be called once, when everything else is drawn: what is drawn later moves the axes.
    """
    figure.draw_without_rendering()
    gap = 9.5 * figure.dpi / 72  # a line of 7 pt text
    for ax, labels in panels:
        ordered = sorted(labels, key=lambda label: label[1])
        targets = [ax.transData.transform((x, y))[1] for x, y, _, _ in ordered]
        frame = ax.get_window_extent()
        heights = spread(targets, gap, frame.y0, frame.y1)
        for (x, y, text, colour), height in zip(ordered, heights, strict=True):
            ax.annotate(
                text,
                (x, y),
                xytext=(1.03, (height - frame.y0) / frame.height),
                textcoords="axes fraction",
                color=colour,
                va="center",
                annotation_clip=False,
                arrowprops={**_LEADER, "color": colour, "relpos": (0, 0.5), "shrinkB": 2},
            )


def spread(targets: Sequence[float], gap: float, low: float, high: float) -> NDArray[np.float64]:
    """The heights nearest to the targets (both sorted) that are at least `gap` apart.

    Within `low` to `high` if they fit there.
    """
    steps = gap * np.arange(len(targets))
    level = isotonic_regression(np.asarray(targets, dtype=float) - steps).x
    top = max(low, high - gap * (len(targets) - 1))
    return np.asarray(np.clip(level, low, top) + steps)


def _range(values: "pd.Series[int]", unit: str) -> str:
    positive = values[values > 0]
    if positive.empty:
        return f"no {unit}s"
    low, high = positive.min(), positive.max()
    if low == high:
        return f"{low:,} {unit}{'' if low == 1 else 's'}"
    return f"{low:,}–{high:,} {unit}s"
