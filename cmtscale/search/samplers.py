"""Who is trained, in which order: the grid at once, or a generation of networks at a time.

Samplers propose points, the lattice of networks decides: each proposal is the nearest network that
was not asked for yet, until there is none left.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import create_trial

from cmtscale.arch.lattice import nearest
from cmtscale.record.result import UNSOUND
from cmtscale.record.row import Row
from cmtscale.record.scores import current
from cmtscale.search.candidates import Candidate, grid, lattice_candidates, recorded_candidate
from cmtscale.search.points import point_of, shares_of
from cmtscale.search.settings import Settings

SPACE: dict[str, BaseDistribution] = {
    "u": FloatDistribution(0.0, 1.0),
    "v": FloatDistribution(0.0, 1.0),
}
GENERATION = 8  # fixed, so that a search does not depend on the number of workers


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A candidate and how it came into the search.

    `number` counts the candidates in the order in which they were asked for, `after` is the first
    number of its generation, `by` the sampler, or `grid`.
    """

    candidate: Candidate
    number: int
    after: int
    by: str


def asked_before(
    settings: Settings, rows: Sequence[Row], latencies: Mapping[str, float]
) -> list[Asked]:
    """The candidates that the record has a run of, in the order in which they were asked for."""
    first_rows: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.sort_key):
        first_rows.setdefault(row.candidate, row)
    return [
        Asked(
            candidate=recorded_candidate(settings, row, latencies),
            number=row.asked,
            after=row.asked_after,
            by=row.asked_by,
        )
        for row in first_rows.values()
    ]


def known_candidates(
    settings: Settings, rows: Sequence[Row], latencies: Mapping[str, float]
) -> list[Candidate]:
    """The grid, if that is the search's, and what else the record has a run of."""
    recorded = [entry.candidate for entry in asked_before(settings, rows, latencies)]
    planned = grid(settings, latencies) if settings.sampler == "grid" else []
    return list({candidate.name: candidate for candidate in [*planned, *recorded]}.values())


def to_train(asked: Iterable[Asked]) -> list[Asked]:
    """Without what exceeds a limit, though it was asked for before there was one."""
    return [entry for entry in asked if entry.candidate.may_be_trained]


def generations(
    settings: Settings,
    rows: Callable[[], Sequence[Row]],
    note: Callable[[str], None],
    latencies: Mapping[str, float],
) -> Iterator[list[Asked]]:
    """What to train, a generation at a time; the next one is asked when the caller comes back.

    First comes all that `rows` holds already, for what of it may be missing. The grid is one
    generation. A sampler goes on until there are `settings.trials` candidates or no network is
    left; where latencies are limited, `latencies` are seconds of an image by real network. A
    generation depends on the results of earlier ones alone, and the last one is filled up first, so
    that one that was interrupted is asked again as it was.
    """
    asked = asked_before(settings, rows(), latencies)
    last = _last_generation(asked, settings.sampler)
    asked = [entry for entry in asked if entry not in last]
    if settings.sampler == "grid":
        yield to_train([*asked, *_filled(grid(settings, latencies), asked, last, by="grid")])
        return
    if asked:
        yield to_train(asked)
    lattice = _within_limits(settings, latencies)
    while last or len(to_train(asked)) < settings.trials:
        names = {entry.candidate.name for entry in asked}
        left = [candidate for candidate in lattice if candidate.name not in names]
        size = min(GENERATION, settings.trials - len(to_train(asked)), len(left))
        proposals: list[Candidate] = []
        if len(last) < size:
            start = _next_number(asked)
            proposals = _propose(settings, left, asked, rows(), size, settings.seed + start)
        names = {entry.candidate.name for entry in last}
        new = [candidate for candidate in proposals if candidate.name not in names]
        generation = _filled(new[: size - len(last)], asked, last, by=settings.sampler)
        if not generation:
            within = " within the limits" if settings.limits else ""
            note(
                f"all {len(lattice)} networks that integers express at this budget{within} are in "
                f"the search: there is nothing left to ask for"
            )
            return
        yield to_train(generation)
        asked, last = [*asked, *generation], []


def most_candidates(settings: Settings, rows: Sequence[Row], latencies: Mapping[str, float]) -> int:
    """How many candidates a sampler's search can come to have."""
    names = {entry.candidate.name for entry in to_train(asked_before(settings, rows, latencies))}
    lattice = {candidate.name for candidate in _within_limits(settings, latencies)}
    return max(len(names), min(settings.trials, len(names | lattice)))


def _within_limits(settings: Settings, latencies: Mapping[str, float]) -> list[Candidate]:
    return [c for c in lattice_candidates(settings, latencies) if c.may_be_chosen]


def _last_generation(asked: Sequence[Asked], by: str) -> list[Asked]:
    """What was asked for last, if `by` did so; nobody else has asked since."""
    start = max((entry.after for entry in asked), default=0)
    last = [entry for entry in asked if entry.after == start]
    return last if all(entry.by == by for entry in last) else []


def _next_number(asked: Sequence[Asked]) -> int:
    return 1 + max((entry.number for entry in asked), default=-1)


def _filled(
    candidates: Sequence[Candidate], asked: Sequence[Asked], last: Sequence[Asked], *, by: str
) -> list[Asked]:
    """The generation `last` with those of `candidates` that nobody asked for yet.

    They take the numbers that are free, so that a generation has the same ones however often and
    wherever it was interrupted.
    """
    start = last[0].after if last else _next_number(asked)
    names = {entry.candidate.name for entry in [*asked, *last]}
    taken = {entry.number for entry in last}
    free = (number for number in count(start) if number not in taken)
    new = [
        Asked(candidate=candidate, number=next(free), after=start, by=by)
        for candidate in candidates
        if candidate.name not in names
    ]
    return sorted([*last, *new], key=lambda entry: entry.number)


def _propose(
    settings: Settings,
    left: Sequence[Candidate],
    asked: Sequence[Asked],
    rows: Sequence[Row],
    size: int,
    seed: int,
) -> list[Candidate]:
    """`size` of the candidates `left`, each the nearest to what a fresh sampler proposes.

    It is told the results of `asked` at the first rung, in their order.
    """
    study = optuna.create_study(direction="minimize", sampler=_sampler(settings.sampler, seed))
    for entry, value in _results(asked, current(rows, settings.horizons[0])):
        if point := point_of(entry.candidate.shares):
            study.add_trial(create_trial(params=point, distributions=dict(SPACE), value=value))
    proposals: list[Candidate] = []
    for _ in range(size):
        point = study.ask(dict(SPACE)).params
        candidate = nearest(left, shares_of(point["u"], point["v"]), excluded=proposals)
        assert candidate is not None
        proposals.append(candidate)
    return proposals


def _results(asked: Sequence[Asked], rows: Sequence[Row]) -> list[tuple[Asked, float]]:
    """What each run of `asked` came to: its loss, or the highest of all where one is `UNSOUND`.

    Samplers overlook trials that failed, and would ask for the same corner again; an infinite
    value is none that a Gaussian process can take. Without any loss nothing can be said.
    """
    ended = [
        (entry, row)
        for entry in asked
        for row in rows
        if row.candidate == entry.candidate.name and row.status != "failed"
    ]
    losses = [row.val_loss for _, row in ended if row.val_loss is not None]
    if not losses:
        return []
    unsound = {row.candidate for _, row in ended if row.status in UNSOUND}
    worst = max(losses)

    def value(row: Row) -> float:
        is_unsound = row.candidate in unsound
        return worst if is_unsound or row.val_loss is None else row.val_loss

    return [(entry, value(row)) for entry, row in ended]


def _sampler(name: str, seed: int) -> BaseSampler:
    match name:
        case "tpe":
            return TPESampler(seed=seed)
        case "gp":
            return GPSampler(seed=seed)
        case _:
            return RandomSampler(seed=seed)
