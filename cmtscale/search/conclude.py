"""The end of a search: choose, read the test split for the winner, write what people read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmtscale.arch.errors import ResultsError
from cmtscale.record.choice import DECIDED
from cmtscale.record.folder import TRIALS, VAL_LOSSES
from cmtscale.record.losses import Losses, read_losses
from cmtscale.record.metrics import export_curves
from cmtscale.record.reads import log_reading, readings
from cmtscale.record.row import Row
from cmtscale.search.answer import answer
from cmtscale.search.candidates import recorded_candidate
from cmtscale.search.choose import Choice
from cmtscale.search.executors.base import Executor, Failure, carry_out_all
from cmtscale.search.jobs import ReadTestSplit
from cmtscale.search.outcome import Outcome, save_choice
from cmtscale.search.plan import Plan
from cmtscale.search.recording import job_of
from cmtscale.search.runs import RungRun
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.timings import read_timings, with_latencies
from cmtscale.search.watch import Watcher


def conclude(plan: Plan, rows: Sequence[Row], executor: Executor, watcher: Watcher) -> Outcome:
    """Choose among the recorded runs, and write the choice with its evidence."""
    settings, folder = plan.settings, plan.folder
    _require_means(folder, rows, read_losses(folder))
    export_curves(folder, rows)
    outcome = answer(folder, settings, rows)
    choice = outcome.choice
    if choice is None:
        return outcome
    if choice.verdict == "tie" and choice.prefer == "latency":
        named = {candidate.name: candidate.real for candidate in outcome.candidates}
        timings = read_timings(folder)
        networks = [named[name] for name in choice.near]
        with_latencies(timings, networks, settings, executor).save(folder)
        outcome = answer(folder, settings, rows)
        choice = outcome.choice
        assert choice is not None
    if choice.verdict in DECIDED:
        _read_test_split(plan, rows, choice, executor, watcher)
    outcome = replace(outcome, readings=tuple(readings(folder)))
    save_choice(outcome)
    return outcome


def _read_test_split(
    plan: Plan, rows: Sequence[Row], choice: Choice, executor: Executor, watcher: Watcher
) -> None:
    """Let the winner's longest runs read the test split; each run's network reads it once."""
    settings = plan.settings
    logged = {reading.run_id for reading in readings(plan.folder)}
    standing = choice.standing
    rung = settings.images_seen.index(standing.longest_images)
    own = next(row for row in rows if row.candidate == choice.taken)
    candidate = recorded_candidate(settings, own, NOT_TIMED)
    runs = [
        RungRun(candidate=candidate.name, rung=rung, seed=seed) for seed in standing.longest.seeds
    ]
    trained = [job_of(settings, plan.folder, plan.dataset.ref, candidate, run) for run in runs]
    jobs = [
        ReadTestSplit(run=job.run, folder=job.folder)
        for job in trained
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
