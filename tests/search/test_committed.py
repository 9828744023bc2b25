"""Searches committed under results/ are recognised as finished from their table alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cmtscale.cli.app import run
from cmtscale.data.named import DEBIAN_FASHION_MNIST
from cmtscale.search.executors.base import Job
from cmtscale.search.jobs import ReadTestSplit

RESULTS = Path(__file__).parents[2] / "results"
KEPT = ("trials.csv", "val_losses.npz", "best.toml", "curves.csv", "decisions.json")
COMMAND = ["search", "--budget", "4.0G", "--data", "fashion-mnist", "--max-time", "1h"]
COMMAND += ["--device", "cpu", "--out", "results/search"]


@pytest.fixture
def nothing_trains(in_process_class: type[Any], use_executor: Callable[[Any], None]) -> None:
    class Refusing(in_process_class):  # type: ignore[misc]
        def submit(self, job: Job) -> None:
            if not isinstance(job, ReadTestSplit):
                pytest.fail(f"{job} was carried out again")
            super().submit(job)

    use_executor(Refusing())


def test_results_hold_ones_own_run_folders_and_the_committed_ones_a_level_below() -> None:
    questions = [readme.parent for readme in RESULTS.glob("*/README.md")]
    assert not [folder for folder in questions if (folder / "trials.csv").exists()]
    assert RESULTS / "fashion-mnist-4G" / "search" / "trials.csv" in RESULTS.glob("*/*/trials.csv")


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="no local Fashion-MNIST")
@pytest.mark.usefixtures("nothing_trains")
def test_the_committed_search_is_found_done_by_its_own_command(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "results" / "search"
    shutil.copytree(RESULTS / "fashion-mnist-4G" / "search", copy)
    shutil.rmtree(copy / "runs", ignore_errors=True)
    before, choice = {name: (copy / name).read_bytes() for name in KEPT}, read_choice(copy)
    for _ in range(2):  # without study.db, then with it
        assert run([*COMMAND, "--cache-dir", str(cache_dir)]) == 0
        assert {name: (copy / name).read_bytes() for name in KEPT} == before
        assert read_choice(copy) == choice
        assert (copy / "study.db").exists()
    assert list(copy.parent.iterdir()) == [copy]
    assert run(["search", "--from", str(copy), "--cache-dir", str(cache_dir)]) == 0
    assert {name: (copy / name).read_bytes() for name in KEPT} == before
    assert read_choice(copy) == choice


def read_choice(folder: Path) -> Any:
    """The answer, without the last digits, in which numbers of threads differ."""
    text = (folder / "choice.json").read_text()
    return json.loads(text, parse_float=lambda number: f"{float(number):.9g}")
