"""The figure of a benchmark draws what was measured, and accuracy only where it is known."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from cmtscale.arch.errors import ResultsError
from cmtscale.record.bench import Bench, Conditions, Measurement
from cmtscale.report.bench import bench_figure, require_figure, save_bench

SECONDS = (0.010, 0.011, 0.012, 0.013, 0.020)
NETWORKS = {
    "cmt-ti": (638_904_600, 0.79),
    "cmt-s": (4_031_742_464, 0.835),
    "timm:resnet50": (4_089_184_256, None),
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
def bench() -> Bench:
    return Bench(
        conditions=Conditions(
            backend="torch",
            dtype="fp32",
            tf32=False,
            device="cpu",
            hardware="a processor, 2 cores",
            threads=2,
            compiled=False,
            rounds=10,
            passes_per_round=3,
            load_average=0.0,
            memory="",
            versions="torch 2",
        ),
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
