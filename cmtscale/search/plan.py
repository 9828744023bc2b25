"""What a search is going to do, and how long that takes, before it does it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import RequestError
from cmtscale.arch.solve import Solution
from cmtscale.data.pack import Dataset
from cmtscale.record.row import Row, horizon_name
from cmtscale.record.scores import current
from cmtscale.search.candidates import Candidate, extreme_networks, paper_solution
from cmtscale.search.request import Settings
from cmtscale.search.samplers import generations, most_candidates
from cmtscale.search.timing import time_runs
from cmtscale.train.devices import available_cores

START_SECONDS = 6.0  # a worker's imports, once per worker


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search before it starts; `candidates` are the first ones where a sampler is to find more.

    `run_seconds` is the time of one run of each candidate: what a recorded one took, or an estimate
    from training steps timed here and now;
    `total_seconds` the wall time of what is left to do.
    """

    settings: Settings
    folder: Path
    dataset: Dataset
    devices: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    run_seconds: tuple[float, ...]
    runs: int
    runs_done: int
    total_seconds: float
    paper: Solution | None


def make_plan(
    settings: Settings,
    folder: Path,
    dataset: Dataset,
    devices: tuple[str, ...],
    rows: Sequence[Row],
    note: Callable[[str], None],
) -> Plan:
    """Candidates, runs, and an estimate of the time from training steps timed here.

    Raises `RequestError` where no candidate of the grid lies on the budget.
    """
    is_grid = settings.sampler == "grid"
    asked = next(generations(settings, lambda: rows, note)) if is_grid else []
    candidates = tuple(entry.candidate for entry in asked)
    if candidates and not any(candidate.on_budget for candidate in candidates):
        raise RequestError(
            f"no candidate reaches the budget of {format_macs(settings.budget_macs)} MACs from "
            f"{settings.base.name}; use another budget (G = 10⁹) or another base"
        )
    ended = ended_rows(settings, rows)
    runs = most_candidates(settings, rows) * settings.seeds
    recorded = {row.candidate: row.seconds for row in ended.values()}  # better than an estimate
    new = [candidate for candidate in candidates if candidate.name not in recorded]
    networks = [candidate.trained for candidate in new]
    if not is_grid and len(ended) < runs:
        networks = list(extreme_networks(settings))
    timed: tuple[float, ...] = ()
    if networks:
        note("planning: training steps are timed")
        timed = time_runs(networks, settings.run_recipe, dataset, devices[0])
    if is_grid:
        names = [candidate.name for candidate in new]
        seconds_of = recorded | dict(zip(names, timed, strict=True))
        run_seconds = tuple(seconds_of[candidate.name] for candidate in candidates)
        left = sum(
            seconds_of[candidate.name]
            for candidate in candidates
            for seed in range(settings.seeds)
            if run_id(settings, candidate.name, seed) not in ended
        )
    else:
        run_seconds = timed
        left = (runs - len(ended)) * sum(timed) / max(1, len(timed))
    slots = min(len(devices), max(1, runs - len(ended)))
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
        runs_done=len(ended),
        total_seconds=left / slots + (START_SECONDS if left else 0.0),
        paper=paper_solution(settings),
    )


def run_id(settings: Settings, candidate: str, seed: int) -> str:
    """`d1.1.4.1-w22-r64-2x12800-s0`: candidate, epochs x training images, seed."""
    return f"{candidate}-{horizon_name(settings.horizon)}-s{seed}"


def ended_rows(settings: Settings, rows: Sequence[Row]) -> dict[str, Row]:
    """By run id, the asked runs that ended and need not be carried out again."""
    return {
        row.run_id: row
        for row in current(rows, settings.horizon)
        if row.status != "failed" and row.seed < settings.seeds
    }
