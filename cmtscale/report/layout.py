"""How figures look: size, fonts, palette, panels, axes."""

import textwrap
from collections.abc import Callable, Hashable, Iterable
from functools import wraps
from typing import Any, ParamSpec

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

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

_TITLE_CHARACTERS = 50  # what fits over one column's axes
_NO_BREAK = "\N{NO-BREAK SPACE}"

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
    """A panel's title: data, seeds, horizon, what went wrong, and if it is a tour or unfinished."""
    parts = [
        ", ".join(sorted({data.rsplit("/", 1)[-1] for data in group["data"]})),
        _range(group["seeds"], "seed"),
        f"{_range(group['epochs'], 'epoch')} of {_range(group['train_images'], 'image')}",
    ]
    for how in ("diverged", "infeasible", "failed"):
        runs = int(group[how].sum())
        if runs:
            parts.append(f"{runs} run{'s' if runs > 1 else ''} {how}")
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
        middle, room = (low + high) / 2, 0.1 * (high - low)
        ax.set_xlim(min(low - room, 0.96 * middle), max(high + room, 1.04 * middle))
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_macs(value)))


def accuracy_axis(ax: Axes) -> None:
    """End the axis of accuracies in % at 100 and half a marker; call when all is drawn."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, min(high, 100 + 0.03 * (100 - low)))


def _range(values: "pd.Series[int]", unit: str) -> str:
    positive = values[values > 0]
    if positive.empty:
        return f"no {unit}s"
    low, high = positive.min(), positive.max()
    if low == high:
        return f"{low:,} {unit}{'' if low == 1 else 's'}"
    return f"{low:,}–{high:,} {unit}s"
