"""Searches committed under results/ are recognised as finished from their table alone."""

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
KEPT = ("trials.csv", "val_losses.npz", "choice.json", "best.toml", "curves.csv", "request.toml")
COMMAND = ["search", "--budget", "4.0G", "--data", "fashion-mnist", "--train-images", "12800"]
COMMAND += ["--epochs", "1", "--seeds", "2", "--device", "cpu"]


@pytest.fixture
def nothing_trains(in_process_class: type[Any], use_executor: Callable[[Any], None]) -> None:
    class Refusing(in_process_class):  # type: ignore[misc]
        def submit(self, job: Job) -> None:
            if not isinstance(job, ReadTestSplit):
                pytest.fail(f"{job} was carried out again")
            super().submit(job)

    use_executor(Refusing())


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="no local Fashion-MNIST")
@pytest.mark.usefixtures("nothing_trains")
def test_the_committed_search_is_found_done_by_its_own_command(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (committed,) = [path.parent for path in RESULTS.glob("fashion-mnist-*/request.toml")]
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "results" / committed.name  # the default folder of the command
    shutil.copytree(committed, copy)
    shutil.rmtree(copy / "runs", ignore_errors=True)
    before = {name: (copy / name).read_bytes() for name in KEPT}
    for _ in range(2):  # without study.db, then with it
        assert run([*COMMAND, "--cache-dir", str(cache_dir)]) == 0
        assert {name: (copy / name).read_bytes() for name in KEPT} == before
        assert (copy / "study.db").exists()
    assert [path.name for path in copy.parent.iterdir()] == [committed.name]
    assert run(["search", "--from", str(copy), "--cache-dir", str(cache_dir)]) == 0
    assert {name: (copy / name).read_bytes() for name in KEPT} == before
