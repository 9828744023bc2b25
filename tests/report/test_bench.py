"""The figure of a benchmark draws what was measured, and accuracy only where it is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from cmtscale.arch.errors import ResultsError
from cmtscale.record.bench import Bench, Conditions, Measurement
from cmtscale.report.bench import bench_figure, require_figure, save_bench
from cmtscale.report.layout import macs_axis

SECONDS = (0.010, 0.011, 0.012, 0.013, 0.020)
NETWORKS = {
    "cmt-ti": (638_904_600, 0.79),
    "cmt-s": (4_031_742_464, 0.835),
    "timm:resnet50": (4_089_184_256, None),
}
CLOSE = {  # MACs, milliseconds with 1 image and with 8
    "cmt-xs": (1_546_873_472, 27.7, 131.5),
    "cmt-s": (4_031_742_464, 52.1, 300.6),
    "timm:deit_small_patch16_224": (4_602_732_288, 53.0, 381.7),
    "timm:efficientnet_b4@380": (4_389_773_824, 48.1, 364.9),
    "timm:resnet50": (4_089_184_256, 31.6, 178.5),
}


def measurement(name: str, batch: int, scale: float = 1.0) -> Measurement:
    macs, accuracy = NETWORKS[name]
    return Measurement(
        name=name,
        resolution_px=224,
        macs=macs,
        params=1,
        batch=batch,
        seconds=tuple(scale * batch * macs / 1e9 * value for value in SECONDS),
        peak_bytes=None,
        accuracy=accuracy,
        accuracy_of="" if accuracy is None else "ImageNet-1K, as published",
    )


@pytest.fixture
def bench(conditions: Conditions) -> Bench:
    return Bench(
        conditions=conditions,
        measurements=tuple(
            measurement(name, batch, scale)
            for name in NETWORKS
            for batch, scale in ((1, 1.0), (8, 0.6))
        ),
        left_out=(),
    )


def points(ax: Axes) -> set[tuple[float, float]]:
    return {
        (float(x), round(float(y), 6))
        for bars in ax.containers
        for x, y in zip(*bars[0].get_data(), strict=True)
    }


def names(ax: Axes) -> set[str]:
    return {text.get_text() for text in ax.findobj(Annotation)}


def test_time_per_image_stands_at_the_macs_with_every_name_once(bench: Bench) -> None:
    times, _ = bench_figure(bench).axes
    assert points(times) == {
        (float(m.macs), round(1000 * m.median_seconds / m.batch, 6)) for m in bench.measurements
    }
    assert names(times) == {"cmt-ti", "cmt-s", "resnet50"}
    assert times.get_title(loc="left") == "torch, fp32, cpu, 2 threads: a processor, 2 cores"
    assert times.get_ylabel() == "time per image (ms)"
    legend = times.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["batch 1", "batch 8"]


def test_lines_reach_from_the_median_to_the_95th_percentile(bench: Bench) -> None:
    one = replace(bench, measurements=(measurement("cmt-ti", 8),))
    (times,) = [ax for ax in bench_figure(one).axes if ax.get_xlabel().startswith("MACs")]
    ((low, high),) = [sorted(segment[:, 1]) for segment in times.containers[0][2][0].get_segments()]
    (shown,) = one.measurements
    assert low == pytest.approx(1000 * shown.median_seconds / 8)
    assert high == pytest.approx(1000 * shown.p95_seconds / 8)


def test_accuracy_is_drawn_where_it_is_known(bench: Bench) -> None:
    _, accuracy = bench_figure(bench).axes
    assert {y for _, y in points(accuracy)} == {79.0, 83.5}
    assert names(accuracy) == {"cmt-ti", "cmt-s"}
    assert accuracy.get_title(loc="left") == "accuracy: ImageNet-1K, as published"
    unknown = tuple(m for m in bench.measurements if m.accuracy is None)
    assert len(bench_figure(replace(bench, measurements=unknown)).axes) == 1


def test_accuracies_on_different_images_never_share_a_panel(bench: Bench) -> None:
    own = replace(bench.measurements[0], name="runs/best", accuracy=0.97, accuracy_of="digits")
    figure = bench_figure(replace(bench, measurements=(*bench.measurements, own)))
    _, published, digits = figure.axes
    assert digits.get_title(loc="left") == "accuracy: digits"
    assert {y for _, y in points(digits)} == {97.0}
    assert "runs/best" not in names(published)


def test_a_label_stands_at_its_own_point_or_has_a_line_to_it(bench: Bench) -> None:
    like = bench.measurements[0]
    measured = tuple(
        replace(like, name=name, macs=macs, batch=batch, seconds=(time / 1000, 1.3 * time / 1000))
        for name, (macs, *times) in CLOSE.items()
        for batch, time in zip((1, 8), times, strict=True)
    )
    figure = bench_figure(replace(bench, measurements=measured))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    marks = {
        m: ax.transData.transform((m.macs, 1000 * m.median_seconds / m.batch)) for m in measured
    }
    labels = {text.get_text(): text for text in ax.findobj(Annotation)}
    for name, label in labels.items():
        (own,) = [m for m in measured if m.name.removeprefix("timm:") == name and m.batch == 1]
        box = Text.get_window_extent(label)
        assert not any(box.contains(*mark) for mark in marks.values())
        away = {m: math.dist(np.clip(mark, box.min, box.max), mark) for m, mark in marks.items()}
        if label.arrow_patch is None:
            assert min(away, key=away.__getitem__) is own
        else:
            assert label.xy == (own.macs, pytest.approx(1000 * own.median_seconds))
    assert [name for name, label in labels.items() if label.arrow_patch] == [
        "deit_small_patch16_224", "efficientnet_b4@380",
    ]  # fmt: skip


def test_no_label_covers_another_or_a_bar(bench: Bench) -> None:
    figure = bench_figure(bench)
    figure.draw_without_rendering()
    for ax in figure.axes:
        boxes = [Text.get_window_extent(text) for text in ax.findobj(Annotation)]
        bars = [
            Bbox(ax.transData.transform(segment))
            for container in ax.containers
            for segment in container[2][0].get_segments()
        ]
        assert bars
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in [*boxes[:number], *bars])


def test_latency_is_what_one_image_takes(bench: Bench) -> None:
    single = tuple(m for m in bench.measurements if m.batch == 1)
    times = bench_figure(replace(bench, measurements=single)).axes[0]
    assert times.get_ylabel() == "latency (ms)"
    assert times.get_legend() is None


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_benchmark_gives_the_same_file(bench: Bench, tmp_path: Path, kind: str) -> None:
    files = [tmp_path / f"{number}.{kind}" for number in range(2)]
    for file in files:
        save_bench(bench, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(tmp_path.iterdir()) == files


def test_a_figure_that_cannot_be_written_is_one_clear_error(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"x\.jpg is of no kind known here; use \.png, \.svg"):
        require_figure(tmp_path / "x.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ResultsError, match="is a folder; name a file in it"):
        require_figure(tmp_path / "folder.png")
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot be written"):
        save_bench(bench, tmp_path / "file" / "x.png")
    with pytest.raises(ResultsError, match="nothing was measured"):
        bench_figure(replace(bench, measurements=()))


def test_points_of_networks_that_cost_about_the_same_are_not_cut_off() -> None:
    figure = Figure()
    for macs in ((99e6, 148e6), (1e9, 1e9), (1e9, 1.02e9), (1e9, 30e9)):
        ax = figure.add_subplot()
        macs_axis(ax, macs)
        low, high = ax.get_xlim()
        shown = ax.transScale.transform([(x, 1) for x in (low, *macs, high)])[:, 0]
        margin = 0.04 * (shown[-1] - shown[0])
        assert min(shown[1:3]) - shown[0] > margin
        assert shown[-1] - max(shown[1:3]) > margin
