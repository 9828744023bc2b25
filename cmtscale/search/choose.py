"""The answer: which candidates are as good as the best at the target, how sure that is, and one.

Every number is about a training of the target's length. Where the noise of a run is not measured
there is no forecast: candidates are then ranked by their first-rung means, and nothing is decided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmtscale.arch.cost import cost
from cmtscale.record.choice import Verdict
from cmtscale.record.folder import VAL_LOSSES
from cmtscale.record.forecast import Expected
from cmtscale.record.row import Row
from cmtscale.search.beside import (
    DRAWS,
    Comparison,
    Noise,
    comparisons,
    expected_curves,
    noise_of,
)
from cmtscale.search.candidates import Candidate
from cmtscale.search.curves import FloatArray
from cmtscale.search.evidence import Evidence, bend
from cmtscale.search.forecast import Forecast, forecast
from cmtscale.search.ladder import SURE
from cmtscale.search.policy import best, near_best, runs_needed
from cmtscale.search.request import SecondCost
from cmtscale.search.runs import RungRun, next_seed, recorded_runs
from cmtscale.search.second_cost import second_cost
from cmtscale.search.standings import Standing, by_first_rung, reached, with_forecasts

EQUAL_COST = 1.05  # second costs closer than that are equal
# Fitted temperatures beyond: the logits say next to nothing, or every validation image is right.
ALARM_TEMPERATURE = 20.0


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Always naming the commonest class: its accuracy on so many validation images."""

    accuracy: float
    val_images: int

    def beaten_by(self, accuracy: float) -> bool:
        """Whether an accuracy is better by two standard errors."""
        error = math.sqrt(self.accuracy * (1 - self.accuracy) / self.val_images)
        return accuracy > self.accuracy + 2 * error


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The network taken, and how sure that is.

    `standings` hold every candidate, the most probable first. `near` are those within the
    `tolerance` of the best with a probability of .8 or more, or the most probable alone;
    `costs` are their second costs (`prefer`), and `taken` the cheapest. `probability` is that of
    `taken`. `more` are the runs that would probably decide an undecided search, which take
    `more_seconds` of one worker; None: no forty runs would. `curves` are the forecast of every
    candidate over horizons, as far as it goes; `bend` says where its line has bent (empty: not).
    `reason` says why a verdict is none.
    """

    taken: str
    verdict: Verdict
    reason: str
    target_images: int
    tolerance: float
    prefer: SecondCost
    probability: float | None
    near: tuple[str, ...]
    costs: Mapping[str, float]
    standings: tuple[Standing, ...]
    comparisons: tuple[Comparison, ...]
    noise: Noise | None
    more: tuple[RungRun, ...] | None
    more_seconds: float
    curves: tuple[Expected, ...]
    bend: str

    @property
    def standing(self) -> Standing:
        """That of the network taken."""
        return next(s for s in self.standings if s.candidate == self.taken)


def choose(
    evidence: Evidence,
    rows: Sequence[Row],
    guess: Guess | None,
    *,
    seconds: FloatArray,
    latencies: Mapping[str, float],
) -> Choice | None:
    """The answer to what is known now; None if no candidate that may be chosen has a complete run.

    `rows` are all of the record; `seconds` (arms, rungs) is what a run takes, `latencies` are
    seconds of an image by real network. `guess` is None where it is not known.
    """
    if not evidence.eligible.any():
        return None
    standings = reached(evidence.settings, rows, evidence.arms)
    if evidence.trained is None:
        return _without_forecast(evidence, by_first_rung(standings), guess)
    known = forecast(evidence.trained, seed=evidence.settings.seed)
    settings = evidence.settings
    target = evidence.time(settings.target_images)
    draws = known.draws(target, count=DRAWS, seed=settings.seed)
    near = near_best(draws, evidence.eligible_curves, settings.tolerance)
    lowest = best(draws, evidence.eligible_curves)
    order = sorted(
        map(int, np.flatnonzero(evidence.eligible)),
        key=lambda arm: (-near[arm], np.median(draws[:, arm])),
    )
    names = [arm.name for arm in evidence.arms]
    first = order[0]
    members = [arm for arm in order if near[arm] >= SURE] or [first]
    costs = _second_costs([evidence.arms[arm] for arm in members], settings.prefer, latencies)
    taken = _cheapest([evidence.arms[arm] for arm in members], costs, settings.prefer)
    number = names.index(taken.name)
    choice = Choice(
        taken=taken.name,
        verdict="clear" if len(members) == 1 else "tie",
        reason="",
        target_images=settings.target_images,
        tolerance=settings.tolerance,
        prefer=settings.prefer,
        probability=float(near[number]),
        near=tuple(names[arm] for arm in members),
        costs=costs,
        standings=with_forecasts(standings, names, draws, near, lowest, order),
        comparisons=comparisons(evidence, draws, number),
        noise=noise_of(evidence, known, draws, order[:2]),
        more=(),
        more_seconds=0.0,
        curves=expected_curves(evidence, known),
        bend=bend(evidence),
    )
    if reason := _nothing_learned(choice.standing, guess):
        return replace(choice, verdict="nothing learned yet", reason=reason)
    if near[first] < SURE:
        return _with_more_runs(choice, evidence, known, seconds)
    return choice


def _why_no_forecast(evidence: Evidence) -> str:
    settings = evidence.settings
    if evidence.missing:
        return (
            f"the losses of single images are gone of {', '.join(evidence.missing[:3])}"
            f"{' and others' if len(evidence.missing) > 3 else ''}, so the noise of the images is "
            f"not known; restore {VAL_LOSSES}, or search with another --out"
        )
    if settings.seeds > 1 or settings.ladder.noise_degrees:
        return "no two runs of one network have ended yet, so the noise is not known"
    return "one seed each measures no noise; add --seeds 2, or another --ladder"


def _without_forecast(
    evidence: Evidence, standings: Sequence[Standing], guess: Guess | None
) -> Choice:
    """The candidates by the means of their first-rung runs; nothing is known about their noise."""
    settings = evidence.settings
    standing = next(standing for standing in standings if standing.may_win)
    reason = _nothing_learned(standing, guess)
    taken = standing.candidate
    return Choice(
        taken=taken,
        verdict="nothing learned yet" if reason else "undecided",
        reason=reason or _why_no_forecast(evidence),
        target_images=settings.target_images,
        tolerance=settings.tolerance,
        prefer=settings.prefer,
        probability=None,
        near=(taken,),
        costs={},
        standings=tuple(standings),
        comparisons=(),
        noise=None,
        more=(),
        more_seconds=0.0,
        curves=(),
        bend=bend(evidence),
    )


def _second_costs(
    members: Sequence[Candidate], prefer: SecondCost, latencies: Mapping[str, float]
) -> dict[str, float]:
    """By candidate; none for those whose latency is not measured."""
    costs = {c.name: second_cost(c.real, prefer, latencies) for c in members}
    return {name: value for name, value in costs.items() if value is not None}


def _cheapest(
    members: Sequence[Candidate], costs: Mapping[str, float], prefer: SecondCost
) -> Candidate:
    """The cheapest by `costs`, params deciding among equals; the first while costs are missing.

    MACs differ by no more than the budget's tolerance, so of these none are equal.
    """
    if len(costs) < len(members):
        return members[0]
    limit = min(costs.values()) * (1 if prefer == "macs" else EQUAL_COST)
    equal = [candidate for candidate in members if costs[candidate.name] <= limit]
    return min(equal, key=lambda candidate: cost(candidate.real).params)


def _nothing_learned(standing: Standing, guess: Guess | None) -> str:
    """Why the scores mean nothing yet; empty where they do."""
    name, score = standing.candidate, standing.longest
    assert score.accuracy is not None
    if guess is not None and not guess.beaten_by(score.accuracy):
        return (
            f"{name} is no better than guessing (the commonest class alone: "
            f"{100 * guess.accuracy:.2f} %); train longer (--ladder), or on more images"
        )
    temperature = score.temperature
    if temperature is not None and temperature > ALARM_TEMPERATURE:
        return (
            f"the fitted temperature of {name} is {temperature:.0f}: its outputs say next to "
            f"nothing; train longer (--ladder)"
        )
    if score.loss == 0 or (temperature is not None and temperature < 1 / ALARM_TEMPERATURE):
        return (
            f"{name} names (nearly) every validation image right: they are too few, or too easy, "
            f"to tell candidates apart"
        )
    return ""


def _with_more_runs(
    choice: Choice, evidence: Evidence, known: Forecast, seconds: FloatArray
) -> Choice:
    settings = evidence.settings
    needed = runs_needed(
        known,
        target=evidence.time(settings.target_images),
        times=evidence.times,
        eligible=evidence.eligible_curves,
        seconds=evidence.seconds_of_curves(seconds),
        tolerance=settings.tolerance,
        probability=SURE,
        seed=settings.seed,
    )
    if needed is None:
        return replace(choice, verdict="undecided", more=None)
    ended = recorded_runs(settings, evidence.rows)
    more: list[RungRun] = []
    for arm, rung in needed:
        name = evidence.arms[arm].name
        seed = next_seed([*ended, *more], name, rung)
        more.append(RungRun(candidate=name, rung=rung, seed=seed))
    return replace(
        choice,
        verdict="undecided",
        more=tuple(more),
        more_seconds=float(sum(seconds[arm, rung] for arm, rung in needed)),
    )
