"""A search from request to choice: prepare, open, plan, drive, conclude, each once."""

import multiprocessing
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from cmtscale.arch.errors import RequestError
from cmtscale.record.folder import CHECKPOINT, REQUEST, RUNS, require_free
from cmtscale.record.row import Row
from cmtscale.search.conclude import conclude
from cmtscale.search.deadline import open_deadline
from cmtscale.search.decide import read_decisions
from cmtscale.search.drive import drive
from cmtscale.search.environment import require_unchanged
from cmtscale.search.executors.base import Executor
from cmtscale.search.executors.engine import open_engine
from cmtscale.search.interrupt import lasting_interrupts
from cmtscale.search.open import OpenFolder, inspected, opened
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import Plan, make_plan
from cmtscale.search.prepare import prepare
from cmtscale.search.request import SearchRequest
from cmtscale.search.settings import Settings
from cmtscale.search.sharing import share_devices
from cmtscale.search.timings import read_timings
from cmtscale.search.watch import NullWatcher, Watcher


def search(
    request: SearchRequest,
    *,
    executor: Executor | None = None,
    watcher: Watcher | None = None,
    dry_run: bool = False,
) -> Outcome | None:
    """Search for the CMT to train at a budget; None if `dry_run`, which stops after the plan.

    Runs that the folder already holds are not repeated: the same request, or one that asks for
    more of the same search, goes on where an earlier one stopped. Jobs go to `executor`, by default
    to that of the request's engine; one that is given stays open. Raises a `CmtscaleError` for
    requests, data and folders that cannot be used, before anything is written; after Ctrl-C
    `KeyboardInterrupt`, and after another signal to stop `StoppedError`, once the runs that go on
    have kept their state.
    """
    began = time.monotonic()
    watcher = watcher or NullWatcher()
    with lasting_interrupts() as interrupts, executor_for(request, executor) as executor:
        if request.out is None and request.max_seconds is not None:
            # its twins depend on how fast the machine is: the folder that fixes them cannot
            request = replace(request, out=Path("results") / request.timed_folder_name)
        if request.out is not None and not dry_run:
            require_free(request.out)  # before images are packed
        settings, dataset = prepare(request, executor, watcher.noted)
        folder = request.out or Path("results") / settings.folder_name
        if not request.accept_changes:
            require_unchanged(folder)
        folder_context: AbstractContextManager[OpenFolder]
        if dry_run:
            folder_context = nullcontext(inspected(folder, settings))
        else:
            folder_context = opened(folder, settings, watcher.noted)
        with folder_context as run_folder:
            timings = share_devices(
                run_folder.settings, dataset, read_timings(folder), executor, watcher.noted
            )
            deadline = open_deadline(
                folder,
                run_folder.settings,
                run_folder.table.rows,
                slots=len(executor.devices),
                began=began,
            )
            left: Settings | None = run_folder.settings
            while left is not None:  # again with fewer rungs, where the time has become short
                rows = run_folder.table.rows
                plan = make_plan(
                    left,
                    folder,
                    dataset,
                    rows,
                    read_decisions(folder, left),
                    timings,
                    executor,
                    watcher.noted,
                )
                watcher.planned(plan)
                if dry_run:
                    return None
                _describe(plan, rows, watcher)
                left = drive(
                    plan,
                    run_folder.table,
                    executor,
                    watcher,
                    interrupts,
                    deadline,
                    target_is_asked=(request.target_images or request.target_epochs) is not None,
                )
                timings = read_timings(folder)
            outcome = conclude(plan, run_folder.table.rows, executor, watcher)
            deadline.save(folder)
            return outcome


def executor_for(
    request: SearchRequest, executor: Executor | None
) -> AbstractContextManager[Executor]:
    """The executor that is given, which stays open, or else that of the request's engine.

    How many runs share a device there is undone: an earlier search may have chosen it for itself.
    """
    _require_main_process()
    if executor is not None:
        executor.share(1)
        return nullcontext(executor)
    return open_engine(
        request.engine,
        device=request.device,
        workers=request.workers,
        cache_dir=request.cache_dir,
    )


def _require_main_process() -> None:
    """Raise `RequestError` in a worker: a script without the guard is imported by each of them."""
    imported_by_worker = getattr(sys.modules.get("__mp_main__"), "__name__", "") == "__mp_main__"
    if imported_by_worker or multiprocessing.parent_process() is not None:
        raise RequestError(
            "search was called in a process that another one started; "
            "put it under `if __name__ == '__main__':`"
        )


def _describe(plan: Plan, rows: Sequence[Row], watcher: Watcher) -> None:
    """Write what was asked, and what training takes; say which checkpoints are gone."""
    plan.settings.save(plan.folder / REQUEST)
    plan.timings.save(plan.folder)
    complete = [row.run_id for row in rows if row.status == "complete"]
    lost = [name for name in complete if not (plan.folder / RUNS / name / CHECKPOINT).exists()]
    if lost:
        watcher.noted(
            f"{len(lost)} of {len(complete)} checkpoints are gone from {plan.folder / RUNS}: their "
            f"scores stay, but these networks can no longer be tested, or scored in another way"
        )
