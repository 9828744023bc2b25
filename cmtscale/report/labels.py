"""Labels beside points or at the ends of lines: apart, and never taken for those of others."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

_LEADER = {"arrowstyle": "-", "lw": 0.5, "shrinkA": 0}
_MARK = 3  # points from the middle of a mark to its edge
_DISTANCES = (8, 14, 20, 28, 38, 50)  # in points, from a mark to the nearest edge of its label
_CLEAR = 1.3  # a label without a line is so many times nearer to its mark than to any other
_ANGLES = np.deg2rad(range(0, 360, 30))
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).round(3)

Label = tuple[float, float, str, str]  # x, y in data coordinates, text, colour


def label_points(
    figure: Figure,
    panels: Sequence[tuple[Axes, Sequence[Label], Iterable[tuple[float, float]]]],
) -> None:
    """Write each label beside its point, at the nearest offset that covers no point, bar or text.

    A line leads to the point where it is far, or another one about as near. To be called once, when
    everything else is drawn: what is drawn later moves the axes.
    """
    figure.draw_without_rendering()
    for ax, labels, points in panels:
        _place(figure, ax, labels, points)


class _Spot(NamedTuple):
    """A box for a label, the line from its point to the box's middle if there is one."""

    box: Bbox
    leader: Path | None
    penalty: int


def _place(
    figure: Figure, ax: Axes, labels: Sequence[Label], points: Iterable[tuple[float, float]]
) -> None:
    px_per_point = figure.dpi / 72
    marks = ax.transData.transform([*points, *((x, y) for x, y, _, _ in labels)])
    texts = [text.get_window_extent() for text in ax.findobj(Text) if text.get_text()]
    bars = _bars(ax)
    leaders: list[Path] = []
    panel = ax.get_tightbbox()
    assert panel is not None
    for x, y, text, colour in labels:
        own = ax.transData.transform((x, y))
        others = marks[np.abs(marks - own).max(axis=1) > px_per_point]
        spots = [
            _spot(box, own, others, texts, bars, leaders, panel, px_per_point)
            for box in _boxes(figure, text, own, px_per_point)
        ]
        best = min(spots, key=lambda spot: spot.penalty)
        middle = best.box.get_points().mean(axis=0)
        note = ax.annotate(
            text, (x, y), tuple((middle - own) / px_per_point), textcoords="offset points",
            color=colour, ha="center", va="center", zorder=4,
            arrowprops={**_LEADER, "color": colour, "shrinkB": _MARK} if best.leader else None,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )  # fmt: skip
        note.set_in_layout(False)
        texts.append(best.box.padded(px_per_point))
        if best.leader:
            leaders.append(best.leader)


def _boxes(figure: Figure, text: str, own: NDArray[np.float64], px_per_point: float) -> list[Bbox]:
    """Where the text may stand around its point, in px: the nearest first."""
    measured = figure.text(0, 0, text)
    size = np.asarray(measured.get_window_extent().size)
    measured.remove()
    shifts = [
        distance * px_per_point * direction + size / 2 * np.sign(direction)
        for distance, direction in itertools.product(_DISTANCES, _DIRECTIONS)
    ]
    return [Bbox.from_bounds(*(own - size / 2 + shift), *size) for shift in shifts]


def _spot(
    box: Bbox,
    own: NDArray[np.float64],
    others: NDArray[np.float64],
    texts: Sequence[Bbox],
    bars: Sequence[Bbox],
    leaders: Sequence[Path],
    panel: Bbox,
    px_per_point: float,
) -> _Spot:
    """The box and what speaks against it: outside of the panel, then covering, then doubt."""
    ends = box.get_points()  # lower left, upper right
    distance = np.hypot(*(np.clip(own, *ends) - own))
    nearest = np.hypot(*(np.clip(others, *ends) - others).T).min(initial=np.inf)
    is_doubtful = bool(nearest < _CLEAR * distance)
    is_led = is_doubtful or distance > 1.5 * _DISTANCES[0] * px_per_point
    leader = Path(np.stack([own, ends.mean(axis=0)])) if is_led else None
    own_disc, *discs = [Bbox([mark, mark]).padded(_MARK * px_per_point) for mark in (own, *others)]
    hits = sum(box.overlaps(other) for other in (own_disc, *discs, *bars))
    hits += sum(line.intersects_bbox(box, filled=False) for line in leaders)
    unreadable = sum(box.overlaps(text) for text in texts)
    if leader is not None:
        hits += sum(leader.intersects_bbox(other, filled=False) for other in (*discs, *texts))
        hits += sum(leader.intersects_path(line, filled=False) for line in leaders)
    inside = all(panel.contains(*end) for end in ends)
    penalty = 10_000 * (not inside) + 100 * unreadable + 10 * hits + is_doubtful
    return _Spot(box, leader, penalty)


def _bars(ax: Axes) -> list[Bbox]:
    """The boxes of error bars, in px."""
    return [
        Bbox(ax.transData.transform(segment))
        for container in ax.containers
        if isinstance(container, ErrorbarContainer)
        for lines in container[2]
        for segment in lines.get_segments()
    ]


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
