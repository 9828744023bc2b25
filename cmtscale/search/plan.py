"""What a search is going to do, and how long that takes, before it does it."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.solve import Solution
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset
from cmtscale.record.row import Row, horizon_name
from cmtscale.record.scores import current
from cmtscale.search.candidates import Candidate, extreme_networks, paper_solution
from cmtscale.search.executors.base import Executor, Failure, Job, carry_out_all
from cmtscale.search.jobs import TimeSteps
from cmtscale.search.samplers import Asked, generations, most_candidates
from cmtscale.search.settings import Settings
from cmtscale.train.timing import run_seconds

TIMING_SECONDS = 20.0  # networks not timed by then are estimated by their MACs


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search before it starts.

    `asked` is the whole grid with what was trained before; empty where a sampler asks.
    `run_seconds` is the time of one run of each candidate: what a recorded one took, or an estimate
    from training steps timed here and now; `total_seconds` the wall time of what is left to do.
    """

    settings: Settings
    folder: Path
    dataset: Dataset
    devices: tuple[str, ...]
    asked: tuple[Asked, ...]
    run_seconds: tuple[float, ...]
    runs: int
    runs_done: int
    total_seconds: float
    paper: Solution | None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of the grid; none where a sampler asks."""
        return tuple(entry.candidate for entry in self.asked)


def make_plan(
    settings: Settings,
    folder: Path,
    dataset: Dataset,
    rows: Sequence[Row],
    executor: Executor,
    note: Callable[[str], None],
) -> Plan:
    """Candidates, runs, and an estimate of the time from training steps timed by the executor.

    Raises `RequestError` where no candidate of the grid lies on the budget.
    """
    is_grid = settings.sampler == "grid"
    asked = next(generations(settings, lambda: rows, note)) if is_grid else []
    candidates = [entry.candidate for entry in asked]
    if candidates and not any(candidate.on_budget for candidate in candidates):
        raise RequestError(
            f"no candidate reaches the budget of {format_macs(settings.budget_macs)} MACs from "
            f"{settings.base.name}; use another budget (G = 10⁹) or another base"
        )
    ended = ended_rows(settings, rows)
    count = len(candidates) if is_grid else most_candidates(settings, rows)
    runs = count * settings.seeds
    recorded = {row.candidate: row.seconds for row in ended.values()}  # better than an estimate
    untimed = {c.name: c.trained for c in candidates if c.name not in recorded}
    if not is_grid and len(ended) < runs:
        untimed = {network.name: network for network in extreme_networks(settings)}
    if untimed:
        note("planning: training steps are timed")
    seconds_of = recorded | time_runs(untimed, settings, dataset, executor)
    if is_grid:
        seconds = [seconds_of[candidate.name] for candidate in candidates]
        left = sum(
            seconds_of[candidate.name]
            for candidate in candidates
            for seed in range(settings.seeds)
            if run_id(settings, candidate.name, seed) not in ended
        )
    else:
        seconds = [seconds_of[name] for name in untimed]
        left = (runs - len(ended)) * sum(seconds) / max(1, len(seconds))
    return Plan(
        settings=settings,
        folder=folder,
        dataset=dataset,
        devices=executor.devices,
        asked=tuple(asked),
        run_seconds=tuple(seconds),
        runs=runs,
        runs_done=len(ended),
        total_seconds=left / min(len(executor.devices), max(1, runs - len(ended))),
        paper=paper_solution(settings),
    )


def time_runs(
    networks: dict[str, Variant], settings: Settings, dataset: Dataset, executor: Executor
) -> dict[str, float]:
    """Estimated seconds of one run of each network, all slots busy, by the names of the networks.

    Steps are timed at the batch size of the runs. After 20 s no more are begun: networks that have
    no time by then, or that do not fit into memory, are estimated by their MACs. Raises
    `RequestError` if none could be timed.
    """
    if not networks:
        return {}
    recipe = settings.run_recipe
    train_images = settings.horizon[1]
    batch = min(recipe.batch_size, train_images)
    began = time.monotonic()
    timed: dict[str, float] = {}

    def jobs() -> Iterator[Job]:
        for network in networks.values():
            if not timed or time.monotonic() - began < TIMING_SECONDS:
                yield TimeSteps(network=network, recipe=recipe, batch=batch)

    failure = Failure(cause="")
    for job, result in carry_out_all(executor, jobs()):
        assert isinstance(job, TimeSteps)
        if isinstance(result, Failure):
            failure = result
        else:
            timed[job.network.name] = result
    if not timed:
        raise RequestError(
            f"a training step of {batch} images could not be timed ({failure.cause}); "
            f"if memory is short, use a smaller --batch-size"
        )
    macs = {name: cost(network).macs for name, network in networks.items()}
    per_mac = sum(timed.values()) / sum(macs[name] for name in timed)
    return {
        name: run_seconds(
            timed.get(name, per_mac * macs[name]),
            recipe,
            train_images=train_images,
            val_images=len(dataset.splits.val),
        )
        for name in networks
    }


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
