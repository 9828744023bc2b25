"""A check of a search's twins: the same networks at several sizes, trained beside the search.

Each size is a run folder of its own, `twins/<MACs>/` in the search's: a search with other twins
that trains what the check names, and that `search --from` makes a whole search of.
"""

from dataclasses import dataclass
from typing import Protocol

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import RequestError
from cmtscale.data.dataset import Dataset
from cmtscale.record.folder import TWINS
from cmtscale.record.twin_check import TwinCheck, write_twin_check
from cmtscale.search.check_side import (
    CheckRequest,
    as_searched,
    plan_side,
    stored_search,
    train_sides,
)
from cmtscale.search.driver import executor_for
from cmtscale.search.executors.base import Executor
from cmtscale.search.interrupt import lasting_interrupts
from cmtscale.search.open import OpenFolder, inspected
from cmtscale.search.plan import Plan
from cmtscale.search.prepare import prepare
from cmtscale.search.settings import Settings
from cmtscale.search.timings import read_timings
from cmtscale.search.twin_sizes import Size, choose_sizes, networks_to_check
from cmtscale.search.twin_verdict import compare
from cmtscale.search.watch import NullWatcher, Watcher


@dataclass(frozen=True, kw_only=True)
class TwinRequest(CheckRequest):
    """How a search's twins are compared.

    `sizes` are MACs of a twin (none: the search's own and the next two), `threshold` is the τ that
    a size must keep.
    """

    sizes: tuple[int, ...] = ()
    threshold: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise RequestError(
                f"threshold {self.threshold:g} is out of range; use a τ between 0 and 1 such as 0.7"
            )


@dataclass(frozen=True, kw_only=True)
class TwinPlan:
    """A check before it trains: for each size, the smallest first, its twins and its runs.

    `networks` is how many the search has on its budget.
    """

    request: TwinRequest
    settings: Settings
    sizes: tuple[Size, ...]
    plans: tuple[Plan, ...]
    networks: int


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
    stored = stored_search(request)
    if not stored.proxy:
        raise RequestError(
            f"{request.folder} trains the real networks: it has no twins to check; search without "
            f"--no-proxy for some"
        )
    search = as_searched(stored, request)
    with lasting_interrupts() as interrupts, executor_for(search, executor) as executor:
        settings, dataset = prepare(search, executor, watcher.noted)
        searched = inspected(request.folder, settings)
        plan = _plan(request, searched, dataset, executor, watcher)
        watcher.planned_twins(plan)
        if dry_run:
            return None
        rows = train_sides(plan.plans, searched, executor, watcher, interrupts)
    check, lines = compare(
        plan.settings,
        plan.sizes,
        rows,
        rung=request.rung - 1,
        seeds=request.seeds,
        threshold=request.threshold,
    )
    write_twin_check(request.folder, check, lines)
    return check


def _plan(
    request: TwinRequest,
    searched: OpenFolder,
    dataset: Dataset,
    executor: Executor,
    watcher: Watcher,
) -> TwinPlan:
    settings, rows = searched.settings, searched.table.rows
    latencies = read_timings(request.folder).latency_seconds
    networks = networks_to_check(settings, rows, latencies)
    # images are never packed above their own side, so that those serve any network
    largest_px = settings.pack_px if dataset.native_px > settings.pack_px else 10**6
    sizes = choose_sizes(settings, networks, largest_px, request.sizes)
    watcher.noted("planning: training steps are timed")
    plans = []
    for size in sizes:
        folder = request.folder / TWINS / format_macs(size.macs)
        twins = [twin.candidate for twin in size.twins.values()]
        timings = read_timings(folder)
        plans.append(
            plan_side(request, size.settings, folder, twins, searched, dataset, timings, executor)
        )
    return TwinPlan(
        request=request,
        settings=settings,
        sizes=sizes,
        plans=tuple(plans),
        networks=len(networks),
    )
