"""The runs that a ladder asks for before the forecast decides, and how runs are named."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from cmtscale.arch.lattice import nearest
from cmtscale.record.row import Row, horizon_name
from cmtscale.record.scores import current
from cmtscale.search.candidates import CENTRE, Candidate
from cmtscale.search.ladder import SEEDS_A_RUNG, seed_of
from cmtscale.search.settings import Settings

CORNERS = ("depth", "width", "resolution")


@dataclass(frozen=True, kw_only=True)
class RungRun:
    """A training of a candidate at a rung (from 0), with its seed."""

    candidate: str
    rung: int
    seed: int


def run_id(settings: Settings, run: RungRun) -> str:
    """`d1.1.4.1-w22-r64-1x6000-s0`: candidate, epochs x training images, seed."""
    return f"{run.candidate}-{horizon_name(settings.horizons[run.rung])}-s{run.seed}"


def anchors(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The corners of the triangle and the mixture nearest to its centre, as far as they are there.

    They train at every rung: at the same points always, so that what the forecast rests on does not
    depend on what looked good early.
    """
    corners = [candidate for candidate in candidates if candidate.role in CORNERS]
    mixed = [c for c in candidates if c.role not in (*CORNERS, "base")]
    centre = nearest(mixed, CENTRE)
    return corners if centre is None else [*corners, centre]


def first_rung(settings: Settings, candidates: Sequence[Candidate]) -> list[RungRun]:
    """Every candidate at the first rung, all with one seed before the next seed."""
    return [
        RungRun(candidate=candidate.name, rung=0, seed=seed_of(0, replicate))
        for replicate, candidate in product(range(settings.seeds), candidates)
    ]


def fixed_runs(settings: Settings, candidates: Sequence[Candidate]) -> list[RungRun]:
    """The first rung, with the anchors' replicates, and the anchors at the later rungs."""
    ladder, steady = settings.ladder, anchors(candidates)
    runs = first_rung(settings, candidates)
    degrees = (settings.seeds - 1) * sum(candidate.role != "base" for candidate in candidates)
    most = (SEEDS_A_RUNG - settings.seeds) * len(steady)
    for extra in range(min(most, max(0, ladder.noise_degrees - degrees))):
        turn, number = divmod(extra, len(steady))
        seed = seed_of(0, settings.seeds + turn)
        runs.append(RungRun(candidate=steady[number].name, rung=0, seed=seed))
    runs += [
        RungRun(candidate=anchor.name, rung=rung, seed=seed_of(rung, 0))
        for rung in range(ladder.rungs - 1, 0, -1)  # the longest first, to end together
        for anchor in steady
    ]
    return runs


def next_seed(runs: Sequence[RungRun], candidate: str, rung: int) -> int:
    """The first seed of a candidate's that none of `runs` has at a rung."""
    taken = [run.seed for run in runs if run.candidate == candidate and run.rung == rung]
    return max(taken, default=seed_of(rung, 0) - 1) + 1


def recorded_runs(settings: Settings, rows: Iterable[Row]) -> list[RungRun]:
    """The runs of rows that are on the ladder."""
    rungs = {horizon: rung for rung, horizon in enumerate(settings.horizons)}
    return [
        RungRun(candidate=row.candidate, rung=rungs[row.horizon], seed=row.seed)
        for row in rows
        if row.horizon in rungs
    ]


def ended_rows(settings: Settings, rows: Iterable[Row]) -> Mapping[str, Row]:
    """By run id, the runs on the ladder that ended and need not be carried out again."""
    rows = list(rows)
    return {
        row.run_id: row
        for horizon in settings.horizons
        for row in current(rows, horizon)
        if row.status != "failed"
    }
