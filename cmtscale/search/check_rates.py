"""A check of a search's learning rate: its anchors at half and twice of it, beside the search.

Each rate is a run folder of its own, `rates/<rate>/` in the search's: the same search with another
recipe, of which the check trains the anchors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from cmtscale.arch.errors import RequestError
from cmtscale.data.dataset import Dataset
from cmtscale.record.folder import RATES
from cmtscale.record.rate_check import RateCheck, write_rate_check
from cmtscale.search.candidates import Candidate
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
from cmtscale.search.rate_verdict import FACTORS, judge
from cmtscale.search.runs import anchors
from cmtscale.search.samplers import known_candidates
from cmtscale.search.settings import Settings
from cmtscale.search.timings import read_timings
from cmtscale.search.watch import NullWatcher, Watcher

LEAST_ANCHORS = 2  # with fewer there is no order


@dataclass(frozen=True, kw_only=True)
class RatePlan:
    """A check before it trains: its anchors, and the runs at each rate, by its factor."""

    request: CheckRequest
    settings: Settings
    anchors: tuple[Candidate, ...]
    plans: Mapping[float, Plan]


class RateWatcher(Watcher, Protocol):
    """Hears how a check goes."""

    def planned_rates(self, plan: RatePlan) -> None:
        """Before anything is trained, in place of `planned`."""
        ...


class NullRateWatcher(NullWatcher):
    """Shows nothing."""

    def planned_rates(self, plan: RatePlan) -> None: ...


def check_rates(
    request: CheckRequest,
    *,
    executor: Executor | None = None,
    watcher: RateWatcher | None = None,
    dry_run: bool = False,
) -> RateCheck | None:
    """Train what is missing, and compare the rates; None if `dry_run`, which stops after the plan.

    Runs that the check's folders or the search hold are not repeated. Raises a `CmtscaleError` for
    requests and folders that cannot be checked, before anything is written.
    """
    watcher = watcher or NullRateWatcher()
    search = as_searched(stored_search(request), request)
    with lasting_interrupts() as interrupts, executor_for(search, executor) as executor:
        settings, dataset = prepare(search, executor, watcher.noted)
        searched = inspected(request.folder, settings)
        plan = _plan(request, searched, dataset, executor)
        watcher.planned_rates(plan)
        if dry_run:
            return None
        rows = train_sides(list(plan.plans.values()), searched, executor, watcher, interrupts)
    check = judge(
        plan.settings,
        plan.anchors,
        {factor: side.settings for factor, side in plan.plans.items()},
        rows,
        rung=request.rung - 1,
        seeds=request.seeds,
    )
    write_rate_check(request.folder, check)
    return check


def _plan(
    request: CheckRequest, searched: OpenFolder, dataset: Dataset, executor: Executor
) -> RatePlan:
    settings, rows = searched.settings, searched.table.rows
    timings = read_timings(request.folder)  # a step takes the same at any rate
    known = known_candidates(settings, rows, timings.latency_seconds)
    steady = anchors([candidate for candidate in known if candidate.may_be_trained])
    if len(steady) < LEAST_ANCHORS:
        raise RequestError(
            f"{request.folder} has {len(steady)} of its corners and centre, and an order takes "
            f"{LEAST_ANCHORS}; search with another budget or base"
        )
    plans = {}
    for factor in FACTORS:
        rate = factor * settings.recipe.lr
        side = replace(settings, recipe=replace(settings.recipe, lr=rate))
        folder = request.folder / RATES / f"{rate:g}"
        plans[factor] = plan_side(
            request, side, folder, steady, searched, dataset, timings, executor
        )
        timings = plans[factor].timings
    return RatePlan(request=request, settings=settings, anchors=tuple(steady), plans=plans)
