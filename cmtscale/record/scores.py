"""What the rows of one horizon say of each candidate: means, spreads, and what went wrong."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from cmtscale.record.result import SCORING
from cmtscale.record.row import Row


@dataclass(frozen=True, kw_only=True)
class Score:
    """A candidate over its runs; lower `loss` is better.

    `loss` is the mean temperature-fitted validation cross-entropy over the complete `seeds`,
    `loss_sd` its standard deviation between them (None for one seed); None without a complete run.
    `diverged`, `infeasible` and `failed` count the other runs, `causes` say why.
    """

    candidate: str
    role: str
    on_budget: bool
    seeds: tuple[int, ...]
    loss: float | None
    loss_sd: float | None
    accuracy: float | None
    accuracy_sd: float | None
    images_per_second: float | None
    temperature: float | None
    diverged: int
    infeasible: int
    failed: int
    causes: tuple[str, ...]

    @property
    def may_win(self) -> bool:
        """Whether it is on the budget, has a complete run, and is sound."""
        return self.on_budget and self.loss is not None and self.is_sound

    @property
    def is_sound(self) -> bool:
        """Whether no run of it diverged or was infeasible: its other runs would flatter it."""
        return not (self.diverged or self.infeasible)


def current(rows: Iterable[Row], horizon: tuple[int, int]) -> list[Row]:
    """The rows of one horizon that were scored as today: those that compare."""
    return [row for row in rows if row.horizon == horizon and row.scoring == SCORING]


def scores(rows: Sequence[Row]) -> list[Score]:
    """One score per candidate of `rows` (of one horizon), in the order they were asked for."""
    by_candidate: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.sort_key):
        by_candidate.setdefault(row.candidate, []).append(row)
    return [_score(runs) for runs in by_candidate.values()]


def rankings(rows: Sequence[Row], horizons: Sequence[tuple[int, int]]) -> list[list[Score]]:
    """Of each horizon its candidates by mean loss; those that are not sound at any stand last.

    `diverged` and `infeasible` of a score count its runs at all horizons.
    """
    by_horizon = [scores(current(rows, horizon)) for horizon in horizons]
    diverged, infeasible = Counter[str](), Counter[str]()
    for score in chain.from_iterable(by_horizon):
        diverged[score.candidate] += score.diverged
        infeasible[score.candidate] += score.infeasible

    def of_all(score: Score) -> Score:
        name = score.candidate
        return replace(score, diverged=diverged[name], infeasible=infeasible[name])

    return [sorted(map(of_all, own), key=_place) for own in by_horizon]


def leader(ranking: Sequence[Score]) -> Score | None:
    """The first one that may win."""
    return next((score for score in ranking if score.may_win), None)


def _place(score: Score) -> tuple[bool, bool, float, str]:
    return not score.is_sound, score.loss is None, score.loss or 0.0, score.candidate


def _score(runs: list[Row]) -> Score:
    complete = [row for row in runs if row.status == "complete"]
    loss, loss_sd = _mean_and_sd([row.val_loss for row in complete])
    accuracy, accuracy_sd = _mean_and_sd([row.val_accuracy for row in complete])
    speed, _ = _mean_and_sd([row.images_per_second for row in complete])
    temperature, _ = _mean_and_sd([row.temperature for row in complete])
    return Score(
        candidate=runs[0].candidate,
        role=runs[0].role,
        on_budget=runs[0].on_budget,
        seeds=tuple(row.seed for row in complete),
        loss=loss,
        loss_sd=loss_sd,
        accuracy=accuracy,
        accuracy_sd=accuracy_sd,
        images_per_second=speed,
        temperature=temperature,
        diverged=sum(row.status == "diverged" for row in runs),
        infeasible=sum(row.status == "infeasible" for row in runs),
        failed=sum(row.status == "failed" for row in runs),
        causes=tuple(dict.fromkeys(row.cause for row in runs if row.status != "complete")),
    )


def _mean_and_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (None for one value) of the values that are there."""
    numbers = np.array([value for value in values if value is not None])
    if not len(numbers):
        return None, None
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None
