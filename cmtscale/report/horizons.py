"""The forecast over horizons, and the ranking that it gives at the target."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from cmtscale.arch.errors import ResultsError
from cmtscale.report.frames import complete
from cmtscale.report.labels import Label, label_ends
from cmtscale.report.layout import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    SKY,
    VERMILLION,
    about,
    panels,
    styled,
)

_CORNERS = {"depth": (ORANGE, "s"), "width": (GREEN, "^"), "resolution": (VERMILLION, "D")}
_COMPOUND = {"compound": (BLUE, "o"), "paper": (BLUE, "P")}
_MIXED_LOOKS = [(BLUE, "o"), (PURPLE, "v"), (SKY, "P"), (BLACK, "X")]
_ROW_IN = 0.16  # the height of a candidate in the ranking
NO_FORECAST = "no search here made a forecast: it takes several seeds, and runs of several lengths"


@styled
def forecast(expected: pd.DataFrame, standings: pd.DataFrame, candidates: pd.DataFrame) -> Figure:
    """Loss against images seen, both logarithmic: forecasts with 90 % bands, and the runs' means.

    Drawn are the corners and the four other candidates most probably near the best, of those that
    reached the last rung; the target is a line. `expected` is from `load_forecast`. Raises
    `ResultsError` where no search made a forecast.
    """
    if expected.empty or standings.empty:
        raise ResultsError(NO_FORECAST)
    figure, groups = panels(
        standings[standings["run"].isin(expected["run"])], ["run"], height_in=3.0
    )
    labelled_axes: list[tuple[Axes, list[Label]]] = []
    for ax, group in groups:
        run = group["run"].iloc[0]
        means = complete(candidates[candidates["run"] == run])
        means = means.assign(images=means["epochs"] * means["train_images"])
        longest = means[means["images"] == means["images"].max()]["candidate"]
        ranked = group[group["candidate"].isin(longest)].sort_values("near", ascending=False)
        corners, mixed = (ranked[ranked["role"].isin(_CORNERS) == is_in] for is_in in (True, False))
        drawn = pd.concat([corners, mixed.head(len(_MIXED_LOOKS))])
        own = expected[expected["run"] == run].groupby("candidate")
        looks = iter(_MIXED_LOOKS)
        labels: list[Label] = []
        for _, row in drawn.iterrows():
            colour, marker = _CORNERS.get(row["role"]) or next(looks)
            curve = own.get_group(row["candidate"])
            images = curve["images"].to_numpy()
            ax.plot(images, curve["loss"], color=colour, lw=0.9)
            ax.fill_between(images, curve["low"], curve["high"], color=colour, alpha=0.15, lw=0)
            points = means[means["candidate"] == row["candidate"]]
            ax.plot(points["images"], points["val_loss"], marker, color=colour, ms=3.5)
            label = "/".join(f"{100 * row[name]:.0f}" for name in ("depth", "width", "resolution"))
            labels.append((images[-1], curve["loss"].iloc[-1], label, colour))
        ax.axvline(group["target_images"].iloc[0], color=GREY, lw=0.7, ls=":")
        ax.set(xscale="log", yscale="log", xlabel="training images seen", ylabel="validation loss")
        _plain_ticks(ax, sorted({*means["images"], expected["images"].max()}))
        ax.set_title(
            f"{heading(group, candidates, len(groups))}\nlines: forecast with 90 % bands; marks: "
            f"means of runs;\ndotted: the target; labels: depth/width/resolution in %"
        )
        labelled_axes.append((ax, labels))
    label_ends(figure, labelled_axes)
    return figure


@styled
def ranking(standings: pd.DataFrame, candidates: pd.DataFrame) -> Figure:
    """The loss that each candidate is expected to reach at the target, with its 90 % interval.

    Those that may be chosen are filled; the number is the probability of being as good as the best.
    Raises `ResultsError` where no search made a forecast.
    """
    if standings.empty:
        raise ResultsError(NO_FORECAST)
    most = standings.groupby("run").size().max()
    figure, groups = panels(standings, ["run"], height_in=1.4 + _ROW_IN * most)
    for ax, group in groups:
        # the lowest loss on top; what is not sound at the bottom
        ordered = group.sort_values(
            ["is_sound", "loss"], ascending=[True, False], ignore_index=True
        )
        for place, (_, row) in enumerate(ordered.iterrows()):
            colour, marker = {**_CORNERS, **_COMPOUND}[row["role"]]
            ax.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.1)
            face = colour if row["may_win"] else "white"
            ax.plot([row["loss"]], [place], marker, color=colour, mfc=face, ms=4)
        marked = ordered["candidate"].where(~ordered["chosen"], "▸ " + ordered["candidate"])
        ax.set_yticks(range(len(ordered)), list(marked))
        near = ax.secondary_yaxis("right")
        cells = ordered["near"].map("{:.2f}".format).where(ordered["may_win"], "–")
        near.set_yticks(range(len(ordered)), list(cells))
        near.tick_params(length=0)
        near.spines["right"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color=PALE, lw=0.4)
        ax.set_axisbelow(True)
        target = group["target_images"].iloc[0]
        ax.set(ylim=(-0.6, len(ordered) - 0.4), xlabel=f"validation loss after {target:,} images")
        ax.set_title(
            f"{heading(group, candidates, len(groups))}\nexpected at the target, with 90 % "
            f"interval; right: the\nprobability of being as good as the best; ▸ the choice",
            x=-0.35,
        )
    return figure


def heading(group: pd.DataFrame, candidates: pd.DataFrame, count: int) -> str:
    """Whose forecast a panel shows: the data, its runs, and the search's name beside others."""
    rows = about(candidates, group, ["run"])
    data = str(group["data"].iloc[0]).rsplit("/", 1)[-1]
    runs = int(rows["seeds"].sum())
    text = f"{data}, {runs} runs of {rows['candidate'].nunique()} candidates"
    return f"{group['run'].iloc[0]}\n{text}" if count > 1 else text


def _plain_ticks(ax: Axes, images: list[int]) -> None:
    """Horizons along x; losses as plain numbers along y."""
    ax.xaxis.set_major_locator(FixedLocator(images))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    low, high = ax.get_ylim()
    subs = tuple(map(float, range(1, 10))) if high < 10 * low else (1.0, 2.0, 5.0)
    ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.spines["bottom"].set_color(BLACK)
