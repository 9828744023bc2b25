"""Who is trained, in which order: the grid at once, or a generation of networks at a time.

Samplers propose points, the lattice of networks decides: each proposal is the nearest network that
was not asked for yet, until there is none left.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import create_trial

from cmtscale.record.row import Row
from cmtscale.record.scores import current
from cmtscale.search.candidates import Candidate, grid, lattice_candidates, recorded_candidate
from cmtscale.search.points import point_of, shares_of
from cmtscale.search.request import Settings
from cmtscale.search.store import SPACE
from cmtscale.spec.lattice import nearest

GENERATION = 8  # fixed, so that a search does not depend on the number of workers


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A candidate and how it came into the search.

    `number` counts the candidates in the order in which they were asked for, `after` those that
    were known when its generation was asked, `by` is the sampler, or `grid`.
    """

    candidate: Candidate
    number: int
    after: int
    by: str


def asked_before(settings: Settings, rows: Sequence[Row]) -> list[Asked]:
    """The candidates that the record has a run of, in the order in which they were asked for."""
    first_rows = {row.asked: row for row in reversed(rows)}
    return [
        Asked(
            candidate=recorded_candidate(settings, row),
            number=row.asked,
            after=row.asked_after,
            by=row.asked_by,
        )
        for _, row in sorted(first_rows.items())
    ]


def generations(
    settings: Settings, rows: Callable[[], Sequence[Row]], note: Callable[[str], None]
) -> Iterator[list[Asked]]:
    """What to train, a generation at a time; the next one is asked when the caller comes back.

    First comes all that `rows` knows already, for what of it may be missing. The grid is one
    generation. A sampler goes on until there are `settings.trials` candidates or no network is
    left. Its generation depends on the results of earlier ones alone, so that one that was
    interrupted is asked again as it was.
    """
    asked = asked_before(settings, rows())
    if settings.sampler == "grid":
        yield [*asked, *_unknown(grid(settings), asked, by="grid")]
        return
    interrupted = max((entry.after for entry in asked if entry.by == settings.sampler), default=-1)
    if interrupted != max((entry.after for entry in asked), default=-1):
        interrupted = -1  # somebody else has asked since
    later = [entry for entry in asked if entry.after == interrupted]
    asked = [entry for entry in asked if entry not in later]
    if asked:
        yield asked
    lattice = lattice_candidates(settings)
    while later or len(asked) < settings.trials:
        start = later[0].after if later else 1 + max((a.number for a in asked), default=-1)
        generation = _ask(settings, lattice, asked, rows(), start)
        names = {entry.candidate.name for entry in generation}
        generation += [entry for entry in later if entry.candidate.name not in names]
        later = []
        if not generation:
            note(
                f"all {len(lattice)} networks that integers express at this budget are in the "
                f"search: there is nothing left to ask for"
            )
            return
        yield generation
        asked = [*asked, *generation]


def most_candidates(settings: Settings, rows: Sequence[Row]) -> int:
    """How many candidates the search can come to have."""
    names = {entry.candidate.name for entry in asked_before(settings, rows)}
    if settings.sampler == "grid":
        return len(names | {candidate.name for candidate in grid(settings)})
    lattice = {candidate.name for candidate in lattice_candidates(settings)}
    return max(len(names), min(settings.trials, len(names | lattice)))


def _unknown(candidates: Sequence[Candidate], asked: Sequence[Asked], *, by: str) -> list[Asked]:
    """Those of `candidates` that were not asked for yet, numbered on."""
    names = {entry.candidate.name for entry in asked}
    start = 1 + max((entry.number for entry in asked), default=-1)
    new = [candidate for candidate in candidates if candidate.name not in names]
    return [
        Asked(candidate=candidate, number=start + position, after=start, by=by)
        for position, candidate in enumerate(new)
    ]


def _ask(
    settings: Settings,
    lattice: Sequence[Candidate],
    asked: Sequence[Asked],
    rows: Sequence[Row],
    start: int,
) -> list[Asked]:
    """A generation from a fresh sampler that is told the results of `asked`, in their order."""
    study = optuna.create_study(
        direction="minimize", sampler=_sampler(settings.sampler, settings.seed + start)
    )
    comparable = current(rows, settings.horizon)
    for entry in asked:
        point = point_of(entry.candidate.shares)
        for row in comparable:
            if row.candidate == entry.candidate.name and row.status == "complete" and point:
                study.add_trial(
                    create_trial(params=point, distributions=dict(SPACE), value=row.val_loss)
                )
    names = {entry.candidate.name for entry in asked}
    left = [candidate for candidate in lattice if candidate.name not in names]
    generation: list[Asked] = []
    for position in range(min(GENERATION, settings.trials - len(asked), len(left))):
        point = study.ask(dict(SPACE)).params
        candidate = nearest(left, shares_of(point["u"], point["v"]))
        assert candidate is not None
        left.remove(candidate)
        generation.append(
            Asked(candidate=candidate, number=start + position, after=start, by=settings.sampler)
        )
    return generation


def _sampler(name: str, seed: int) -> BaseSampler:
    match name:
        case "tpe":
            return TPESampler(seed=seed)
        case "gp":
            return GPSampler(seed=seed)
        case _:
            return RandomSampler(seed=seed)
