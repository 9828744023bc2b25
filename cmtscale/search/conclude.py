"""The end of a search: choose, read the test split for the winner, write what people read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmtscale.arch.errors import ResultsError
from cmtscale.data.dataset import Dataset
from cmtscale.record.folder import TRIALS, VAL_LOSSES
from cmtscale.record.losses import Losses, read_losses
from cmtscale.record.metrics import export_curves
from cmtscale.record.reads import log_reading, readings
from cmtscale.record.row import Row
from cmtscale.record.scores import current
from cmtscale.search.choose import Choice, Guess, choose
from cmtscale.search.drive import job_of
from cmtscale.search.executors.base import Executor, Failure, carry_out_all
from cmtscale.search.jobs import ReadTestSplit
from cmtscale.search.outcome import Outcome, save_choice
from cmtscale.search.plan import Plan
from cmtscale.search.samplers import Asked
from cmtscale.search.watch import Watcher


def conclude(
    plan: Plan, asked: Sequence[Asked], rows: Sequence[Row], executor: Executor, watcher: Watcher
) -> Outcome:
    """Choose among the recorded runs, and write the choice with its evidence."""
    settings, folder = plan.settings, plan.folder
    comparable = current(rows, settings.horizon)
    image_losses = read_losses(folder)
    _require_means(folder, comparable, image_losses)
    export_curves(folder, rows)
    choice = choose(comparable, image_losses, _guess(plan.dataset))
    outcome = Outcome(
        folder=folder,
        settings=settings,
        candidates=tuple(entry.candidate for entry in asked),
        rows=tuple(rows),
        choice=choice,
        readings=(),
        paper=plan.paper,
    )
    if choice is None:
        return outcome
    if choice.verdict == "choice":
        _read_test_split(plan, asked, choice, executor, watcher)
    outcome = replace(outcome, readings=tuple(readings(folder)))
    save_choice(outcome)
    return outcome


def _read_test_split(
    plan: Plan, asked: Sequence[Asked], choice: Choice, executor: Executor, watcher: Watcher
) -> None:
    """Let the winner's runs read the test split; each run's network reads it once."""
    logged = {reading.run_id for reading in readings(plan.folder)}
    (winner,) = [entry for entry in asked if entry.candidate.name == choice.winner]
    runs = [
        job_of(plan.settings, plan.folder, plan.dataset.ref, winner, seed)
        for seed in choice.best.seeds
    ]
    jobs = [
        ReadTestSplit(run=job.run, folder=job.folder)
        for job in runs
        if job.run.run_id not in logged
    ]
    for job, score in carry_out_all(executor, iter(jobs)):
        assert isinstance(job, ReadTestSplit)
        name = job.run.run_id
        if score is None or isinstance(score, Failure):
            cause = "its checkpoint is gone" if score is None else score.cause
            watcher.noted(f"the test split is not read by {name}: {cause}")
        else:
            log_reading(
                plan.folder, by="search", run_id=name, images=score.images, accuracy=score.accuracy
            )


def _require_means(folder: Path, rows: Sequence[Row], image_losses: Mapping[str, Losses]) -> None:
    """Raise `ResultsError` where a loss is not the mean of the losses of its images."""
    for row in rows:
        losses = image_losses.get(row.run_id)
        # beyond half precision's largest number losses are cut
        if row.val_loss is None or losses is None or losses.max() == np.finfo(losses.dtype).max:
            continue
        mean = float(losses.mean(dtype=float))
        if abs(mean - row.val_loss) > 0.01 * row.val_loss + 1e-3:  # far more than it rounds
            raise ResultsError(
                f"{folder / TRIALS} has the loss {row.val_loss:.4f} for {row.run_id}, "
                f"{VAL_LOSSES} has {mean:.4f}: one of them was changed; restore it"
            )


def _guess(dataset: Dataset) -> Guess:
    """Naming the commonest class of the validation split."""
    counts = np.bincount(dataset.labels[dataset.splits.val])
    return Guess(accuracy=float(counts.max() / counts.sum()), val_images=int(counts.sum()))
