"""Figures: loss against images with what was forecast of it, and the ranking at each rung."""

from pathlib import Path

import numpy as np
from deciding import anchor_numbers, run_moments, up_to
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from truth import RUNGS, TARGET, TruthTable, share_label

from cmtscale.report.labels import Label, label_ends
from cmtscale.report.layout import (
    BLUE,
    COLUMN_IN,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    styled,
)
from cmtscale.search.candidates import Candidate
from cmtscale.search.curves import FloatArray
from cmtscale.search.forecast import Forecast, forecast

_CORNERS = {"depth": (ORANGE, "s"), "width": (GREEN, "^"), "resolution": (VERMILLION, "D")}
_OTHERS = ((PURPLE, "v"), (SKY, "P"))


def looks(table: TruthTable) -> dict[int, tuple[str, str]]:
    """Colour and marker of the anchors, and of the two best at the longest rung that all have."""
    marks = {
        anchor: _CORNERS.get(table.twins[anchor].role, (BLUE, "o"))
        for anchor in anchor_numbers(table)
    }
    means = np.where(table.eligible, table.means(TARGET), np.nan)
    best = [int(twin) for twin in np.argsort(means) if np.isfinite(means[twin])]
    others = [twin for twin in best if twin not in marks]
    return marks | dict(zip(others, _OTHERS, strict=False))


@styled
def curves(table: TruthTable) -> Figure:
    """Loss against images seen, and the anchors' forecasts a rung beyond what they know."""
    figure = Figure(figsize=(2 * COLUMN_IN, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    seen = np.array(table.long_settings.images_seen)
    means = np.array([table.means(rung) for rung in range(len(RUNGS))])
    marks = looks(table)
    for ax, last in zip(axes, (1, TARGET), strict=True):
        shown = range(last + 2)
        for twin in range(len(table.twins)):
            trained = [rung for rung in shown if np.isfinite(means[rung, twin])]
            colour, marker = marks.get(twin, (PALE, ""))
            losses = np.exp(means[trained, twin])
            ax.plot(seen[trained], losses, color=colour, lw=0.8, zorder=2 if marker else 1)
            for rung, loss in zip(trained, losses, strict=True):
                face = colour if rung <= last else "white"
                ax.plot(seen[rung], loss, marker, color=colour, mfc=face, ms=4, zorder=3)
        evidence = table.evidence(up_to(table, last))
        if evidence.trained is not None:
            known = forecast(evidence.trained)
            images = np.geomspace(seen[last], seen[last + 1], 9)
            bands = np.array([run_band(known, evidence.time(int(n))) for n in images])
            for twin in anchor_numbers(table):
                colour, _ = marks[twin]
                low, middle, high = np.exp(bands[:, :, twin]).T
                ax.fill_between(images, low, high, color=colour, alpha=0.14, lw=0, zorder=0)
                ax.plot(images, middle, color=colour, lw=0.9, ls=(0, (4, 2)), zorder=2)
        ax.set(xscale="log", yscale="log", xlabel="training images seen")
        ax.set_title(f"forecast of {RUNGS[last + 1]} from all runs up to {RUNGS[last]}")
        ax.xaxis.set_major_locator(FixedLocator(list(seen[: last + 2])))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ax.yaxis.set_major_locator(LogLocator(subs=tuple(map(float, range(1, 10))), numticks=20))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[0].set_ylabel("validation loss")
    legend = [
        Line2D([], [], color=colour, marker=marker, ms=4, lw=0.8, label=_name(table.twins[twin]))
        for twin, (colour, marker) in marks.items()
    ]
    legend += [
        Line2D([], [], color=GREY, lw=0.9, ls=(0, (4, 2)), label="forecast of one run, 90 % band"),
        Line2D(
            [], [], color=GREY, marker="o", mfc="white", ms=4, lw=0.8, label="trained, not known"
        ),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(
        f"fashion-mnist, {len(table.rows)} runs of {len(table.twins)} twins of 14.4 MMACs; "
        f"names: depth/width/resolution in %",
        fontsize=7.5,
        x=0.01,
        ha="left",
    )
    return figure


def _name(twin: Candidate) -> str:
    return f"{share_label(twin)} {twin.role if twin.role in _CORNERS else ''}".strip()


def run_band(known: Forecast, time: float) -> FloatArray:
    """(3, K): 5 %, 50 % and 95 % of one run at a time, in ln loss; its noise is of that rung."""
    twins = len(known.trained.points) - 1
    mean, covariance = run_moments(known, round(time), time, [1] * twins)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    random = np.random.default_rng(0)
    draws = mean[:, None] + sd[:, None] * random.standard_normal((1, 128, 1))
    band: FloatArray = np.quantile(draws.reshape(-1, twins), [0.05, 0.5, 0.95], axis=0)
    return band


@styled
def ranks(table: TruthTable) -> Figure:
    """The twins' ranks at T and 3T, as forecast from these for 9T, and as trained there."""
    means = [table.means(rung) for rung in (0, 1)]
    names = ["T", "3T"]
    trained = table.evidence(up_to(table, 1)).trained
    if trained is not None:
        mean, _ = forecast(trained).moments(float(TARGET))
        means.append(mean.mean(axis=0)[: len(table.twins)])
        names.append("9T forecast\nfrom T, 3T")
    means.append(table.means(TARGET))
    names.append("9T trained")
    at_all = np.isfinite(means).all(axis=0)
    numbers = np.flatnonzero(at_all)
    # the first rank is the highest place
    places = np.array([np.argsort(np.argsort(-column[at_all])) + 1 for column in means])
    figure = Figure(figsize=(1.3 * COLUMN_IN, 0.6 + 0.24 * len(numbers)), layout="constrained")
    ax = figure.add_subplot()
    marks = looks(table)
    labels: list[Label] = []
    for index, twin in enumerate(numbers):
        colour, marker = marks.get(int(twin), (GREY, "."))
        line = places[:, index]
        emphasis = {"lw": 1.4, "zorder": 3} if int(twin) in marks else {"lw": 0.7, "zorder": 2}
        face = colour if table.eligible[twin] else "white"
        ax.plot(range(len(names)), line, marker=marker, color=colour, mfc=face, **emphasis)
        candidate = table.twins[twin]
        text = f"{share_label(candidate)}  {candidate.name}"
        labels.append((len(names) - 1, line[-1], text, colour))
    ax.set_xticks(range(len(names)), names)
    ax.set(ylim=(0.5, len(numbers) + 0.5), ylabel="rank by mean loss")
    ax.set_yticks(range(1, len(numbers) + 1), range(len(numbers), 0, -1))
    ax.set_title("labels: depth/width/resolution in %, and the twin;\nopen mark: not on the budget")
    label_ends(figure, [(ax, labels)])
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG for the README."""
    figure.savefig(path, dpi=200, bbox_inches="tight")
