"""Training what a search asks for, in its order."""

import time
from contextlib import closing

from cmtscale.record.table import Table
from cmtscale.search.deadline import Deadline
from cmtscale.search.executors.base import Executor
from cmtscale.search.interrupt import Interrupts
from cmtscale.search.plan import Plan
from cmtscale.search.runs import (
    first_rung,
    fixed_runs,
)
from cmtscale.search.samplers import generations
from cmtscale.search.settings import Settings
from cmtscale.search.store import open_index
from cmtscale.search.training import Training
from cmtscale.search.watch import Watcher


def drive(
    plan: Plan,
    table: Table,
    executor: Executor,
    watcher: Watcher,
    interrupts: Interrupts,
    deadline: Deadline,
    *,
    target_is_asked: bool = False,
) -> Settings | None:
    """Train all that the settings ask for and the table lacks.

    First what is certain: every candidate at the first rung, a generation at a time where a sampler
    asks, and the anchors at all rungs. Then what was decided before, and what is decided now.
    Where the search has only so much time, and the longest runs no longer fit into it once the
    first rung has shown what runs take, it stops there and returns settings with fewer rungs.
    """
    with closing(open_index(plan.folder, table.rows, watcher.noted)) as index:
        training = Training(plan, table, executor, watcher, interrupts, deadline, index)
        with training:
            if plan.asked:
                training.add(plan.asked)
            else:
                for generation in generations(
                    plan.settings, lambda: table.rows, watcher.noted, plan.timings.latency_seconds
                ):
                    training.add(generation)
                    training.train(first_rung(plan.settings, [one.candidate for one in generation]))
                    if training.too_late:
                        break
            if plan.settings.max_seconds is not None:
                training.train(first_rung(plan.settings, training.candidates))
                shorter = training.shortened(target_is_asked)
                if shorter != plan.settings:
                    return shorter
            training.train(fixed_runs(plan.settings, training.candidates))
            decided = [run for batch in plan.batches for run in batch]
            training.train([run for run in decided if run.candidate in training.asked])
            while batch := training.decide():
                training.train(batch)
            if training.too_late:
                watcher.noted(
                    f"the time is over, and {len(training.too_late)} runs that would not end in it "
                    f"are left out; go on with them: --from {plan.folder} --max-time …"
                )
        index.update(table.rows)  # no trial stays that no row stands behind
    return None


def drive_named(
    plan: Plan,
    table: Table,
    executor: Executor,
    watcher: Watcher,
    interrupts: Interrupts,
) -> None:
    """Train what the plan's batches name and the table lacks, and nothing else."""
    forever = Deadline(
        max_seconds=None, slots=len(plan.devices), seconds_before=0.0, began=time.monotonic()
    )
    with Training(plan, table, executor, watcher, interrupts, forever, None) as training:
        training.add(plan.asked)
        for batch in plan.batches:
            training.train(batch)
