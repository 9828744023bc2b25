"""What a search is going to do, and how long that takes, before it does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import RequestError
from cmtscale.arch.solve import Solution
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset
from cmtscale.record.row import Row
from cmtscale.search.candidates import (
    Candidate,
    extreme_networks,
    largest_resolution,
    paper_solution,
)
from cmtscale.search.decide import Batch
from cmtscale.search.executors.base import Executor
from cmtscale.search.runs import RungRun, ended_rows, fixed_runs, run_id
from cmtscale.search.samplers import Asked, asked_before, generations, most_candidates, to_train
from cmtscale.search.screen import Screened, screen
from cmtscale.search.settings import Settings
from cmtscale.search.space import checkpoint_bytes, run_bytes, search_bytes
from cmtscale.search.timings import Timings, allowance, of_slots, seconds_of, with_runs, with_steps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search before it starts.

    `asked` is the whole grid with what was trained before; empty where a sampler asks. `timings`
    have a training step of each candidate, or of the fastest and slowest network where a sampler
    asks; `screened` says what the limits leave (None: there are none). `batches` are what was
    decided before. `runs` counts what is certain to be trained and `runs_done` what of it ended;
    `total_seconds` is the wall time of what is left, with the most that decisions may spend, and no
    less than the longest run; `decides` says whether the ladder leaves decisions anything to spend.
    `disk_bytes` is what is left to train needs of the disk (0: nothing is, or nobody has asked).
    """

    settings: Settings
    folder: Path
    dataset: Dataset
    devices: tuple[str, ...]
    asked: tuple[Asked, ...]
    batches: tuple[Batch, ...]
    timings: Timings
    runs: int
    runs_done: int
    total_seconds: float
    decides: bool
    paper: Solution | None
    screened: Screened | None = None
    disk_bytes: int = 0

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates of the grid; none where a sampler asks."""
        return tuple(entry.candidate for entry in self.asked)

    def seconds(self, network: str, rung: int) -> float:
        """Estimated seconds of one run of a trained network; of the mean one if it has no time."""
        return seconds_of(self.settings, self.timings, network, rung, len(self.dataset.splits.val))


def make_plan(
    settings: Settings,
    folder: Path,
    dataset: Dataset,
    rows: Sequence[Row],
    batches: Sequence[Batch],
    timings: Timings,
    executor: Executor,
    note: Callable[[str], None],
) -> Plan:
    """Candidates, runs, and an estimate of the time from training steps timed by the executor.

    Raises `RequestError` where no candidate of the grid lies on the budget, the limits leave none,
    or the images are packed for smaller networks.
    """
    _require_pixels(settings, folder, dataset)
    is_grid = settings.sampler == "grid"
    timings = of_slots(timings, executor.devices)
    timings, screened = screen(settings, timings, executor, note)
    latencies = timings.latency_seconds
    asked = next(generations(settings, lambda: rows, note, latencies)) if is_grid else []
    candidates = [entry.candidate for entry in asked]
    if candidates and not any(candidate.on_budget for candidate in candidates):
        raise RequestError(
            f"no candidate reaches the budget of {format_macs(settings.budget_macs)} MACs from "
            f"{settings.base.name}; use another budget (G = 10⁹) or another base"
        )
    val_images = len(dataset.splits.val)
    timings = with_runs(timings, rows, settings, val_images)
    networks = [c.trained for c in candidates] if is_grid else extreme_networks(settings)
    if any(network.name not in timings.seconds_per_image for network in networks):
        note("planning: training steps are timed")
    timings = with_steps(timings, networks, settings, executor)
    if not is_grid:
        before = to_train(asked_before(settings, rows, latencies))
        candidates = [entry.candidate for entry in before]
    certain = fixed_runs(settings, candidates)
    names = [candidate.name for candidate in candidates if candidate.role != "base"]
    if not is_grid:  # what will be asked for has no name yet
        nameless = most_candidates(settings, rows, latencies) - len(candidates)
        names += [f"candidate {number}" for number in range(nameless)]
        certain += [
            RungRun(candidate=name, rung=0, seed=seed)
            for name in names[len(names) - nameless :]
            for seed in range(settings.seeds)
        ]
    candidate_names = {candidate.name for candidate in candidates}
    certain += [run for batch in batches for run in batch if run.candidate in candidate_names]
    ended = ended_rows(settings, rows)
    is_done = [run_id(settings, run) in ended for run in certain]
    seconds = [seconds_of(settings, timings, r.candidate, r.rung, val_images) for r in certain]
    last = [seconds_of(settings, timings, name, -1, val_images) for name in names]
    allowed = allowance(settings, last, len(executor.devices)) if _measures_noise(certain) else 0.0
    disk_bytes = _disk_bytes(
        settings,
        certain,
        is_done,
        {candidate.name: candidate.trained for candidate in candidates},
        networks,
        val_images,
        slots=len(executor.devices),
        further=max(0.0, allowed / sum(seconds) - 1) if seconds else 0.0,
    )
    return Plan(
        settings=settings,
        folder=folder,
        dataset=dataset,
        devices=executor.devices,
        asked=tuple(asked),
        batches=tuple(batches),
        timings=timings,
        runs=len(certain),
        runs_done=sum(is_done),
        total_seconds=_wall_seconds(seconds, is_done, len(executor.devices), at_least=allowed),
        decides=allowed > sum(seconds),
        paper=paper_solution(settings),
        screened=screened,
        disk_bytes=disk_bytes,
    )


def _disk_bytes(
    settings: Settings,
    certain: Sequence[RungRun],
    is_done: Sequence[bool],
    named: Mapping[str, Variant],
    networks: Sequence[Variant],
    val_images: int,
    *,
    slots: int,
    further: float,
) -> int:
    """What is left of the runs needs of the disk.

    A run whose network has no name yet is taken for the largest of `networks`. What is decided
    takes `further` times what the certain runs do, of the disk as of the time.
    """
    largest = max(networks, key=checkpoint_bytes)
    kinds = {  # of thousands of runs a few are different
        (name, rung): run_bytes(named.get(name, largest), settings.run_recipe(rung), val_images)
        for name, rung in {(run.candidate, run.rung) for run in certain}
    }
    sizes = [kinds[run.candidate, run.rung] for run in certain]
    left = [size for size, is_over in zip(sizes, is_done, strict=True) if not is_over]
    return search_bytes(left, networks, slots=slots, further=further * sum(sizes))


def _measures_noise(runs: Sequence[RungRun]) -> bool:
    """Whether some network has two seeds at a rung, without which nothing can be forecast."""
    return len({(run.candidate, run.rung) for run in runs}) < len(set(runs))


def _require_pixels(settings: Settings, folder: Path, dataset: Dataset) -> None:
    """Raise `RequestError` where networks would train on enlarged images that have more pixels.

    The folders of a check of twins have the images as the search packed them, for its own twins:
    the check trains none that need more, but a whole search of larger twins would.
    """
    packed_px, largest_px = dataset.images.shape[1], largest_resolution(settings)
    if packed_px < min(dataset.native_px, largest_px):
        budget, trained = map(format_macs, (settings.budget_macs, settings.trained_macs))
        raise RequestError(
            f"{folder} has images packed at {packed_px} px, for a search of smaller twins, and "
            f"these reach {largest_px} px; search anew, in another folder: --budget {budget} "
            f"--proxy-macs {trained} --data {settings.data} --out FOLDER"
        )


def plan_named(
    settings: Settings,
    folder: Path,
    dataset: Dataset,
    rows: Sequence[Row],
    asked: Sequence[Asked],
    runs: Batch,
    timings: Timings,
    executor: Executor,
) -> Plan:
    """The plan of `runs` of the candidates `asked`, and of nothing else."""
    val_images = len(dataset.splits.val)
    timings = of_slots(timings, executor.devices)
    timings = with_runs(timings, rows, settings, val_images)
    networks = [entry.candidate.trained for entry in asked]
    timings = with_steps(timings, networks, settings, executor)
    ended = ended_rows(settings, rows)
    is_done = [run_id(settings, run) in ended for run in runs]
    seconds = [seconds_of(settings, timings, r.candidate, r.rung, val_images) for r in runs]
    return Plan(
        settings=settings,
        folder=folder,
        dataset=dataset,
        devices=executor.devices,
        asked=tuple(asked),
        batches=(runs,),
        timings=timings,
        runs=len(runs),
        runs_done=sum(is_done),
        total_seconds=_wall_seconds(seconds, is_done, len(executor.devices)),
        decides=False,
        paper=None,
    )


def _wall_seconds(
    seconds: Sequence[float], is_done: Sequence[bool], workers: int, *, at_least: float = 0.0
) -> float:
    """What is left of runs that take `seconds`, or `at_least` so long together, and no run less."""
    done = sum(taken for taken, is_over in zip(seconds, is_done, strict=True) if is_over)
    left = [taken for taken, is_over in zip(seconds, is_done, strict=True) if not is_over]
    whole = max(sum(seconds), at_least)
    return max((whole - done) / workers, max(left, default=0.0))
