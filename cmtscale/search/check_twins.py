"""A check of a search's twins: the same networks at several sizes, trained beside the search.

Each size is a run folder of its own, `twins/<MACs>/` in the search's: a search with other twins
that trains what the check names, and that `search --from` makes a whole search of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import RequestError, ResultsError
from cmtscale.data.dataset import Dataset
from cmtscale.record.folder import REQUEST, RUNS, TWINS, require_free
from cmtscale.record.losses import current_losses, write_image_losses
from cmtscale.record.metrics import export_curves
from cmtscale.record.row import Row
from cmtscale.record.twin_check import TwinCheck, write_twin_check
from cmtscale.search.decide import Batch
from cmtscale.search.drive import drive_named
from cmtscale.search.driver import executor_for
from cmtscale.search.executors.base import Executor
from cmtscale.search.interrupt import lasting_interrupt
from cmtscale.search.ladder import SEEDS_A_RUNG, seed_of
from cmtscale.search.open import OpenFolder, inspected, opened
from cmtscale.search.plan import Plan, plan_named
from cmtscale.search.prepare import prepare
from cmtscale.search.runs import RungRun, ended_rows, run_id
from cmtscale.search.samplers import Asked
from cmtscale.search.settings import Settings, stored_settings
from cmtscale.search.timings import read_timings
from cmtscale.search.twin_sizes import Size, choose_sizes, networks_to_check
from cmtscale.search.twin_verdict import compare
from cmtscale.search.watch import NullWatcher, Watcher
from cmtscale.train.recipe import require_count


@dataclass(frozen=True, kw_only=True)
class TwinRequest:
    """What a check is asked: the search's `folder`, and how its twins are compared.

    `sizes` are MACs of a twin (none: the search's own and the next two), `seeds` the runs of each
    network at each size, of the length of rung `rung` (from 1). `threshold` is the τ that a size
    must keep. `device`, `workers` and `cache_dir` as in a search.
    """

    folder: Path
    sizes: tuple[int, ...] = ()
    seeds: int = 2
    rung: int = 1
    threshold: float = 0.7
    device: str = "auto"
    workers: int | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "rung"):
            require_count(name, getattr(self, name))
        if self.seeds > SEEDS_A_RUNG:
            raise RequestError(f"seeds {self.seeds} is out of range; use 1 to {SEEDS_A_RUNG}")
        if not 0 < self.threshold < 1:
            raise RequestError(
                f"threshold {self.threshold:g} is out of range; use a τ between 0 and 1 such as 0.7"
            )


@dataclass(frozen=True, kw_only=True)
class TwinPlan:
    """A check before it trains: for each size, the smallest first, its twins and its runs.

    `networks` is how many the search has on its budget; `reused` are runs of the search itself.
    """

    request: TwinRequest
    settings: Settings
    sizes: tuple[Size, ...]
    plans: tuple[Plan, ...]
    networks: int
    reused: int

    @property
    def total_seconds(self) -> float:
        """Wall time of what is left to train."""
        return sum(plan.total_seconds for plan in self.plans)


class TwinWatcher(Watcher, Protocol):
    """Hears how a check goes."""

    def planned_twins(self, plan: TwinPlan) -> None:
        """Before anything is trained, in place of `planned`."""
        ...


class NullTwinWatcher(NullWatcher):
    """Shows nothing."""

    def planned_twins(self, plan: TwinPlan) -> None: ...


def check_twins(
    request: TwinRequest,
    *,
    executor: Executor | None = None,
    watcher: TwinWatcher | None = None,
    dry_run: bool = False,
) -> TwinCheck | None:
    """Train what is missing, and compare the sizes; None if `dry_run`, which stops after the plan.

    Runs that the check's folders or the search hold are not repeated. Raises a `CmtscaleError` for
    requests and folders that cannot be checked, before anything is written.
    """
    watcher = watcher or NullTwinWatcher()
    folder = request.folder
    stored = stored_settings(folder)
    if stored is None:
        raise ResultsError(f"{folder} holds no search; name a folder with a request.toml")
    if not stored.proxy:
        raise RequestError(
            f"{folder} trains the real networks: it has no twins to check; search without "
            f"--no-proxy for some"
        )
    if request.rung > stored.ladder.rungs:
        raise RequestError(
            f"rung {request.rung} is none of the {stored.ladder.rungs} of {folder}; "
            f"use 1 to {stored.ladder.rungs}"
        )
    search = replace(
        stored.as_request(),
        out=folder,
        max_seconds=None,
        device=request.device,
        workers=request.workers,
        cache_dir=request.cache_dir,
    )
    with executor_for(search, executor) as executor:
        settings, dataset = prepare(search, executor, watcher.noted)
        searched = inspected(folder, settings)
        plan = _plan(request, searched, dataset, executor, watcher)
        watcher.planned_twins(plan)
        if dry_run:
            return None
        for side in plan.plans:
            require_free(side.folder)
        rows = [
            _train(size, side, searched, executor, watcher)
            for size, side in zip(plan.sizes, plan.plans, strict=True)
        ]
    check, lines = compare(
        plan.settings,
        plan.sizes,
        rows,
        rung=request.rung - 1,
        seeds=request.seeds,
        threshold=request.threshold,
    )
    write_twin_check(folder, check, lines)
    return check


def _plan(
    request: TwinRequest,
    searched: OpenFolder,
    dataset: Dataset,
    executor: Executor,
    watcher: Watcher,
) -> TwinPlan:
    settings, rows = searched.settings, searched.table.rows
    networks = networks_to_check(settings, rows)
    # images are never packed above their own side, so that those serve any network
    largest_px = settings.pack_px if dataset.native_px > settings.pack_px else 10**6
    sizes = choose_sizes(settings, networks, largest_px, request.sizes)
    watcher.noted("planning: training steps are timed")
    plans = []
    reused = 0
    for size in sizes:
        folder = request.folder / TWINS / format_macs(size.macs)
        own = inspected(folder, size.settings).table.rows
        asked, runs = _runs(request, size)
        borrowed = _borrowed(size, runs, searched, own)
        reused += len(borrowed)
        timings = read_timings(folder)
        plans.append(
            plan_named(
                size.settings, folder, dataset, [*own, *borrowed], asked, runs, timings, executor
            )
        )
    return TwinPlan(
        request=request,
        settings=settings,
        sizes=sizes,
        plans=tuple(plans),
        networks=len(networks),
        reused=reused,
    )


def _runs(request: TwinRequest, size: Size) -> tuple[list[Asked], Batch]:
    """The networks of a size, and their runs: all with one seed before the next seed."""
    rung = request.rung - 1
    asked = [
        Asked(candidate=twin.candidate, number=number, after=0, by="check")
        for number, twin in enumerate(size.twins.values())
    ]
    runs = tuple(
        RungRun(candidate=entry.candidate.name, rung=rung, seed=seed_of(rung, replicate))
        for replicate in range(request.seeds)
        for entry in asked
    )
    return asked, runs


def _borrowed(size: Size, runs: Batch, searched: OpenFolder, present: Sequence[Row]) -> list[Row]:
    """The runs of the search itself that a check needs and lacks; none at other sizes."""
    if size.settings is not searched.settings:
        return []
    ended = ended_rows(size.settings, searched.table.rows)
    lacking = {run_id(size.settings, run) for run in runs} - {row.run_id for row in present}
    return [row for name, row in ended.items() if name in lacking]


def _train(
    size: Size, plan: Plan, searched: OpenFolder, executor: Executor, watcher: Watcher
) -> list[Row]:
    """Train what a size lacks, in its folder; all rows there."""
    with (
        opened(plan.folder, plan.settings, watcher.noted) as side,
        lasting_interrupt() as check_interrupt,
    ):
        plan.settings.save(plan.folder / REQUEST)
        _take_over(size, plan, searched, side)
        drive_named(plan, side.table, executor, watcher, check_interrupt)
        export_curves(plan.folder, side.table.rows)
        return side.table.rows


def _take_over(size: Size, plan: Plan, searched: OpenFolder, side: OpenFolder) -> None:
    """Record the search's own runs of its size as the check's, with the losses of their images."""
    borrowed = _borrowed(size, plan.batches[0], searched, side.table.rows)
    losses = current_losses(searched.path, [row.run_id for row in borrowed])
    numbers = {entry.candidate.name: entry.number for entry in plan.asked}
    for row in borrowed:
        side.table.add(replace(row, asked=numbers[row.candidate], asked_after=0, asked_by="check"))
        if row.run_id in losses:
            write_image_losses(side.path / RUNS / row.run_id, losses[row.run_id].astype(float))
