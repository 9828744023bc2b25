"""A search from request to choice: ask, run, record, choose. The driver alone owns the store."""

import multiprocessing
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from optuna.trial import Trial

from cmtscale.data.batches import images_per_epoch
from cmtscale.data.pack import Dataset
from cmtscale.data.sources import parse_source
from cmtscale.search.candidates import (
    Candidate,
    extreme_networks,
    grid,
    largest_resolution,
    paper_solution,
    require_trainable,
)
from cmtscale.search.choose import Score, choose
from cmtscale.search.environment import save_environment
from cmtscale.search.executor import Executor, Job, LocalExecutor
from cmtscale.search.folder import (
    ENVIRONMENT,
    REQUEST,
    RUNS,
    export_curves,
    recorded_ids,
    require_same_images,
    require_same_precision,
    require_same_request,
)
from cmtscale.search.outcome import (
    Outcome,
    make_row,
    read_choice,
    require_same_networks,
    save_choice,
)
from cmtscale.search.plan import START_SECONDS, Plan, time_runs
from cmtscale.search.request import SearchRequest, Settings, resolve
from cmtscale.search.samplers import point_of, sampled_generations
from cmtscale.search.store import Row, Store, database_errors
from cmtscale.spec.budget import format_macs
from cmtscale.spec.errors import CmtscaleError, RequestError
from cmtscale.train.claim import owned
from cmtscale.train.devices import available_cores, device_slots
from cmtscale.train.loop import METRICS, open_data, read_metrics, test_accuracy, training_indices
from cmtscale.train.recipe import DataRef, Run

RUNG = 1  # the only rung so far; each run has a full schedule of its own
LOOK_SECONDS = 1.0  # how often the watcher hears of progress


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
        """Before anything is written."""
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


class Silence:
    """The watcher that does not care."""

    def planned(self, plan: Plan) -> None: ...

    def progressed(self, progress: Progress) -> None: ...

    def ended(self, row: Row) -> None: ...

    def noted(self, text: str) -> None: ...


def search(
    request: SearchRequest, *, watcher: Watcher | None = None, dry_run: bool = False
) -> Outcome | None:
    """Search for the CMT to train at a budget; None if `dry_run`, which stops after the plan.

    Runs that the folder already holds are not repeated: the same request goes on where an earlier
    one stopped. Raises a `CmtscaleError` for requests, data and folders that cannot be used,
    before anything is written.
    """
    # A script without the guard is imported by each worker, under this name, and searches again.
    imported_by_worker = getattr(sys.modules.get("__mp_main__"), "__name__", "") == "__mp_main__"
    if imported_by_worker or multiprocessing.parent_process() is not None:
        raise RequestError(
            "search was called in a process that another one started; "
            "put it under `if __name__ == '__main__':`"
        )
    watcher = watcher or Silence()
    devices = device_slots(request.device, request.workers)
    data = DataRef(
        source=request.data,
        resolution_px=_largest_resolution(request),
        split_seed=request.seed,
        cache_dir=request.cache_dir,
    )
    place = parse_source(request.data).path
    if place is not None and place.is_dir():
        watcher.noted(f"reading {place}; its images are packed once, see `cmtscale cache`")
    dataset = open_data(data)
    settings = resolve(
        request,
        num_classes=dataset.num_classes,
        channels=dataset.channels,
        train_images=len(dataset.splits.train),
    )
    require_trainable(settings)
    training_indices(dataset, settings.recipe)  # fewer images than classes are refused here
    if largest_resolution(settings) > data.resolution_px:  # many classes: a dearer head
        data = replace(data, resolution_px=largest_resolution(settings))
        dataset = open_data(data)
    data = replace(data, content_hash=dataset.content_hash)
    folder = request.out or Path("results") / settings.folder_name
    require_same_request(folder, settings)
    require_same_images(folder, dataset)
    require_same_precision(folder, settings.recipe, devices[0])
    plan = make_plan(settings, folder, dataset, devices, watcher)
    if plan.candidates and not any(candidate.on_budget for candidate in plan.candidates):
        raise RequestError(
            f"no candidate reaches the budget of {format_macs(settings.budget_macs)} MACs from "
            f"{settings.base.name}; use another budget (G = 10⁹) or another base"
        )
    watcher.planned(plan)
    if dry_run:
        return None
    with owned(folder), database_errors(folder):
        settings.save(folder / REQUEST)
        save_environment(folder / ENVIRONMENT, dataset, source=settings.data, devices=devices)
        store = Store(folder, rung=RUNG)
        if store.journal_mode != "wal":
            watcher.noted(f"no write-ahead log in {folder} (a network disk?): recording is slower")
        store.close_interrupted()
        driver = _Driver(settings, data, folder, store, plan, watcher)
        executor = LocalExecutor(devices)
        try:
            for candidates in driver.generations():
                driver.train(candidates, executor)
        finally:
            executor.close()
        return driver.conclude(torch.device(devices[0]))


def _largest_resolution(request: SearchRequest) -> int:
    """The largest side in px for whatever number of classes and channels the data turn out to have.

    Raises what makes the request senseless for all of them, before images are packed.
    """
    sides, refusals = [], []
    for num_classes, channels in ((2, 1), (1000, 3)):  # the cheapest networks and dear ones
        try:
            settings = resolve(request, num_classes=num_classes, channels=channels)
            require_trainable(settings)
            sides.append(largest_resolution(settings))
        except CmtscaleError as error:
            refusals.append(error)
    if not sides:
        raise refusals[0]
    return max(sides)


def make_plan(
    settings: Settings,
    folder: Path,
    dataset: Dataset,
    devices: tuple[str, ...],
    watcher: Watcher,
) -> Plan:
    """Candidates, runs, and an estimate of the time from training steps timed here."""
    candidates = tuple(grid(settings)) if settings.sampler == "grid" else ()
    done = recorded_ids(folder)
    networks = [candidate.trained for candidate in candidates] or list(extreme_networks(settings))
    watcher.noted("planning: a training step of each candidate is timed")
    run_seconds = time_runs(networks, settings.recipe, dataset, devices[0])
    if candidates:
        runs = len(candidates) * settings.seeds
        left = sum(
            seconds
            for candidate, seconds in zip(candidates, run_seconds, strict=True)
            for seed in range(settings.seeds)
            if run_id(candidate, seed) not in done
        )
    else:
        runs = settings.trials * settings.seeds
        left = max(0, runs - len(done)) * sum(run_seconds) / len(run_seconds)
    slots = min(len(devices), max(1, runs - len(done)))
    if devices[0] == "cpu":
        slots = min(slots, available_cores())  # more workers than cores take turns
    return Plan(
        settings=settings,
        folder=folder,
        dataset=dataset,
        devices=devices,
        candidates=candidates,
        run_seconds=run_seconds,
        runs=runs,
        runs_done=len(done),
        total_seconds=left / slots + (START_SECONDS if left else 0.0),
        paper=paper_solution(settings),
    )


def run_id(candidate: Candidate, seed: int) -> str:
    """`r1-d3.3.12.3-w22-r64-s0`: rung, candidate, seed."""
    return f"r{RUNG}-{candidate.name}-s{seed}"


class _Driver:
    """The state of one search while it goes on: its candidates, its store, its clock."""

    def __init__(
        self,
        settings: Settings,
        data: DataRef,
        folder: Path,
        store: Store,
        plan: Plan,
        watcher: Watcher,
    ) -> None:
        self.settings = settings
        self.data = data
        self.folder = folder
        self.store = store
        self.plan = plan
        self.watcher = watcher
        self.candidates: list[Candidate] = []
        self.seconds_estimated = 0.0  # of the runs that ended here, to correct the estimate
        self.seconds_taken = 0.0

    def generations(self) -> Iterator[list[Candidate]]:
        """The grid at once, or a sampler's candidates generation by generation."""
        if self.settings.sampler == "grid":
            yield list(self.plan.candidates)
        else:
            yield from sampled_generations(self.settings, self.store)

    def train(self, candidates: list[Candidate], executor: Executor) -> None:
        """Run what is not recorded yet, all candidates with one seed before the next seed."""
        self.candidates += candidates
        rows = self.store.rows()
        require_same_networks(self.folder, rows, candidates)
        ended = {row["run_id"] for row in rows if row["status"] != "failed"}
        waiting = [
            (candidate, seed)
            for seed in range(self.settings.seeds)
            for candidate in candidates
            if run_id(candidate, seed) not in ended
        ]
        open_trials: dict[str, tuple[Candidate, Trial]] = {}
        while waiting or open_trials:
            while waiting and executor.free_slots:
                candidate, seed = waiting.pop(0)
                job = self._job(candidate, seed)
                open_trials[job.run.run_id] = (
                    candidate,
                    self.store.start(point_of(candidate.shares)),
                )
                executor.submit(job)
            for job, result in executor.results(LOOK_SECONDS):
                candidate, trial = open_trials.pop(job.run.run_id)
                row = make_row(candidate, job.run, result, rung=RUNG)
                self.store.finish(trial, row)
                if result.status == "complete":
                    self.seconds_estimated += self._estimate(candidate)
                    self.seconds_taken += result.seconds
                self.watcher.ended(row)
            self.watcher.progressed(self._progress(waiting, executor))

    def conclude(self, device: torch.device) -> Outcome:
        """Choose, evaluate the winner on the test split, and write what people read."""
        rows = self.store.rows()
        self.store.export()
        export_curves(self.folder, rows)
        choice = choose(rows, seed=self.settings.seed)
        outcome = Outcome(
            folder=self.folder,
            settings=self.settings,
            candidates=tuple(self.candidates),
            rows=tuple(rows),
            choice=choice,
            test_accuracies=(),
            paper=self.plan.paper,
            guess_accuracy=_commonest_share(self.plan.dataset),
            val_images=len(self.plan.dataset.splits.val),
        )
        if choice is None:
            return outcome
        outcome = replace(outcome, test_accuracies=self._test(choice.winner, rows, device))
        save_choice(outcome)
        return outcome

    def _job(self, candidate: Candidate, seed: int) -> Job:
        name = run_id(candidate, seed)
        run = Run(
            run_id=name,
            variant=candidate.trained,
            recipe=self.settings.recipe,
            seed=seed,
            data=self.data,
        )
        return Job(run=run, folder=self.folder / RUNS / name)

    def _test(self, winner: str, rows: list[Row], device: torch.device) -> tuple[float, ...]:
        """Test accuracies of the winner's runs, from an earlier conclusion if it was the same."""
        seeds = [
            row["seed"]
            for row in rows
            if row["candidate"] == winner and row["status"] == "complete"
        ]
        known = read_choice(self.folder)
        if known.get("winner") == winner and known.get("seeds") == seeds:
            return tuple(known["test_accuracies"])
        candidate = next(c for c in self.candidates if c.name == winner)
        jobs = [self._job(candidate, seed) for seed in seeds]
        found = [test_accuracy(job.run, device=device, folder=job.folder) for job in jobs]
        return tuple(accuracy for accuracy in found if accuracy is not None)

    def _estimate(self, candidate: Candidate) -> float:
        for planned, seconds in zip(self.plan.candidates, self.plan.run_seconds, strict=False):
            if planned.name == candidate.name:
                return seconds
        return sum(self.plan.run_seconds) / len(self.plan.run_seconds)

    def _progress(self, waiting: list[tuple[Candidate, int]], executor: Executor) -> Progress:
        rows = self.store.rows()
        candidates = {
            run_id(candidate, seed): candidate
            for candidate in self.candidates
            for seed in range(self.settings.seeds)
        }
        running, speed, left = [], 0.0, sum(self._estimate(c) for c, _ in waiting)
        for job in executor.running():
            part, images_per_second = _part_done(job, len(self.plan.dataset.splits.train))
            running.append((job.run.run_id, part))
            speed += images_per_second
            candidate = candidates[job.run.run_id]
            left += (1 - part) * self._estimate(candidate)
        correction = self.seconds_taken / self.seconds_estimated if self.seconds_taken else 1.0
        choice = choose(rows)
        return Progress(
            done=sum(row["status"] != "failed" for row in rows),
            runs=self.plan.runs,
            running=tuple(running),
            images_per_second=speed,
            seconds_left=correction * left / len(self.plan.devices),
            best=None if choice is None else choice.best,
        )


def _commonest_share(dataset: Dataset) -> float:
    """The share of the commonest class in the validation split."""
    counts = np.bincount(dataset.labels[dataset.splits.val])
    return float(counts.max() / counts.sum())


def _part_done(job: Job, train_images: int) -> tuple[float, float]:
    """(part of its images a run has seen, images per second so far), from its last metrics line."""
    lines = read_metrics(job.folder / METRICS)
    if not lines:
        return 0.0, 0.0
    recipe = job.run.recipe
    images = recipe.train_images or train_images
    total = recipe.epochs * images_per_epoch(images, recipe.batch_size)
    seconds = lines[-1]["seconds"]
    return min(1.0, lines[-1]["images"] / total), lines[-1]["images"] / seconds if seconds else 0.0
