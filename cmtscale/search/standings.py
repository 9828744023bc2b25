"""Where each candidate stands: what it has reached, and what is expected of it at the target."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmtscale.record.row import Row
from cmtscale.record.scores import Score, rankings
from cmtscale.search.candidates import Candidate
from cmtscale.search.curves import FloatArray
from cmtscale.search.request import LimitName
from cmtscale.search.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The median of what is stated, and the 90 % interval about it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One candidate: what it is expected to reach at the target, and what it has reached.

    `score` is that of its first rung, but counts at all rungs what diverged or was infeasible.
    `loss` is the forecast at the target, `near` the probability that it is within the tolerance of
    the best, `best` that it is the best; None where there is no forecast of it. `runs` are its
    complete runs at each rung; `longest` its score at the last rung that it has one at; `over` the
    limits that it exceeds.
    """

    score: Score
    runs: tuple[int, ...]
    longest: Score
    longest_images: int
    loss: Interval | None = None
    near: float | None = None
    best: float | None = None
    over: tuple[LimitName, ...] = ()

    @property
    def candidate(self) -> str:
        return self.score.candidate

    @property
    def may_win(self) -> bool:
        """Whether it is on the budget, within the limits, has a complete run, and is sound."""
        return self.score.on_budget and not self.over and any(self.runs) and self.score.is_sound


def reached(
    settings: Settings, rows: Sequence[Row], candidates: Iterable[Candidate]
) -> list[Standing]:
    """Each candidate that the record has a run of, without forecasts.

    `candidates` say which limits they exceed; those without a complete run need not be there.
    """
    over = {candidate.name: candidate.over for candidate in candidates}
    by_rung = [
        {score.candidate: score for score in ranking}
        for ranking in rankings(rows, settings.horizons)
    ]
    images = settings.images_seen
    standings = []
    for name in dict.fromkeys(name for rung in by_rung for name in rung):
        own = [rung.get(name) for rung in by_rung]
        trained = [n for n, score in enumerate(own) if score is not None and score.seeds]
        last = trained[-1] if trained else next(n for n, score in enumerate(own) if score)
        first, longest = next(score for score in own if score), own[last]
        assert longest is not None
        standings.append(
            Standing(
                score=first,
                runs=tuple(len(score.seeds) if score else 0 for score in own),
                longest=longest,
                longest_images=images[last],
                over=over.get(name, ()),
            )
        )
    return standings


def by_first_rung(standings: Sequence[Standing]) -> list[Standing]:
    """The lowest mean loss at the first rung first; what has none, or is not sound, last."""
    return sorted(
        standings,
        key=lambda s: (
            not s.score.is_sound,
            s.runs[0] == 0,  # runs of other lengths do not compare
            s.score.loss is None,
            s.score.loss or 0.0,
            s.candidate,
        ),
    )


def with_forecasts(
    standings: Sequence[Standing],
    names: Sequence[str],
    draws: FloatArray,
    near: FloatArray,
    lowest: FloatArray,
    order: Sequence[int],
) -> tuple[Standing, ...]:
    """The standings, the most probable first, then those that cannot be chosen.

    What is not sound with some seed stands last, whatever its other seeds let one expect.
    """
    places = {names[arm]: place for place, arm in enumerate(order)}
    numbers = {name: number for number, name in enumerate(names)}
    described = [
        replace(
            standing,
            loss=interval(np.exp(draws[:, numbers[standing.candidate]])),
            near=float(near[numbers[standing.candidate]]),
            best=float(lowest[numbers[standing.candidate]]),
        )
        if standing.candidate in numbers
        else standing
        for standing in standings
    ]
    return tuple(
        sorted(
            described,
            key=lambda s: (
                places.get(s.candidate, len(places)),
                not s.score.is_sound,
                s.loss.median if s.loss else math.inf,
                s.candidate,
            ),
        )
    )


def interval(draws: FloatArray) -> Interval:
    """Median and 90 % interval of draws."""
    low, median, high = (float(value) for value in np.quantile(draws, [0.05, 0.5, 0.95]))
    return Interval(median=median, low=low, high=high)
