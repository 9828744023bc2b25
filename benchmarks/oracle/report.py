"""Tables and figures from the tables of simulated searches; standard errors are over searches."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmtscale.report.layout import BLUE, GREEN, PALE, STYLE, VERMILLION

# what is shown of each strategy, in this order
NAMES = {
    ("forecast", "forecast"): "the forecast",
    ("forecast, stopped at .95", "forecast, stopped at .95"): "the forecast, stopped at .95",
    ("true scales", "true scales"): "true scales given",
    ("highest likelihood", "highest likelihood"): "one fit, highest likelihood",
    ("random search", "random search"): "random search at 9T",
    ("promotion", "promotion"): "promotion by rank",
    ("highest posterior", "forecast"): "its runs, one fit, highest posterior",
    ("highest likelihood", "forecast"): "its runs, one fit, highest likelihood",
    ("without image noise", "forecast"): "its runs, image noise left out",
    ("bent alike", "forecast"): "its runs, curves bent alike, seeds apart",
    ("scikit-learn", "forecast"): "its runs, scikit-learn's process",
    ("BoTorch", "forecast"): "its runs, BoTorch's process",
}
DRAWN = {
    "the forecast": BLUE,
    "its runs, one fit, highest likelihood": VERMILLION,
    "its runs, scikit-learn's process": GREEN,
}


def report(folder: Path) -> None:
    """Print the tables as Markdown; draw the figures beside them."""
    tables = [folder / name for name in ("searches.csv", "botorch.csv")]
    rows = pd.concat([pd.read_csv(table) for table in tables if table.exists()], ignore_index=True)
    keys = pd.Series(list(zip(rows.strategy, rows.runs_of, strict=True)), index=rows.index)
    rows["name"] = keys.map(NAMES)
    spread = rows.groupby(["candidates", "scenario"]).spread.mean().rename("unit")
    rows = rows.join(spread, on=["candidates", "scenario"])
    rows["regret"] /= rows.unit
    for stated, right, error in (
        ("stated", "is_near", "error"),
        ("stated_best", "is_best", "error_best"),
        ("stated_beyond", "is_near_beyond", "error_beyond"),
    ):
        rows[error] = 100 * (rows[stated] - rows[right].astype(float))
    for column in ("stated", "is_near", "covered", "covered_beyond"):
        rows[column] = 100 * rows[column].astype(float)
    sections = {"pooled": rows, **dict(iter(rows.groupby("scenario", sort=False)))}
    sections |= {f"{size} candidates": part for size, part in rows.groupby("candidates")}
    for title, part in sections.items():
        print(f"\n### {title}: {(part.strategy == 'forecast').sum()} searches\n")
        print(_table(part))
    print(f"\n{_ratios(rows)}")
    _save(_regrets(rows), folder / "regret.png")
    _save(_calibration(rows), folder / "calibration.png")


def _mean(part: pd.DataFrame, column: str) -> tuple[float, float]:
    """Mean over searches, and its standard error."""
    return part[column].mean(), part[column].sem()


def _table(rows: pd.DataFrame) -> str:
    columns = {
        "regret": ("regret, spreads", "{:.3f} ± {:.3f}"),
        "is_near": ("within 1 %", "{:.0f}"),
        "stated": ("stated", "{:.0f}"),
        "error": ("stated − right", "{:+.1f} ± {:.1f}"),
        "error_best": ("the same, best", "{:+.1f} ± {:.1f}"),
        "covered": ("9T covered", "{:.1f} ± {:.1f}"),
        "error_beyond": ("stated − right, 27T", "{:+.1f} ± {:.1f}"),
        "covered_beyond": ("27T covered", "{:.1f} ± {:.1f}"),
    }
    lines = ["| | searches | runs | " + " | ".join(title for title, _ in columns.values()) + " |"]
    lines += ["|---" * (len(columns) + 3) + "|"]
    for name in NAMES.values():
        part = rows[rows.name == name]
        if part.empty:
            continue
        cells = [
            shape.format(*_mean(part, column)) if part[column].notna().all() else ""
            for column, (_, shape) in columns.items()
        ]
        cells = [name, f"{len(part)}", f"{part.runs.mean():.0f}", *cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ratios(rows: pd.DataFrame) -> str:
    """Regret of the forecast over that with the true scales, on the same worlds."""
    lines = ["| regret over that with true scales | ratio |", "|---|---|"]
    wide = rows.pivot_table(
        index=["candidates", "scenario", "world"], columns="name", values="regret", sort=False
    )
    groups = [("all", wide), *wide.groupby("candidates"), *wide.groupby("scenario", sort=False)]
    for title, part in groups:
        ours, true = part["the forecast"], part["true scales given"]
        ratio = ours.mean() / true.mean()
        error = (ours - ratio * true).sem() / true.mean()
        lines.append(f"| {title} | {ratio:.2f} ± {error:.2f} |")
    return "\n".join(lines)


def _regrets(rows: pd.DataFrame) -> Figure:
    names = list(NAMES.values())[:6]
    sizes = sorted(rows.candidates.unique())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(sizes), sharex=True, sharey=True))
        for axis, size in zip(axes, sizes, strict=True):
            part = rows[rows.candidates == size]
            values = [_mean(part[part.name == name], "regret") for name in names]
            means, errors = np.array(values).T
            colours = [BLUE if "forecast" in name else PALE for name in names]
            axis.barh(names, means, xerr=errors, color=colours, error_kw={"lw": 1})
            axis.set_title(f"{size} candidates", fontsize=9)
            axis.set_xlabel("mean regret at 9T, in spreads")
        axes[0].invert_yaxis()
    return figure


def _calibration(rows: pd.DataFrame) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 100], [0, 100], color="0.7", lw=1)
        for name, colour in DRAWN.items():
            _reliability(left, rows[rows.name == name], name, colour)
        left.set_xlabel("stated probability of being within 1 %, in %")
        left.set_ylabel("how often it is, in %")
        left.legend(loc="upper left", fontsize=7, frameon=False)
        scenarios = list(rows.scenario.unique())
        right.axvspan(87, 93, color="0.9", lw=0)
        for shift, (name, colour) in zip((-0.2, 0, 0.2), DRAWN.items(), strict=True):
            part = rows[rows.name == name]
            values = [_mean(part[part.scenario == s], "covered") for s in scenarios]
            means, errors = np.array(values).T
            places = np.arange(len(scenarios)) + shift
            right.errorbar(means, places, xerr=errors, fmt="o", ms=4, color=colour)
        right.set_yticks(range(len(scenarios)), scenarios)
        right.invert_yaxis()
        right.set_xlabel("true losses at 9T inside 90 % intervals, in %")
    return figure


def _reliability(axis: Axes, rows: pd.DataFrame, name: str, colour: str) -> None:
    """Searches in equal groups by what they stated."""
    groups = rows.groupby(pd.qcut(rows.stated, 6))
    points = [(part.stated.mean(), *_mean(part, "is_near")) for _, part in groups]
    stated, share, error = np.array(points).T
    axis.errorbar(stated, share, yerr=error, fmt="o-", ms=4, lw=1, color=colour, label=name)


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=200)
