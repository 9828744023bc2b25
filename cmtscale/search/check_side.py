"""A search beside the one that is checked: the same with one thing changed, of which a check
trains some networks.

Each is a run folder of its own inside the search's, so that `search --from` makes a whole search of
it, and a check goes on where it was stopped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmtscale.arch.errors import RequestError
from cmtscale.data.dataset import Dataset
from cmtscale.record.folder import REQUEST, RUNS, require_free
from cmtscale.record.losses import current_losses, write_image_losses
from cmtscale.record.metrics import export_curves
from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate
from cmtscale.search.curves import FloatArray
from cmtscale.search.decide import Batch
from cmtscale.search.drive import drive_named
from cmtscale.search.environment import copy_environments, require_unchanged
from cmtscale.search.executors.base import Executor
from cmtscale.search.executors.engine import LOCAL, Engine
from cmtscale.search.interrupt import Interrupts
from cmtscale.search.ladder import SEEDS_A_RUNG, seed_of
from cmtscale.search.open import OpenFolder, inspected, opened
from cmtscale.search.plan import Plan, plan_named
from cmtscale.search.request import SearchRequest
from cmtscale.search.runs import RungRun, ended_rows, run_id
from cmtscale.search.samplers import Asked
from cmtscale.search.settings import Settings, required_settings
from cmtscale.search.timings import Timings
from cmtscale.search.watch import Watcher
from cmtscale.train.recipe import require_count


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """What every check that trains is asked: the search's `folder`, and how much to train.

    `seeds` are the runs of each network on each side, of the length of rung `rung` (from 1).
    `device`, `workers`, `engine`, `cache_dir` and `accept_changes` as in a search.
    """

    folder: Path
    seeds: int = 2
    rung: int = 1
    device: str = "auto"
    workers: int | None = None
    engine: Engine = LOCAL
    cache_dir: Path | None = None
    accept_changes: bool = False

    def __post_init__(self) -> None:
        for name in ("seeds", "rung"):
            require_count(name, getattr(self, name))
        if self.seeds > SEEDS_A_RUNG:
            raise RequestError(f"seeds {self.seeds} is out of range; use 1 to {SEEDS_A_RUNG}")


def stored_search(request: CheckRequest) -> Settings:
    """What the search was last asked; raises a `CmtscaleError` where it lacks what is checked.

    Or where other code has trained it, unless the request accepts that.
    """
    folder, rung = request.folder, request.rung
    stored = required_settings(folder)
    if not request.accept_changes:
        require_unchanged(folder)
    if rung > stored.ladder.rungs:
        raise RequestError(
            f"rung {rung} is none of the {stored.ladder.rungs} of {folder}; "
            f"use 1 to {stored.ladder.rungs}"
        )
    return stored


def as_searched(stored: Settings, request: CheckRequest) -> SearchRequest:
    """The search again, in its folder, on the devices of the check and with no clock."""
    return replace(
        stored.as_request(),
        out=request.folder,
        max_seconds=None,
        device=request.device,
        workers=request.workers,
        engine=request.engine,
        cache_dir=request.cache_dir,
    )


def plan_side(
    request: CheckRequest,
    settings: Settings,
    folder: Path,
    networks: Sequence[Candidate],
    searched: OpenFolder,
    dataset: Dataset,
    timings: Timings,
    executor: Executor,
) -> Plan:
    """The runs of `networks` that the check needs: all with one seed before the next seed.

    Raises `ResultsError` where other code has trained what the side's folder has, as above.
    """
    if not request.accept_changes:
        require_unchanged(folder)
    rung = request.rung - 1
    asked = [
        Asked(candidate=network, number=number, after=0, by="check")
        for number, network in enumerate(networks)
    ]
    runs = tuple(
        RungRun(candidate=network.name, rung=rung, seed=seed_of(rung, replicate))
        for replicate in range(request.seeds)
        for network in networks
    )
    own = inspected(folder, settings).table.rows
    rows = [*own, *_borrowed(settings, runs, searched, own)]
    return plan_named(settings, folder, dataset, rows, asked, runs, timings, executor)


def train_sides(
    plans: Sequence[Plan],
    searched: OpenFolder,
    executor: Executor,
    watcher: Watcher,
    interrupts: Interrupts,
) -> list[list[Row]]:
    """Train what each side lacks, in its folder; all rows of each."""
    for plan in plans:
        require_free(plan.folder)
    return [_train(plan, searched, executor, watcher, interrupts) for plan in plans]


def asked_rows(settings: Settings, rows: Sequence[Row], rung: int, seeds: int) -> list[Row]:
    """Of a side's rows those that a check asks for: the first `seeds` at a rung (from 0)."""
    horizon = settings.horizons[rung]
    asked = {seed_of(rung, replicate) for replicate in range(seeds)}
    ended = ended_rows(settings, rows).values()
    return [row for row in ended if row.horizon == horizon and row.seed in asked]


def losses_of(rows: Sequence[Row], networks: Sequence[Candidate]) -> list[FloatArray]:
    """ln losses of the complete runs of each network."""
    losses: dict[str, list[float]] = {}
    for row in rows:
        if row.val_loss:
            losses.setdefault(row.candidate, []).append(math.log(row.val_loss))
    return [np.array(losses.get(network.name, [])) for network in networks]


def _borrowed(
    settings: Settings, runs: Batch, searched: OpenFolder, present: Sequence[Row]
) -> list[Row]:
    """The runs of the search itself that a side needs and lacks; none where it is another one."""
    if settings.identity != searched.settings.identity:
        return []
    ended = ended_rows(settings, searched.table.rows)
    lacking = {run_id(settings, run) for run in runs} - {row.run_id for row in present}
    return [row for name, row in ended.items() if name in lacking]


def _train(
    plan: Plan,
    searched: OpenFolder,
    executor: Executor,
    watcher: Watcher,
    interrupts: Interrupts,
) -> list[Row]:
    with opened(plan.folder, plan.settings, watcher.noted) as side:
        plan.settings.save(plan.folder / REQUEST)
        _take_over(plan, searched, side)
        drive_named(plan, side.table, executor, watcher, interrupts)
        export_curves(plan.folder, side.table.rows)
        return side.table.rows


def _take_over(plan: Plan, searched: OpenFolder, side: OpenFolder) -> None:
    """Record the search's own runs as the check's: their losses, and what trained them."""
    borrowed = _borrowed(plan.settings, plan.batches[0], searched, side.table.rows)
    if borrowed:
        copy_environments(searched.path, side.path)
    losses = current_losses(searched.path, [row.run_id for row in borrowed])
    numbers = {entry.candidate.name: entry.number for entry in plan.asked}
    for row in borrowed:
        if row.run_id in losses:  # first: a row that is there is not taken over again
            write_image_losses(side.path / RUNS / row.run_id, losses[row.run_id].astype(float))
        side.table.add(replace(row, asked=numbers[row.candidate], asked_after=0, asked_by="check"))
