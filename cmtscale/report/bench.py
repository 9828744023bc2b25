"""The figure of a benchmark: MACs against time, and accuracy against time where it is known."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cmtscale.arch.errors import ResultsError
from cmtscale.record.bench import Bench, Conditions, Measurement
from cmtscale.record.files import write_atomically
from cmtscale.report.labels import Label, label_points
from cmtscale.report.layout import BLACK, COLUMN_IN, GREY, MARKS, accuracy_axis, macs_axis, styled
from cmtscale.report.saving import render

KINDS = (".png", ".svg", ".pdf")
_TITLE_CHARACTERS = 52

Point = tuple[float, float]


def require_figure(path: Path) -> None:
    """Raise `ResultsError` for a file that a figure cannot become."""
    if path.suffix.lower() not in KINDS:
        raise ResultsError(f"figure {path} is of no kind known here; use {', '.join(KINDS)}")
    if path.is_dir():
        raise ResultsError(f"figure {path} is a folder; name a file in it")


def save_bench(bench: Bench, path: Path) -> None:
    """Draw the benchmark into a PNG, SVG or PDF file, replaced whole; raises `ResultsError`."""
    require_figure(path)
    content = render(bench_figure(bench), path.suffix.lower()[1:])
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise ResultsError(
            f"figure {path} cannot be written: {error.strerror}; name another file"
        ) from error


@styled
def bench_figure(bench: Bench) -> Figure:
    """Time per image against MACs, and a panel of accuracy against time for each set of images.

    A colour and marker per batch size; medians, with a line up to the 95th percentile. Raises
    `ResultsError` if nothing was measured.
    """
    measured = bench.measurements
    if not measured:
        raise ResultsError("nothing was measured; measure fewer networks or smaller batches")
    batches = sorted({entry.batch for entry in measured})
    known = [entry for entry in measured if entry.accuracy is not None]
    sets = sorted({entry.accuracy_of for entry in known})
    columns = min(2, 1 + len(sets))
    rows = -(-(1 + len(sets)) // columns)
    figure = Figure(figsize=(COLUMN_IN * columns, 3.1 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, number) for number in range(1, 2 + len(sets))]
    panels = [(axes[0], *_draw_macs(axes[0], measured, batches))]
    axes[0].set_title(_title(bench.conditions))
    for ax, images in zip(axes[1:], sets, strict=True):
        shown = [entry for entry in known if entry.accuracy_of == images]
        panels.append((ax, *_draw_accuracy(ax, shown, batches)))
        ax.set_title(textwrap.fill(f"accuracy: {images}", _TITLE_CHARACTERS))
    if len(batches) > 1:
        axes[0].legend(frameon=False, loc="lower right")
    label_points(figure, panels)
    return figure


def _draw_macs(
    ax: Axes, measured: Sequence[Measurement], batches: Sequence[int]
) -> tuple[list[Label], list[Point]]:
    macs_axis(ax, [entry.macs for entry in measured])
    per_mac = [_milliseconds(entry) / entry.macs for entry in measured if entry.batch == batches[0]]
    low, high = ax.get_xlim()
    pace = float(np.exp(np.mean(np.log(per_mac))))
    ax.plot([low, high], [low * pace, high * pace], ":", color=GREY, lw=0.8, zorder=1)
    points = [(float(entry.macs), _milliseconds(entry)) for entry in measured]
    for batch, shown in _by_batch(measured, points, batches):
        above = [_milliseconds_above(entry) for entry, _ in shown]
        x, y = np.transpose([point for _, point in shown])
        ax.errorbar(x, y, yerr=[[0.0] * len(above), above], **_look(batch, batches))
    _time_axis(ax.yaxis, measured)
    ax.set(xlabel="MACs of one image (dotted: equal MACs/s)", ylabel=_time_label(batches))
    return _labels(measured, points), points


def _draw_accuracy(
    ax: Axes, measured: Sequence[Measurement], batches: Sequence[int]
) -> tuple[list[Label], list[Point]]:
    points = [(_milliseconds(entry), 100 * (entry.accuracy or 0.0)) for entry in measured]
    for batch, shown in _by_batch(measured, points, batches):
        above = [_milliseconds_above(entry) for entry, _ in shown]
        x, y = np.transpose([point for _, point in shown])
        ax.errorbar(x, y, xerr=[[0.0] * len(above), above], **_look(batch, batches))
    _time_axis(ax.xaxis, measured)
    ax.margins(y=0.12)
    accuracy_axis(ax)
    ax.set(xlabel=_time_label(batches), ylabel="accuracy (%)")
    return _labels(measured, points), points


def _by_batch(
    measured: Sequence[Measurement], points: Sequence[Point], batches: Sequence[int]
) -> Iterator[tuple[int, list[tuple[Measurement, Point]]]]:
    """What was measured with each batch size that has anything here, with its point."""
    for batch in batches:
        pairs = zip(measured, points, strict=True)
        shown = [(entry, point) for entry, point in pairs if entry.batch == batch]
        if shown:
            yield batch, shown


def _labels(measured: Sequence[Measurement], points: Sequence[Point]) -> list[Label]:
    """A label for each network, at its smallest batch."""
    smallest: dict[str, tuple[int, Point]] = {}
    for entry, point in zip(measured, points, strict=True):
        if entry.name not in smallest or entry.batch < smallest[entry.name][0]:
            smallest[entry.name] = (entry.batch, point)
    return [(x, y, name.removeprefix("timm:"), BLACK) for name, (_, (x, y)) in smallest.items()]


def _look(batch: int, batches: Sequence[int]) -> dict[str, Any]:
    colour, marker = MARKS[list(batches).index(batch) % len(MARKS)]
    return {
        "fmt": marker, "color": colour, "label": f"batch {batch}", "ms": 4, "elinewidth": 0.7,
        "zorder": 3,
    }  # fmt: skip


def _time_axis(axis: Axis, measured: Sequence[Measurement]) -> None:
    """Milliseconds, logarithmic, with room for labels."""
    times = [_milliseconds(entry) for entry in measured]
    low, high = min(times), max(times)
    ax = axis.axes
    if axis is ax.yaxis:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.6, high * 1.6)
    else:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.6, high * 1.6)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _time_label(batches: Sequence[int]) -> str:
    if tuple(batches) == (1,):
        return "latency (ms)"
    return "time per image (ms)"


def _milliseconds(entry: Measurement) -> float:
    """Of one image, at the median."""
    return 1000 * entry.median_seconds / entry.batch


def _milliseconds_above(entry: Measurement) -> float:
    """From the median up to the 95th percentile, of one image."""
    return 1000 * (entry.p95_seconds - entry.median_seconds) / entry.batch


def _title(conditions: Conditions) -> str:
    number = f"{conditions.threads} thread{'' if conditions.threads == 1 else 's'}"
    threads = f", {number}" if conditions.device == "cpu" else ""
    compiled = ", compiled" if conditions.compiled else ""
    words = (
        f"{conditions.backend}{compiled}, {conditions.dtype}, {conditions.device}{threads}: "
        f"{conditions.hardware}"
    )
    return textwrap.fill(words, _TITLE_CHARACTERS)
