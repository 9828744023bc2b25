"""A search from request to choice: ask, run, record, choose. The driver alone owns the record."""

import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from cmtscale.arch.errors import RequestError, ResultsError
from cmtscale.data.batches import images_per_epoch
from cmtscale.data.pack import Dataset
from cmtscale.record.folder import CHECKPOINT, ENVIRONMENT, REQUEST, RUNS, TRIALS, VAL_LOSSES
from cmtscale.record.losses import Losses, gather_losses, read_losses
from cmtscale.record.metrics import export_curves, read_metrics
from cmtscale.record.reads import readings
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row
from cmtscale.record.scores import Score, current
from cmtscale.record.table import Table
from cmtscale.search.choose import Guess, choose, leader, rank
from cmtscale.search.environment import save_environment
from cmtscale.search.executor import Executor, Job, LocalExecutor
from cmtscale.search.interrupt import lasting_interrupt
from cmtscale.search.open import OpenFolder, inspected, opened
from cmtscale.search.outcome import Outcome, make_row, save_choice
from cmtscale.search.plan import Plan, ended_rows, make_plan, run_id
from cmtscale.search.prepare import prepare
from cmtscale.search.request import SearchRequest, Settings
from cmtscale.search.samplers import Asked, generations
from cmtscale.search.store import Index
from cmtscale.train.devices import device_slots
from cmtscale.train.loop import test_accuracy
from cmtscale.train.recipe import DataRef, Run

LOOK_SECONDS = 1.0  # how often the watcher hears of progress
TRIES = 2  # of a run that fails, before the choice


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search is: ended and all runs, what runs now, seconds left (None: not known)."""

    done: int
    runs: int
    running: tuple[tuple[str, float], ...]  # run id, part done
    images_per_second: float
    seconds_left: float | None
    best: Score | None


class Watcher(Protocol):
    """Somebody who is told how a search goes."""

    def planned(self, plan: Plan) -> None:
        """Before anything is trained."""
        ...

    def progressed(self, progress: Progress) -> None:
        """About once a second."""
        ...

    def ended(self, row: Row) -> None:
        """A run has ended and is recorded."""
        ...

    def noted(self, text: str) -> None:
        """Something worth a line."""
        ...


class NullWatcher:
    """Shows nothing."""

    def planned(self, plan: Plan) -> None: ...

    def progressed(self, progress: Progress) -> None: ...

    def ended(self, row: Row) -> None: ...

    def noted(self, text: str) -> None: ...


def search(
    request: SearchRequest, *, watcher: Watcher | None = None, dry_run: bool = False
) -> Outcome | None:
    """Search for the CMT to train at a budget; None if `dry_run`, which stops after the plan.

    Runs that the folder already holds are not repeated: the same request, or one that asks for
    more of the same search, goes on where an earlier one stopped. Raises a `CmtscaleError` for
    requests, data and folders that cannot be used, before anything is written.
    """
    # A script without the guard is imported by each worker, under this name, and searches again.
    imported_by_worker = getattr(sys.modules.get("__mp_main__"), "__name__", "") == "__mp_main__"
    if imported_by_worker or multiprocessing.parent_process() is not None:
        raise RequestError(
            "search was called in a process that another one started; "
            "put it under `if __name__ == '__main__':`"
        )
    watcher = watcher or NullWatcher()
    devices = device_slots(request.device, request.workers)
    data, dataset, settings = prepare(request, devices[0], watcher.noted)
    folder = request.out or Path("results") / settings.folder_name
    opening: AbstractContextManager[OpenFolder]
    if dry_run:
        opening = nullcontext(inspected(folder, settings))
    else:
        opening = opened(folder, settings, watcher.noted)
    with opening as run_folder:
        settings, table = run_folder.settings, run_folder.table
        plan = make_plan(settings, folder, dataset, devices, table.rows, watcher.noted)
        watcher.planned(plan)
        if dry_run:
            return None
        settings.save(folder / REQUEST)
        if plan.runs_done < plan.runs:  # else nothing is trained here
            save_environment(
                folder / ENVIRONMENT,
                dataset,
                source=settings.data,
                split_seed=settings.split_seed,
                devices=devices,
            )
        _note_lost_checkpoints(folder, table.rows, watcher)
        driver = _Driver(settings, data, folder, table, plan, watcher)
        executor = LocalExecutor(devices)
        try:
            with lasting_interrupt() as check_interrupt:
                for asked in generations(settings, lambda: table.rows, watcher.noted):
                    driver.train(asked, executor, check_interrupt)
        finally:
            executor.close()
            gather_losses(folder, [row.run_id for row in table.rows])  # runs/ may be removed
        return driver.conclude(torch.device(devices[0]))


class _Driver:
    """The state of one search while it goes on: its candidates, its record, its clock."""

    def __init__(
        self,
        settings: Settings,
        data: DataRef,
        folder: Path,
        table: Table,
        plan: Plan,
        watcher: Watcher,
    ) -> None:
        self.settings = settings
        self.data = data
        self.folder = folder
        self.table = table
        self.index = _open_index(folder, table, watcher)
        self.plan = plan
        self.watcher = watcher
        self.asked: dict[str, Asked] = {}  # by candidate
        self.failed_for_good = 0
        self.seconds_estimated = 0.0  # of the runs that ended here, to correct the estimate
        self.seconds_taken = 0.0

    def train(
        self, asked: list[Asked], executor: Executor, check_interrupt: Callable[[], None]
    ) -> None:
        """Run what is not recorded yet, all candidates with one seed before the next seed.

        A run that fails is tried once more, after the others.
        """
        self.asked |= {entry.candidate.name: entry for entry in asked}
        ended = ended_rows(self.settings, self.table.rows)
        waiting = [
            job
            for seed in range(self.settings.seeds)
            for entry in asked
            if (job := self._job(entry, seed)).run.run_id not in ended
        ]
        tries: dict[str, int] = {}
        while waiting or executor.running():
            while waiting and executor.free_slots:
                executor.submit(waiting.pop(0))
            for job, result in executor.results(LOOK_SECONDS):
                self._record(job, result)
                name = job.run.run_id
                tries[name] = tries.get(name, 0) + 1
                if result.status == "failed" and tries[name] < TRIES:
                    self.watcher.noted(f"{name} is tried once more at the end")
                    waiting.append(job)
                elif result.status == "failed":
                    self.failed_for_good += 1
            self.watcher.progressed(self._progress(waiting, executor))
            check_interrupt()

    def conclude(self, device: torch.device) -> Outcome:
        """Choose, evaluate the winner on the test split, and write what people read."""
        rows = self.table.rows
        comparable = current(rows, self.settings.horizon)
        image_losses = read_losses(self.folder)
        _require_means(self.folder, comparable, image_losses)
        self.index.update(rows)  # of a run that was repeated only the last trial stays
        export_curves(self.folder, rows)
        outcome = Outcome(
            folder=self.folder,
            settings=self.settings,
            candidates=tuple(entry.candidate for entry in self.asked.values()),
            rows=tuple(rows),
            choice=choose(comparable, image_losses, _guess(self.plan.dataset)),
            readings=(),
            paper=self.plan.paper,
        )
        if outcome.choice is None:
            return outcome
        if outcome.choice.verdict == "choice":
            self._test(outcome.choice.best, device)
        outcome = replace(outcome, readings=tuple(readings(self.folder)))
        save_choice(outcome)
        return outcome

    def _job(self, asked: Asked, seed: int) -> Job:
        name = run_id(self.settings, asked.candidate.name, seed)
        run = Run(
            run_id=name,
            variant=asked.candidate.trained,
            recipe=self.settings.run_recipe,
            seed=seed,
            data=self.data,
        )
        return Job(run=run, folder=self.folder / RUNS / name, candidate=asked.candidate.name)

    def _record(self, job: Job, result: RunResult) -> None:
        row = make_row(self.asked[job.candidate], job.run, result)
        self.table.add(row)
        self.index.add(row)
        if result.status == "complete":
            self.seconds_estimated += self._estimate(job.candidate)
            self.seconds_taken += result.seconds
        self.watcher.ended(row)

    def _test(self, best: Score, device: torch.device) -> None:
        """Let the winner's runs read the test split; each run's network reads it once."""
        read = {reading.run_id for reading in readings(self.folder)}
        jobs = [self._job(self.asked[best.candidate], seed) for seed in best.seeds]
        for job in jobs:
            if job.run.run_id in read:
                continue
            accuracy = test_accuracy(
                job.run, device=device, folder=job.folder, log_folder=self.folder, by="search"
            )
            if accuracy is None:
                self.watcher.noted(
                    f"the test split is not read by {job.run.run_id}: its checkpoint is gone"
                )

    def _estimate(self, candidate: str) -> float:
        for planned, seconds in zip(self.plan.candidates, self.plan.run_seconds, strict=False):
            if planned.name == candidate:
                return seconds
        return sum(self.plan.run_seconds) / max(1, len(self.plan.run_seconds))

    def _progress(self, waiting: list[Job], executor: Executor) -> Progress:
        rows = current(self.table.rows, self.settings.horizon)
        running, speed = [], 0.0
        left = sum(self._estimate(job.candidate) for job in waiting)
        for job in executor.running():
            part, images_per_second = _part_done(job)
            running.append((job.run.run_id, part))
            speed += images_per_second
            left += (1 - part) * self._estimate(job.candidate)
        correction = self.seconds_taken / self.seconds_estimated if self.seconds_taken else 1.0
        return Progress(
            done=len(ended_rows(self.settings, rows)) + self.failed_for_good,
            runs=self.plan.runs,
            running=tuple(running),
            images_per_second=speed,
            seconds_left=correction * left / len(self.plan.devices),
            best=leader(rank(rows)),
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


def _note_lost_checkpoints(folder: Path, rows: Sequence[Row], watcher: Watcher) -> None:
    complete = [row.run_id for row in rows if row.status == "complete"]
    lost = [name for name in complete if not (folder / RUNS / name / CHECKPOINT).exists()]
    if lost:
        watcher.noted(
            f"{len(lost)} of {len(complete)} checkpoints are gone from {folder / RUNS}: their "
            f"scores stay, but these networks can no longer be tested, or scored in another way"
        )


def _open_index(folder: Path, table: Table, watcher: Watcher) -> Index:
    rows = table.rows
    index = Index(folder)
    if index.journal_mode != "wal":
        watcher.noted(f"no write-ahead log in {folder} (a network disk?): recording is slower")
    added = index.update(rows)
    if added:
        watcher.noted(
            f"{added} of the {len(rows)} runs are entered into study.db, as trials.csv has them"
        )
    return index


def _guess(dataset: Dataset) -> Guess:
    """Naming the commonest class of the validation split."""
    counts = np.bincount(dataset.labels[dataset.splits.val])
    return Guess(accuracy=float(counts.max() / counts.sum()), val_images=int(counts.sum()))


def _part_done(job: Job) -> tuple[float, float]:
    """(part of its images a run has seen, images per second so far), from its last metrics line."""
    lines = read_metrics(job.folder)
    if not lines:
        return 0.0, 0.0
    recipe = job.run.recipe
    total = recipe.epochs * images_per_epoch(recipe.train_images, recipe.batch_size)
    seconds = lines[-1]["seconds"]
    return min(1.0, lines[-1]["images"] / total), lines[-1]["images"] / seconds if seconds else 0.0
