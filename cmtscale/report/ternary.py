"""The triangle of log shares, coloured by score."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cmtscale.arch import paper
from cmtscale.arch.errors import ResultsError
from cmtscale.arch.scaling import Scaling
from cmtscale.report.frames import complete
from cmtscale.report.layout import (
    BLACK,
    GREY,
    PALE,
    VERMILLION,
    Label,
    about,
    describe,
    label_points,
    panels,
    styled,
)

_HEIGHT = 3**0.5 / 2
_AXES = ("depth", "width", "resolution")


@styled
def triangle(candidates: pd.DataFrame) -> Figure:
    """The on-budget candidates in the triangle of log shares, coloured by validation loss.

    One panel per run and rung, each with its own colours: losses of different rungs do not
    compare. Raises `ResultsError` where no on-budget candidate is complete.
    """
    done = complete(candidates)
    shown = done[done["on_budget"] & done[["depth", "width", "resolution"]].notna().all(axis=1)]
    if shown.empty:
        raise ResultsError("no candidate on the budget has finished; wait for one")
    figure, groups = panels(shown, ["run", "rung"], height_in=3.5)
    near: list[tuple[Axes, list[Label], list[tuple[float, float]]]] = []
    for ax, group in groups:
        _draw_frame(ax)
        x, y = corner_coordinates(*(group[name].to_numpy() for name in _AXES))
        points = ax.scatter(
            x, y, c=group["val_loss"], cmap="viridis_r", s=34, ec=BLACK, lw=0.4, zorder=3
        )
        bar = figure.colorbar(points, ax=ax, location="bottom", shrink=0.7, aspect=30, pad=0.02)
        bar.set_label("validation loss (lower is better)")
        bar.ax.xaxis.set_major_locator(MaxNLocator(5))
        labels = _mark_choice_and_paper(ax, group)
        rows = about(candidates, group, ["run", "rung"])
        ax.set_title(describe(rows, name_run=len(groups) > 1) + _tokens_note(group))
        near.append((ax, labels, list(zip(x, y, strict=True))))
    label_points(figure, near)
    return figure


def corner_coordinates(
    depth: NDArray[np.float64], width: NDArray[np.float64], resolution: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Plane coordinates of shares: depth at (0, 0), width at (1, 0), resolution on top."""
    total = depth + width + resolution
    return (width + resolution / 2) / total, _HEIGHT * resolution / total


def paper_point() -> tuple[float, float]:
    """Where the paper's constants lie (their shares sum to 0.93; the direction counts)."""
    shares = Scaling(1.0).shares
    x, y = corner_coordinates(
        np.array([shares.depth]), np.array([shares.width]), np.array([shares.resolution])
    )
    return float(x[0]), float(y[0])


def _draw_frame(ax: Axes) -> None:
    """The frame: edges, a line per quarter share, corners named by what alone grows there."""
    ax.set_axis_off()
    ax.set_aspect("equal")
    ax.set(xlim=(-0.12, 1.12), ylim=(-0.13, _HEIGHT + 0.13))
    corners = np.array([(0, 0), (1, 0), (0.5, _HEIGHT), (0, 0)])
    for share in (0.25, 0.5, 0.75):
        for first, second, third in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            ends = share * corners[first] + (1 - share) * corners[[second, third]]
            ax.plot(*ends.T, color=PALE, lw=0.4, zorder=1)
    ax.plot(*corners.T, color=GREY, lw=0.8, zorder=1)
    alone = paper.PHI_BASE
    for (x, y), text, above in (
        (corners[0], f"depth only\nα = {alone:.3g}", False),
        (corners[1], f"width only\nβ = {alone ** (1 / paper.WIDTH_EXPONENT):.3g}", False),
        (corners[2], f"resolution only\nγ = {alone ** (1 / paper.RESOLUTION_EXPONENT):.3g}", True),
    ):
        ax.text(
            x, y + (0.035 if above else -0.035), text, ha="center", va="bottom" if above else "top"
        )


def _mark_choice_and_paper(ax: Axes, group: pd.DataFrame) -> list[Label]:
    """A diamond round the paper's constants, a ring round the choice; gives back their labels."""
    labels: list[Label] = []
    x, y = paper_point()
    ax.plot(x, y, "D", mfc="none", mec=VERMILLION, ms=8.5, mew=1.1, zorder=4)
    labels.append((x, y, "paper's constants", VERMILLION))
    for row in group[group["chosen"]].itertuples():
        depth, width, resolution = (
            np.array([share], dtype=float) for share in (row.depth, row.width, row.resolution)
        )
        (x,), (y,) = corner_coordinates(depth, width, resolution)
        ax.plot(x, y, "o", mfc="none", mec=BLACK, ms=9.5, mew=1.2, zorder=4)
        labels.insert(0, (float(x), float(y), f"choice {row.candidate}", BLACK))
    return labels


def _tokens_note(group: pd.DataFrame) -> str:
    native, smallest = group["native_px"].min(), group["proxy_resolution_px"].min()
    if not smallest > native:
        return ""
    return f"\nimages of {native:.0f} px: resolution adds tokens, not detail"
