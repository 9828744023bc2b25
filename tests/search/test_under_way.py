"""How far runs are, from their logs."""

from dataclasses import replace
from pathlib import Path

import pytest

from cmtscale.data.dataset import DataRef
from cmtscale.record.metrics import append_metrics
from cmtscale.search.jobs import TrainRun
from cmtscale.search.outcome import Outcome
from cmtscale.search.recording import job_of
from cmtscale.search.runs import RungRun
from cmtscale.search.under_way import under_way


@pytest.fixture
def job(finished: Outcome, tmp_path: Path) -> TrainRun:
    """A run of 2 epochs of 64 images, whose folder is empty."""
    candidate = finished.candidates[0]
    data = DataRef(path=tmp_path, content_hash="x")
    run = RungRun(candidate=candidate.name, rung=0, seed=0)
    job = job_of(finished.settings, tmp_path, data, candidate, run)
    folder = tmp_path / "run"
    folder.mkdir()
    return replace(job, folder=folder)


def test_a_run_without_a_log_has_not_begun(job: TrainRun) -> None:
    ((_, begun),) = under_way([job], 270)
    assert (begun.part, begun.images_per_second) == (0.0, 0.0)


def test_a_run_is_done_when_its_last_evaluation_is(job: TrainRun) -> None:
    seen = []
    for line in (
        {"step": 1, "images": 64, "train_loss": 2.0, "seconds": 1.0},
        {"step": 1, "images": 64, "val_accuracy": 0.5, "seconds": 2.0},
        {"step": 2, "images": 128, "train_loss": 1.0, "seconds": 3.0},
        {"step": 2, "images": 128, "val_accuracy": 0.6, "seconds": 4.0},
    ):
        append_metrics(job.folder, line)
        seen += [going for _, going in under_way([job], 270)]
    # 64 images are trained on, then 270 and 64 are evaluated, each for a third of a step
    epoch = 64 + (270 + 64) / 3
    done = [64, epoch, epoch + 64, 2 * epoch]
    assert [run.part for run in seen] == pytest.approx([images / (2 * epoch) for images in done])
    assert seen[2].images_per_second == pytest.approx(128 / 3)
