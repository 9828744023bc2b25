"""Training what a search asks for, and recording how each run ended."""

from collections.abc import Callable
from pathlib import Path

from cmtscale.arch.cost import cost
from cmtscale.data.dataset import DataRef
from cmtscale.record.folder import RUNS
from cmtscale.record.losses import gather_losses
from cmtscale.record.metrics import read_metrics
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row
from cmtscale.record.scores import current
from cmtscale.record.table import Table
from cmtscale.search.choose import leader, rank
from cmtscale.search.executors.base import Executor, Failure
from cmtscale.search.jobs import TrainRun
from cmtscale.search.plan import Plan, ended_rows, run_id
from cmtscale.search.samplers import Asked, generations
from cmtscale.search.settings import Settings
from cmtscale.search.store import open_index
from cmtscale.search.watch import Progress, Watcher
from cmtscale.train.recipe import Run
from cmtscale.train.timing import part_done

LOOK_SECONDS = 1.0  # how often the watcher hears of progress
TRIES = 2  # of a run that fails, before the choice


def drive(
    plan: Plan,
    table: Table,
    executor: Executor,
    watcher: Watcher,
    check_interrupt: Callable[[], None],
) -> list[Asked]:
    """Train all that the settings ask for and the table lacks; returns the candidates.

    One generation after another; of each, all candidates with one seed before the next seed.
    """
    training = _Training(plan, table, executor, watcher, check_interrupt)
    grid = [list(plan.asked)] if plan.asked else None
    asked: list[Asked] = []
    try:
        for generation in grid or generations(plan.settings, lambda: table.rows, watcher.noted):
            training.train(generation)
            asked += generation
    finally:
        executor.cancel()
        gather_losses(plan.folder, [row.run_id for row in table.rows])  # runs/ may be removed
    training.index.update(table.rows)  # of a run that was repeated only the last trial stays
    return asked


def job_of(settings: Settings, folder: Path, data: DataRef, asked: Asked, seed: int) -> TrainRun:
    """The run of a candidate with a seed, as it is trained and identified."""
    name = run_id(settings, asked.candidate.name, seed)
    run = Run(
        run_id=name,
        variant=asked.candidate.trained,
        recipe=settings.run_recipe,
        seed=seed,
        data=data,
    )
    return TrainRun(run=run, folder=folder / RUNS / name, candidate=asked.candidate.name)


def make_row(asked: Asked, run: Run, result: RunResult) -> Row:
    """The row of `trials.csv` of one run."""
    candidate = asked.candidate
    real, trained = cost(candidate.real), cost(candidate.trained)
    assert run.recipe.train_images is not None
    return Row(
        run_id=run.run_id,
        candidate=candidate.name,
        alpha=candidate.shares.alpha,
        beta=candidate.shares.beta,
        gamma=candidate.shares.gamma,
        phi=candidate.phi,
        macs=real.macs,
        params=real.params,
        proxy_macs=trained.macs,
        resolution_px=candidate.real.resolution_px,
        dims=candidate.real.dims,
        depths=candidate.real.depths,
        seed=run.seed,
        epochs=run.recipe.epochs,
        train_images=run.recipe.train_images,
        val_loss=result.val_loss,
        val_loss_raw=result.val_loss_raw,
        val_accuracy=result.val_accuracy,
        train_loss=result.train_loss,
        images_per_second=result.images_per_second,
        seconds=round(result.seconds, 3),
        status=result.status,
        cause=result.cause,
        role=candidate.role,
        on_budget=candidate.on_budget,
        stray=candidate.stray,
        activations=real.activations,
        proxy_params=trained.params,
        proxy_resolution_px=candidate.trained.resolution_px,
        proxy_dims=candidate.trained.dims,
        proxy_depths=candidate.trained.depths,
        temperature=result.temperature,
        asked=asked.number,
        asked_after=asked.after,
        asked_by=asked.by,
        scoring=result.scoring,
        identity=run.identity,
    )


class _Training:
    """One search while it trains: its record, and its clock."""

    def __init__(
        self,
        plan: Plan,
        table: Table,
        executor: Executor,
        watcher: Watcher,
        check_interrupt: Callable[[], None],
    ) -> None:
        self.plan = plan
        self.settings = plan.settings
        self.table = table
        self.index = open_index(plan.folder, table.rows, watcher.noted)
        self.executor = executor
        self.watcher = watcher
        self.check_interrupt = check_interrupt
        names = [candidate.name for candidate in plan.candidates]
        # The plan of a sampler names no candidates: the mean of its times stands for all.
        self.estimates = dict(zip(names, plan.run_seconds, strict=False))
        self.mean_estimate = sum(plan.run_seconds) / max(1, len(plan.run_seconds))
        self.failed_for_good = 0
        self.seconds_estimated = 0.0  # of the runs that ended here, to correct the estimate
        self.seconds_taken = 0.0

    def train(self, generation: list[Asked]) -> None:
        """Run what is not recorded yet. A run that fails is tried once more, after the others."""
        asked_of = {asked.candidate.name: asked for asked in generation}
        ended = ended_rows(self.settings, self.table.rows)
        jobs = [
            job_of(self.settings, self.plan.folder, self.plan.dataset.ref, asked, seed)
            for seed in range(self.settings.seeds)
            for asked in generation
        ]
        waiting = [job for job in jobs if job.run.run_id not in ended]
        tries: dict[str, int] = {}
        while waiting or self.executor.running():
            while waiting and self.executor.free_slots:
                self.executor.submit(waiting.pop(0))
            for job, result in self.executor.results(LOOK_SECONDS):
                assert isinstance(job, TrainRun)
                if isinstance(result, Failure):
                    result = RunResult(status="failed", cause=result.cause)
                self.record(asked_of[job.candidate], job, result)
                name = job.run.run_id
                tries[name] = tries.get(name, 0) + 1
                if result.status == "failed" and tries[name] < TRIES:
                    self.watcher.noted(f"{name} is tried once more at the end")
                    waiting.append(job)
                elif result.status == "failed":
                    self.failed_for_good += 1
            self.watcher.progressed(self.progress(waiting))
            self.check_interrupt()

    def record(self, asked: Asked, job: TrainRun, result: RunResult) -> None:
        row = make_row(asked, job.run, result)
        self.table.add(row)
        self.index.add(row)
        if result.status == "complete":
            self.seconds_estimated += self.estimate(job.candidate)
            self.seconds_taken += result.seconds
        self.watcher.ended(row)

    def estimate(self, candidate: str) -> float:
        return self.estimates.get(candidate, self.mean_estimate)

    def progress(self, waiting: list[TrainRun]) -> Progress:
        rows = current(self.table.rows, self.settings.horizon)
        running, speed = [], 0.0
        seconds_left = sum(self.estimate(job.candidate) for job in waiting)
        for job in self.executor.running():
            assert isinstance(job, TrainRun)
            part, images_per_second = _part_done(job, len(self.plan.dataset.splits.val))
            running.append((job.run.run_id, part))
            speed += images_per_second
            seconds_left += (1 - part) * self.estimate(job.candidate)
        correction = self.seconds_taken / self.seconds_estimated if self.seconds_taken else 1.0
        return Progress(
            done=len(ended_rows(self.settings, rows)) + self.failed_for_good,
            runs=self.plan.runs,
            running=tuple(running),
            images_per_second=speed,
            seconds_left=correction * seconds_left / len(self.plan.devices),
            best=leader(rank(rows)),
        )


def _part_done(job: TrainRun, val_images: int) -> tuple[float, float]:
    """(part of a run's work that is done, images per second so far), from its log."""
    lines = read_metrics(job.folder)
    if not lines:
        return 0.0, 0.0
    recipe = job.run.recipe
    assert recipe.train_images is not None
    images, seconds = lines[-1]["images"], lines[-1]["seconds"]
    ended_epochs = sum("val_accuracy" in line for line in lines)
    sizes = {"train_images": recipe.train_images, "val_images": val_images}
    part = part_done(images, ended_epochs, recipe, **sizes)
    return part, images / seconds if seconds else 0.0
