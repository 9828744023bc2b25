"""The same networks as twins of several sizes: how their losses stand to each other at each."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import ResultsError
from cmtscale.record.folder import TWIN_TABLE, TWINS
from cmtscale.record.twin_check import read_twin_check
from cmtscale.report.frames import run_folders
from cmtscale.report.labels import Label, label_ends
from cmtscale.report.layout import GREEN, GREY, MARKS, ORANGE, PALE, VERMILLION, panels, styled

_CORNERS = {"depth": (ORANGE, "s"), "width": (GREEN, "^"), "resolution": (VERMILLION, "D")}
_MIXED_LOOKS = [
    (colour, mark) for colour, mark in MARKS if colour not in (ORANGE, GREEN, VERMILLION)
]
NO_CHECK = "no search here has had its twins checked: cmtscale check FOLDER --twin"


def load_twins(path: str | Path) -> pd.DataFrame:
    """A row per run folder, network and size, of the checks of twins; empty where there is none.

    The columns of `twins.csv`, `run`, `images_seen`, and `tau` with its interval (`low`, `high`),
    NaN for the largest size. Raises `ResultsError` for damaged files.
    """
    tables = []
    for folder in run_folders(path):
        check = read_twin_check(folder)
        if check is None:
            continue
        try:
            lines = pd.read_csv(folder / TWINS / TWIN_TABLE)
            taus = pd.DataFrame(
                {
                    "size_macs": size.macs,
                    "tau": size.tau.tau if size.tau else np.nan,
                    "low": size.tau.low if size.tau else np.nan,
                    "high": size.tau.high if size.tau else np.nan,
                }
                for size in check.sizes
            )
            table = lines.merge(taus, on="size_macs")
            tables.append(table.assign(run=folder.resolve().name, images_seen=check.images_seen))
        except (OSError, ValueError, KeyError) as error:
            raise ResultsError(
                f"{folder / TWINS / TWIN_TABLE} is missing or damaged: {error}; check again"
            ) from error
    return pd.concat(tables) if tables else pd.DataFrame()


@styled
def twins(lines: pd.DataFrame) -> Figure:
    """Loss at each size relative to the mean of the networks there, a line for each network.

    Bars are standard errors between seeds. Raises `ResultsError` where nothing was checked.
    """
    if lines.empty or lines["loss"].isna().all():
        raise ResultsError(NO_CHECK)
    figure, groups = panels(lines.dropna(subset=["loss"]), ["run"], height_in=3.0)
    labelled_axes = []
    count = len(_MIXED_LOOKS)
    for ax, group in groups:
        sizes = sorted(group["size_macs"].unique())
        logs = np.log(group["loss"])
        group = group.assign(
            relative=100 * np.expm1(logs - logs.groupby(group["size_macs"]).transform("mean")),
            place=group["size_macs"].map(sizes.index),
        )
        looks = (
            (_MIXED_LOOKS[n % count][0], _MIXED_LOOKS[(n + n // count) % count][1])
            for n in itertools.count()
        )
        labels: list[Label] = []
        for _, own in group.groupby("network", sort=False):
            own = own.sort_values("place")
            colour, marker = _CORNERS.get(own["role"].iloc[0]) or next(looks)
            ax.errorbar(
                own["place"],
                own["relative"],
                yerr=100 * own["error"].fillna(0.0),
                color=colour,
                marker=marker,
                ms=3.5,
                lw=0.9,
                elinewidth=0.7,
            )
            shares = own[["depth", "width", "resolution"]].iloc[0]
            text = "/".join(f"{100 * share:.0f}" for share in shares)
            labels.append((own["place"].iloc[-1], own["relative"].iloc[-1], text, colour))
        ax.axhline(0, color=PALE, lw=0.6, zorder=0)
        ax.set_xticks(range(len(sizes)), [_tick(group, size) for size in sizes])
        ax.set_xlim(-0.2, len(sizes) - 0.8)
        ax.set(xlabel="MACs of a twin; τ with the largest (95 %)")
        ax.set_ylabel("validation loss against the mean (%)")
        ax.tick_params(axis="x", length=0, colors=GREY)
        name = f"{group['run'].iloc[0]}\n" if len(groups) > 1 else ""
        ax.set_title(
            f"{name}{group['network'].nunique()} networks as twins of {len(sizes)} sizes, "
            f"{group['images_seen'].iloc[0]:,} images seen;\nbars: standard errors; labels: "
            f"depth/width/resolution in %"
        )
        labelled_axes.append((ax, labels))
    label_ends(figure, labelled_axes)
    return figure


def _tick(group: pd.DataFrame, size: int) -> str:
    one = group[group["size_macs"] == size].iloc[0]
    if np.isnan(one["tau"]):
        return format_macs(size)
    return f"{format_macs(size)}\n{one['tau']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
