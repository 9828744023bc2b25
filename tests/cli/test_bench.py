"""`bench` on the command line: JSON, the table, the figure, and networks that are left out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from rich.console import Console

from cmtscale.arch.variant import Variant
from cmtscale.cli import bench_view
from cmtscale.cli.app import run
from cmtscale.cli.bench_view import milliseconds, parse_batches, print_bench
from cmtscale.deploy import bench as bench_module
from cmtscale.record.bench import Bench, Conditions, Measurement

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def tiny_file(tmp_path: Path, tiny_base: Variant) -> str:
    (tmp_path / "tiny.toml").write_text(tiny_base.to_toml())
    return str(tmp_path / "tiny.toml")


class MakeBench(Protocol):
    def __call__(
        self, *, load: float | None = ..., name: str = ..., peak: int | None = ...
    ) -> Bench: ...


@pytest.fixture
def made_up(conditions: Conditions) -> MakeBench:
    """A benchmark of one network in bf16."""

    def make(*, load: float | None = 0.1, name: str = "cmt-s", peak: int | None = None) -> Bench:
        measured = Measurement(
            name=name,
            resolution_px=224,
            macs=4_031_742_464,
            params=26_256_160,
            batch=8,
            seconds=(0.8, 0.8, 0.8),
            peak_bytes=peak,
            accuracy=0.835,
            accuracy_of="ImageNet-1K, as published",
        )
        how = replace(conditions, dtype="bf16", load_average=load)
        return Bench(conditions=how, measurements=(measured,), left_out=())

    return make


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[[Bench, int], str]:
    """What `print_bench` prints at a width."""

    def printed_at(bench: Bench, width: int) -> str:
        console = Console(width=width, highlight=False)
        monkeypatch.setattr(bench_view, "results", lambda: console)
        print_bench(bench)
        return capsys.readouterr().out

    return printed_at


@pytest.mark.usefixtures("single_threaded")
def test_networks_are_measured_side_by_side(
    capsys: Capture, tiny_file: str, tmp_path: Path
) -> None:
    figure = tmp_path / "figures" / "bench.svg"
    command = ["bench", tiny_file, f"{tiny_file}@96", "--batch", "1,2", "--rounds", "1"]
    command += ["--device", "cpu", "--json", "--figure", str(figure)]
    assert run(command) == 0
    output = capsys.readouterr()
    content = json.loads(output.out)
    assert [(m["name"], m["batch"]) for m in content["measurements"]] == [
        (name, batch) for name in (tiny_file, f"{tiny_file}@96") for batch in (1, 2)
    ]
    assert [m["resolution_px"] for m in content["measurements"]] == [64, 64, 96, 96]
    relied_on = [
        "name", "resolution_px", "macs", "params", "batch", "seconds", "peak_bytes", "accuracy",
        "accuracy_of", "median_seconds", "p95_seconds", "images_per_second", "macs_per_second",
    ]  # fmt: skip
    assert list(content["measurements"][0]) == relied_on
    assert content["conditions"]["rounds"] == 1
    assert content["left_out"] == []
    assert f"figure: {figure}" in output.err
    assert "<svg" in figure.read_text()


def test_what_is_left_out_is_a_line_and_nothing_left_is_a_failure(
    capsys: Capture, tiny_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torch_pass(_model: object, _network: object, batch: int, _device: object) -> object:
        def run() -> None:
            if batch > 1:
                raise MemoryError

        return run

    monkeypatch.setattr(bench_module, "torch_pass", torch_pass)
    assert run(["bench", tiny_file, "--batch", "1,8", "--rounds", "1", "--device", "cpu"]) == 0
    output = capsys.readouterr()
    line = f"left out {tiny_file} with batch 8: it runs out of memory beside the others"
    assert line in output.err
    assert "images/s" in output.out
    assert run(["bench", tiny_file, "--batch", "8", "--rounds", "1", "--device", "cpu"]) == 1
    output = capsys.readouterr()
    assert line in output.err
    assert output.out == ""


def test_the_table_has_medians_rates_and_what_they_mean(
    table: Callable[[Bench, int], str], made_up: MakeBench
) -> None:
    text = table(made_up(peak=1_234_567_890), 160)
    (row,) = [line.split() for line in text.splitlines() if line.startswith("cmt-s")]
    expected = "cmt-s 224 4.03G 26.3M 8 800 800 10.0 40.3 1,235 83.5 %"
    assert row == expected.split()
    assert "torch, bf16 (autocast), cpu, 2 threads: a processor, 2 cores; torch 2." in text
    assert "peak MB (10⁶): what a pass adds." in text
    assert "accuracy: ImageNet-1K, as published." in text
    assert "busy" not in text


def test_a_busy_machine_is_mentioned(
    table: Callable[[Bench, int], str], made_up: MakeBench
) -> None:
    assert "The machine was busy before (load average 2.6)" in table(made_up(load=2.6), 200)
    assert "busy" not in table(made_up(load=None), 200)


def test_times_fit_80_columns_beside_a_long_name(
    table: Callable[[Bench, int], str], made_up: MakeBench
) -> None:
    text = table(made_up(name="timm:deit_small_patch16_224", peak=1_000_000), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].split()[-5:] == ["ms", "p95", "ms", "images/s", "GMACs/s"]
    assert "(a wider terminal also shows: px, params, peak MB, accuracy)" in text
    assert "accuracy:" not in text


def test_times_have_three_digits() -> None:
    assert [milliseconds(s) for s in (0.001234, 0.01234, 0.1234, 1.234)] == [
        "1.23", "12.3", "123", "1,234",
    ]  # fmt: skip


def test_batches_are_read_once_each_in_order() -> None:
    assert parse_batches("32, 1,32") == (32, 1)
