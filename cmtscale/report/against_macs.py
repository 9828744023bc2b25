"""Accuracy against MACs: candidates and Pareto front, and the one-dimensional ablation."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import ResultsError
from cmtscale.report.frames import complete, pareto_front
from cmtscale.report.labels import Label, label_ends
from cmtscale.report.layout import (
    ACCURACY,
    BLACK,
    BLUE,
    GREEN,
    GREY,
    MARKS,
    ORANGE,
    SKY,
    VERMILLION,
    about,
    accuracy_axis,
    describe,
    macs_axis,
    panels,
    styled,
)

_PURE = {"depth": (ORANGE, "s"), "width": (GREEN, "^"), "resolution": (VERMILLION, "D")}
_IMAGENET_CLASSES = 1000
_NO_LITERATURE = pd.DataFrame({"family": [], "gflops": [], "top1": []})


@styled
def accuracy_flops(candidates: pd.DataFrame, literature: pd.DataFrame | None = None) -> Figure:
    """Accuracy against the MACs of what was trained, with the Pareto front of each run.

    One panel per data set; a colour and marker per run, its last rung filled. What is not sound
    at any rung is on no front: its other runs would flatter it. `literature` (from
    `load_literature`) is drawn on ImageNet-like data only. Raises `ResultsError` if no run is
    complete.
    """
    completed = complete(candidates)
    figure, groups = panels(completed, ["data"], height_in=3.15 + 0.15 * completed["run"].nunique())
    labelled_axes: list[tuple[Axes, list[Label]]] = []
    for ax, group in groups:
        imagenet = bool((group["num_classes"] == _IMAGENET_CLASSES).all())
        published = _NO_LITERATURE if literature is None or not imagenet else literature
        run_handles = []
        for number, (name, run) in enumerate(group.groupby("run", sort=True)):
            colour, marker = MARKS[number % len(MARKS)]
            _draw_run(ax, run, colour, marker)
            run_handles.append(Line2D([], [], color=colour, marker=marker, ls="", label=str(name)))
        macs_axis(ax, [*group["proxy_macs"], *(1e9 * published["gflops"])])
        labels = _draw_literature(ax, published)
        ax.margins(y=0.08)
        ax.set(xlabel=_macs_label(group), ylabel=_accuracy_label(group))
        ax.set_title(describe(about(candidates, group, ["data"])))
        if len(run_handles) == 1:
            run_handles = []
        ax.legend(
            handles=run_handles + _mark_handles(group),
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            borderaxespad=4.5,  # in font sizes: clears the axis label
            columnspacing=1.2,
            frameon=False,
            ncols=1 if run_handles else 2,
        )
        accuracy_axis(ax)
        labelled_axes.append((ax, labels))
    label_ends(figure, labelled_axes)
    return figure


@styled
def ablation(candidates: pd.DataFrame) -> Figure:
    """Accuracy against MACs when depth, width or resolution alone grows, and when all do.

    Runs of the same twin base, data and horizon share a panel, so that several budgets join to
    curves. The best sound compound candidate of each budget is joined; the others are dots. Raises
    `ResultsError` where no pure one-dimensional candidate is complete.
    """
    rows = _ablation_rows(complete(candidates))
    series = ["data", "epochs", "train_images", "trained_base"]
    figure, groups = panels(rows, series, height_in=2.7)
    labelled_axes: list[tuple[Axes, list[Label]]] = []
    for ax, group in groups:
        base = group[group["role"] == "base"]
        compound = group[group["role"].isin(["compound", "paper"])]
        sound = compound[compound["is_sound"]]
        best = sound.loc[sound.groupby("run")["val_loss"].idxmin()]
        ax.plot(compound["proxy_macs"], 100 * compound["val_accuracy"], "o", color=SKY, ms=2.5)
        labels: list[Label] = []
        for role, (colour, marker) in _PURE.items():
            pure = group[group["role"] == role]
            labels += _draw_growth(ax, base, pure, f"{role} only", colour, marker)
        count = compound.groupby("run").size().max()
        labels += _draw_growth(ax, base, best, f"compound, best loss of {count}", BLUE, "o")
        ax.errorbar(
            base["proxy_macs"], 100 * base["val_accuracy"], 100 * base["val_accuracy_sd"],
            fmt="X", color=BLACK, ms=6, elinewidth=0.7, zorder=4,
        )  # fmt: skip
        macs_axis(ax, group["proxy_macs"])
        ax.set(xlabel=_macs_label(group), ylabel=_accuracy_label(group))
        ax.set_title(describe(about(candidates, group, ["run", "rung"]), name_run=len(groups) > 1))
        bar_ends = 100 * (base["val_accuracy"] + base["val_accuracy_sd"].fillna(0.0))
        highest = base.assign(bar_end=bar_ends).nlargest(1, "bar_end")
        for point in zip(highest["proxy_macs"], highest["bar_end"], strict=True):
            ax.annotate("base", point, (0, 6), textcoords="offset points", ha="center")
        accuracy_axis(ax)
        labelled_axes.append((ax, labels))
    label_ends(figure, labelled_axes)
    return figure


def _draw_run(ax: Axes, run: pd.DataFrame, colour: str, marker: str) -> None:
    last_rung = run[run["rung"] == run["rung"].max()]
    scaled = last_rung["role"].isin(["compound", "paper"])
    for rows, alpha, fill in (
        (run[run["rung"] < run["rung"].max()], 0.3, "none"),
        (last_rung[~scaled], 1.0, "white"),
        (last_rung[scaled], 1.0, colour),
    ):
        ax.errorbar(
            rows["proxy_macs"], 100 * rows["val_accuracy"], 100 * rows["val_accuracy_sd"],
            fmt=marker, color=colour, mfc=fill, ecolor=GREY, elinewidth=0.6,
            alpha=alpha, zorder=3, ms=4,
        )  # fmt: skip
    sound = last_rung[last_rung["is_sound"]]
    front = sound[pareto_front(sound["proxy_macs"].to_numpy(), sound["val_accuracy"].to_numpy())]
    front = front.sort_values("proxy_macs")
    ax.plot(
        front["proxy_macs"], 100 * front["val_accuracy"], "--", lw=0.9, color=colour,
        drawstyle="steps-post", label="Pareto front",
    )  # fmt: skip
    chosen = run[run["chosen"]]
    longest = chosen[chosen["rung"] == chosen["rung"].max()]
    marks: tuple[tuple[pd.DataFrame, dict[str, Any]], ...] = (
        (longest, {"marker": "o", "mfc": "none", "mec": BLACK, "ms": 9, "mew": 1.2}),
        (
            last_rung[last_rung["role"] == "paper"],
            {"marker": "+", "color": BLACK, "ms": 8, "mew": 1.3},
        ),
    )
    for rows, look in marks:
        ax.plot(rows["proxy_macs"], 100 * rows["val_accuracy"], ls="", zorder=4, **look)


def _mark_handles(group: pd.DataFrame) -> list[Line2D]:
    """Legend entries for the marks that the panel really has."""
    in_last_rung = group["rung"] == group.groupby("run")["rung"].transform("max")
    last_rung = group[in_last_rung]
    tour = " of a tour" if group["tour"].all() else ""
    entries: tuple[tuple[Any, str, dict[str, Any]], ...] = (
        (group["chosen"].any(), f"choice{tour}", {"marker": "o", "ms": 8, "mfc": "none"}),
        ((last_rung["role"] == "paper").any(), "paper's constants", {"marker": "+", "ms": 7}),
        (
            last_rung["role"].isin(["base", *_PURE]).any(),
            "base, or one dimension only",
            {"marker": "o", "mfc": "white"},
        ),
        (
            not in_last_rung.all(),
            "earlier rung, fewer images",
            {"marker": "o", "mfc": "none", "alpha": 0.3},
        ),
        (True, "Pareto front", {"ls": "--", "lw": 0.9}),
    )
    return [
        Line2D([], [], **{"color": BLACK, "ls": "", "label": label, **look})
        for shown, label, look in entries
        if shown
    ]


def _draw_literature(ax: Axes, published: pd.DataFrame) -> list[Label]:
    labels: list[Label] = []
    for name, family in published.groupby("family"):
        colour = BLACK if name == "CMT" else GREY
        x, y = 1e9 * family["gflops"].to_numpy(), family["top1"].to_numpy()
        ax.plot(x, y, marker=".", ms=5, lw=0.7, color=colour, zorder=2, label=f"published {name}")
        labels.append((x[-1], y[-1], str(name), colour))
    return labels


def _ablation_rows(completed: pd.DataFrame) -> pd.DataFrame:
    """Per run the last rung with one-dimensional candidates and their base, if any rung has both.

    With the `trained_base` of each row.
    """
    pure = completed[completed["role"].isin(list(_PURE))]
    if pure.empty:
        raise ResultsError("no one-dimensional candidate (depth, width or resolution) has finished")
    keys = ["run", "rung"]
    with_base = pure.merge(completed[completed["role"] == "base"][keys], on=keys)
    rest = pure[~pure["run"].isin(with_base["run"])]
    rungs = pd.concat([with_base, rest]).groupby("run", as_index=False)["rung"].max()
    rows = completed.merge(rungs, on=keys)
    bases = {
        base.run: f"{base.proxy_dims} {base.proxy_depths} {base.proxy_resolution_px}"
        for base in rows[rows["role"] == "base"].itertuples()
    }
    return rows.assign(trained_base=[bases.get(run, run) for run in rows["run"]])


def _draw_growth(
    ax: Axes, base: pd.DataFrame, grown: pd.DataFrame, text: str, colour: str, marker: str
) -> list[Label]:
    """One line from the base through what grew from it; its label, none without points."""
    if grown.empty:
        return []
    ax.errorbar(
        grown["proxy_macs"], 100 * grown["val_accuracy"], 100 * grown["val_accuracy_sd"],
        fmt=marker, color=colour, elinewidth=0.7, zorder=3,
    )  # fmt: skip
    line = pd.concat([base, grown]).groupby("proxy_macs")["val_accuracy"].mean()
    ax.plot(line.index, 100 * line, color=colour, label=text)
    return [(float(line.index[-1]), 100 * float(line.iloc[-1]), text, colour)]


def _macs_label(group: pd.DataFrame) -> str:
    if (group["proxy_macs"] == group["macs"]).all():
        return "MACs"
    budgets = sorted({format_macs(budget) for budget in group["budget_macs"]})
    return f"MACs of the trained twins (for {', '.join(budgets)})"


def _accuracy_label(group: pd.DataFrame) -> str:
    return ACCURACY + (" ± sd" if group["val_accuracy_sd"].notna().any() else "")
