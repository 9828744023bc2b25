"""One search while it trains: what it asks for, its record, its decisions, and its clock."""

import time
from collections.abc import Sequence

import numpy as np

from cmtscale.arch.errors import TrainingError
from cmtscale.record.folder import ENVIRONMENT
from cmtscale.record.losses import Losses, gather_losses
from cmtscale.record.result import RunResult
from cmtscale.record.scores import Score, leader, rankings
from cmtscale.record.table import Table
from cmtscale.search.candidates import Candidate
from cmtscale.search.deadline import Deadline, shortened
from cmtscale.search.decide import Batch, next_batch, write_decisions
from cmtscale.search.environment import save_environment
from cmtscale.search.evidence import bend, gather
from cmtscale.search.executors.base import Executor, Failure, Stopped
from cmtscale.search.failures import Failures
from cmtscale.search.interrupt import Interrupts
from cmtscale.search.jobs import TrainRun
from cmtscale.search.plan import Plan
from cmtscale.search.recording import job_of, make_row
from cmtscale.search.runs import (
    RungRun,
    ended_rows,
    recorded_runs,
    run_id,
)
from cmtscale.search.samplers import Asked
from cmtscale.search.settings import Settings
from cmtscale.search.store import Index
from cmtscale.search.timings import allowance, seconds_of, with_runs, with_steps
from cmtscale.search.under_way import under_way
from cmtscale.search.watch import Progress, Watcher

LOOK_SECONDS = 1.0  # how often the watcher hears of progress
# That running runs get to keep their state in: longer than a Slurm job takes (STOP_SECONDS in
# executors/slurm_group.py) and than the file server, by which the driver hears of it.
STOP_SECONDS = 60.0


class Training:
    """One search while it trains: who is in it, its record, its decisions, and its clock.

    `wanted` are all runs so far, in the order in which they were asked for; `too_late` those of
    them that would not end in the time of the search; `index` is None where only the table is
    kept. A context manager ends what still runs and gathers the runs' losses.
    """

    def __init__(
        self,
        plan: Plan,
        table: Table,
        executor: Executor,
        watcher: Watcher,
        interrupts: Interrupts,
        deadline: Deadline,
        index: Index | None,
    ) -> None:
        self.plan = plan
        self.settings = plan.settings
        self.table = table
        self.index = index
        self.executor = executor
        self.watcher = watcher
        self.interrupts = interrupts
        self.asked: dict[str, Asked] = {}
        self.wanted: list[RungRun] = []
        self.batches: list[Batch] = list(plan.batches)
        self.timings = plan.timings
        self.failures = Failures(table.rows)
        self.seconds_estimated = 0.0  # of the runs that ended here, to correct the estimate
        self.seconds_taken = 0.0
        self.too_late: set[str] = set()
        self.deadline = deadline
        self.bend = ""  # as the watcher heard it
        self.described = False
        self.has_losses_to_gather = True  # of runs that were recorded, here or before

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.cancel()
        self.deadline.save(self.plan.folder)
        if self.has_losses_to_gather:
            self.gather_losses()  # runs/ may go

    @property
    def candidates(self) -> list[Candidate]:
        return [entry.candidate for entry in self.asked.values()]

    @property
    def slowness(self) -> float:
        """How much longer runs have taken here than was estimated."""
        return self.seconds_taken / self.seconds_estimated if self.seconds_taken else 1.0

    def add(self, generation: Sequence[Asked]) -> None:
        """Take in candidates; the times of their training steps are measured where they lack."""
        self.asked |= {entry.candidate.name: entry for entry in generation}
        networks = [entry.candidate.trained for entry in generation]
        self.timings = with_steps(self.timings, networks, self.settings, self.executor)
        self.timings.save(self.plan.folder)

    def train(self, runs: Sequence[RungRun]) -> None:
        """Run what is not recorded yet; what fails is tried again, as `Failures` says.

        At a signal to stop no run starts, and those that go on keep their state. So do they where
        too many fail, and `TrainingError` is raised; what ended until then is recorded.
        """
        self.wanted = list(dict.fromkeys([*self.wanted, *runs]))
        ended = {*ended_rows(self.settings, self.table.rows), *self.failures.for_good}
        waiting = [self.job(run) for run in runs if run_id(self.settings, run) not in ended]
        if waiting and not self.described:
            self.describe()
        with self.interrupts.deferred():
            self._train(waiting)

    def _train(self, waiting: list[TrainRun]) -> None:
        while waiting or self.executor.running():
            while waiting and self.executor.free_slots:
                job = waiting.pop(0)
                if self.slowness * self.job_seconds(job) > self.deadline.seconds_left:
                    self.too_late.add(job.run.run_id)
                else:
                    self.executor.submit(job)
            if self.deadline.is_over:
                self.too_late |= self.wind_down()
            for done, result in self.executor.results(LOOK_SECONDS):
                assert isinstance(done, TrainRun)
                if isinstance(result, Stopped):  # by a signal that this process did not get
                    waiting.insert(0, done)
                    continue
                if isinstance(result, Failure):
                    result = RunResult(status="failed", cause=result.cause)
                self.record(done, result)
                name = done.run.run_id
                if self.failures.is_tried_again(name, result):
                    self.watcher.noted(f"{name} is tried again")
                    waiting.append(done)
            waiting = self.failures.ordered(waiting, len(self.wanted))
            self.watcher.progressed(self.progress(waiting))
            too_many_failed = self.failures.problem(len(self.wanted))
            if self.interrupts.signal_number or too_many_failed:
                self.wind_down()
            self.interrupts.check()
            if too_many_failed:
                raise TrainingError(too_many_failed)

    def wind_down(self) -> set[str]:
        """Let the runs that go on keep their state and stop; the names of those that did.

        Those that end meanwhile are recorded.
        """
        left = {job.run.run_id for job in self.executor.running() if isinstance(job, TrainRun)}
        if left:
            runs = "1 run keeps its" if len(left) == 1 else f"{len(left)} runs keep their"
            self.watcher.noted(f"stopping: {runs} state first; Ctrl-C ends at once")
        self.executor.stop()
        until = time.monotonic() + STOP_SECONDS
        while self.executor.running() and time.monotonic() < until:
            for done, result in self.executor.results(LOOK_SECONDS):
                assert isinstance(done, TrainRun)
                if not isinstance(result, Stopped | Failure):
                    self.record(done, result)
                    left.remove(done.run.run_id)
        self.executor.cancel()
        return left

    def describe(self) -> None:
        """Write what the search is trained on, once something is."""
        self.described = True
        save_environment(
            self.plan.folder / ENVIRONMENT,
            self.plan.dataset,
            source=self.settings.data,
            split_seed=self.settings.split_seed,
            devices=self.plan.devices,
        )

    def job(self, run: RungRun) -> TrainRun:
        candidate = self.asked[run.candidate].candidate
        return job_of(self.settings, self.plan.folder, self.plan.dataset.ref, candidate, run)

    def gather_losses(self) -> dict[str, Losses]:
        """The losses of single images of all runs, which one file keeps from now on."""
        losses = gather_losses(self.plan.folder, [row.run_id for row in self.table.rows])
        self.has_losses_to_gather = False
        return losses

    def decide(self) -> Batch:
        """Decide what comes next, and record it before it starts; nothing where all is done."""
        self.time_runs()
        rows = self.table.rows
        evidence = gather(self.settings, rows, self.gather_losses(), self.timings.latency_seconds)
        if not self.bend:
            self.bend = bend(evidence)
            if self.bend:
                self.watcher.noted(self.bend)
        rungs = range(self.settings.ladder.rungs)
        # An earlier request may have asked for runs that this one did not.
        ended = recorded_runs(self.settings, ended_rows(self.settings, rows).values())
        asked = list(dict.fromkeys([*self.wanted, *ended]))
        spent = sum(self.seconds(r.candidate, r.rung) for r in asked if r.candidate in self.asked)
        seconds = np.array(
            [[self.seconds(arm.name, rung) for rung in rungs] for arm in evidence.arms]
        )
        left = self.deadline.seconds_left
        seconds[seconds > left] = np.inf
        allowed = min(self.allowance() - spent, left * len(self.plan.devices))
        batch = next_batch(self.settings, evidence, asked, seconds, allowed)
        if batch:
            self.batches.append(batch)
            write_decisions(self.plan.folder, self.settings, self.batches)
        return batch

    def shortened(self, target_is_asked: bool) -> Settings:
        """The settings, with fewer rungs where the longest runs no longer fit into the time."""
        self.time_runs()
        ended = ended_rows(self.settings, self.table.rows)
        shorter = shortened(
            self.settings,
            self.candidates,
            ended,
            self.seconds,
            self.deadline,
            target_is_asked=target_is_asked,
        )
        if shorter != self.settings:
            self.watcher.noted(
                f"runs of {self.settings.images_seen[-1]:,} images no longer fit into the time: "
                f"the longest are now of {shorter.images_seen[-1]:,}, and the answer is for a "
                f"training of {shorter.target_images:,}; for longer ones go on with --from "
                f"{self.plan.folder} --max-time … --ladder …"
            )
        return shorter

    def time_runs(self) -> None:
        """Take what runs took for what they will take."""
        self.seconds_estimated = self.seconds_taken = 0.0
        val_images = len(self.plan.dataset.splits.val)
        self.timings = with_runs(self.timings, self.table.rows, self.settings, val_images)
        self.timings.save(self.plan.folder)

    def allowance(self) -> float:
        chosen_from = [c.name for c in self.candidates if c.role != "base"]
        last = [self.seconds(name, -1) for name in chosen_from]
        return allowance(self.settings, last, len(self.plan.devices))

    def seconds(self, candidate: str, rung: int) -> float:
        val_images = len(self.plan.dataset.splits.val)
        return seconds_of(self.settings, self.timings, candidate, rung, val_images)

    def record(self, job: TrainRun, result: RunResult) -> None:
        row = make_row(self.asked[job.candidate], job.run, result)
        self.table.add(row)
        self.has_losses_to_gather = True
        if self.index is not None:
            self.index.add(row)
        if result.status == "complete":
            self.seconds_estimated += self.job_seconds(job)
            self.seconds_taken += result.seconds
        self.deadline.save(self.plan.folder)
        self.watcher.ended(row)

    def job_seconds(self, job: TrainRun) -> float:
        recipe = job.run.recipe
        assert recipe.train_images is not None
        rung = self.settings.horizons.index((recipe.epochs, recipe.train_images))
        return self.seconds(job.candidate, rung)

    def progress(self, waiting: list[TrainRun]) -> Progress:
        running = under_way(self.executor.running(), len(self.plan.dataset.splits.val))
        seconds_running = sum((1 - one.part) * self.job_seconds(job) for job, one in running)
        asked = sum(self.seconds(run.candidate, run.rung) for run in self.wanted)
        whole = max(asked, self.allowance() if self.plan.decides else 0.0)
        left = whole - asked + sum(map(self.job_seconds, waiting)) + seconds_running
        part, seconds_left = 1 - left / whole, self.slowness * left / len(self.plan.devices)
        if seconds_left > self.deadline.seconds_left:  # what would end later is left out
            seconds_left = max(0.0, self.deadline.seconds_left)
            part = 1 - seconds_left / (self.deadline.seconds_taken + seconds_left)
        ended = {*ended_rows(self.settings, self.table.rows), *self.failures.for_good}
        return Progress(
            done=sum(run_id(self.settings, run) in ended for run in self.wanted),
            runs=len(self.wanted),
            part=part,
            running=tuple((one.run_id, one.part) for _, one in running),
            images_per_second=sum(one.images_per_second for _, one in running),
            seconds_left=seconds_left,
            best=self.best(),
        )

    def best(self) -> Score | None:
        """The lowest mean at the last rung that a candidate that may be chosen has a run at."""
        names = {candidate.name for candidate in self.candidates if candidate.may_be_chosen}
        rows = [row for row in self.table.rows if row.candidate in names]
        ranked = rankings(rows, self.settings.horizons)
        return next((best for best in map(leader, reversed(ranked)) if best is not None), None)
