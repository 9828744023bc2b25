"""The answer: which candidates are as good as the best at the target, how sure that is, and one.

Every number is about a training of the target's length. Where the noise of a run is not measured
there is no forecast: candidates are then ranked by their first-rung means, and nothing is decided.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cmtscale.record.choice import Verdict
from cmtscale.record.forecast import Expected
from cmtscale.record.row import Row
from cmtscale.record.scores import Score, current, scores
from cmtscale.search.candidates import Candidate
from cmtscale.search.curves import FloatArray
from cmtscale.search.evidence import Evidence, bend
from cmtscale.search.forecast import Forecast, forecast
from cmtscale.search.ladder import LONGEST_TARGET
from cmtscale.search.policy import best, near_best, runs_needed
from cmtscale.search.request import SecondCost
from cmtscale.search.runs import CORNERS, RungRun, next_seed

SURE = 0.8  # the probability from which a candidate counts as near the best
EQUAL_COST = 1.05  # second costs closer than that are equal
DRAWS = 4000
CURVE_POINTS = 16  # horizons of a drawn forecast
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
class Interval:
    """The median of what is stated, and the 90 % interval about it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One candidate: what it is expected to reach at the target, and what it has reached.

    `loss` is the forecast at the target, `near` the probability that it is within the tolerance of
    the best, `best` that it is the best; None where there is no forecast of it. `runs` are its
    complete runs at each rung; `longest` its score at the last rung that it has one at.
    """

    score: Score
    runs: tuple[int, ...]
    longest: Score
    longest_images: int
    loss: Interval | None = None
    near: float | None = None
    best: float | None = None

    @property
    def candidate(self) -> str:
        return self.score.candidate


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Another way to take a network: its loss at the target, and in parts above the one taken."""

    name: str
    loss: Interval
    excess: Interval


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What makes an answer uncertain, in ln loss.

    `seeds` is one run's at each rung; `images` that of the validation images, and `forecast` all
    together at the target, both of the difference between the two most probable candidates (None
    for one candidate).
    """

    seeds: tuple[float, ...]
    degrees: int
    images: float | None
    forecast: float | None


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
    """The answer to what is known now; None if no candidate on the budget has a complete run.

    `rows` are all of the record; `seconds` (arms, rungs) is what a run takes, `latencies` are
    seconds of an image by real network. `guess` is None where it is not known.
    """
    if not evidence.eligible.any():
        return None
    standings = _standings(evidence, rows)
    if evidence.trained is None:
        return _undecided(evidence, _by_first_rung(standings), _why_no_forecast(evidence))
    known = forecast(evidence.trained, seed=evidence.settings.seed)
    settings = evidence.settings
    target = evidence.time(settings.target_images)
    draws = known.draws(target, count=DRAWS, seed=settings.seed)
    with_paper = np.append(evidence.eligible, False)  # the paper's constants come last
    near = near_best(draws, with_paper, settings.tolerance)
    lowest = best(draws, with_paper)
    order = sorted(
        map(int, np.flatnonzero(evidence.eligible)),
        key=lambda arm: (-near[arm], np.median(draws[:, arm])),
    )
    names = [arm.name for arm in evidence.arms]
    first = order[0]
    members = [arm for arm in order if near[arm] >= SURE] or [first]
    costs = _second_costs([evidence.arms[arm] for arm in members], settings.prefer, latencies)
    taken = _cheapest([evidence.arms[arm] for arm in members], costs)
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
        standings=_with_forecasts(standings, names, draws, near, lowest, order),
        comparisons=_comparisons(evidence, draws, number),
        noise=_noise(evidence, known, draws, order[:2]),
        more=(),
        more_seconds=0.0,
        curves=_curves(evidence, known),
        bend=bend(evidence),
    )
    if reason := _nothing_learned(choice.standing.longest, guess):
        return replace(choice, verdict="nothing learned yet", reason=reason)
    if near[first] < SURE:
        return _with_more_runs(choice, evidence, known, seconds)
    return choice


def _why_no_forecast(evidence: Evidence) -> str:
    if evidence.missing:
        return (
            f"the losses of single images of {len(evidence.missing)} runs are gone, such as those "
            f"of {evidence.missing[0]}, so the noise of the images is not known"
        )
    return "one seed each measures no noise; add --seeds 2, or another --ladder"


def _undecided(evidence: Evidence, standings: Sequence[Standing], reason: str) -> Choice:
    """The candidates by the means of their first-rung runs; nothing is known about their noise."""
    settings = evidence.settings
    eligible = {arm.name for arm, may in zip(evidence.arms, evidence.eligible, strict=True) if may}
    taken = next(s.candidate for s in standings if s.candidate in eligible)
    return Choice(
        taken=taken,
        verdict="undecided",
        reason=reason,
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


def _standings(evidence: Evidence, rows: Sequence[Row]) -> list[Standing]:
    """Each candidate that the record has a run of, without forecasts."""
    by_rung = [
        {score.candidate: score for score in scores(current(rows, horizon))}
        for horizon in evidence.settings.horizons
    ]
    images = evidence.settings.images_seen
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
            )
        )
    return standings


def _by_first_rung(standings: Sequence[Standing]) -> list[Standing]:
    return sorted(standings, key=lambda s: (s.score.loss is None, s.score.loss or 0.0, s.candidate))


def _with_forecasts(
    standings: Sequence[Standing],
    names: Sequence[str],
    draws: FloatArray,
    near: FloatArray,
    lowest: FloatArray,
    order: Sequence[int],
) -> tuple[Standing, ...]:
    """The standings, the most probable first, then those that cannot be chosen."""
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
                s.loss.median if s.loss else math.inf,
                s.candidate,
            ),
        )
    )


def interval(draws: FloatArray) -> Interval:
    """Median and 90 % interval of draws."""
    low, median, high = (float(value) for value in np.quantile(draws, [0.05, 0.5, 0.95]))
    return Interval(median=median, low=low, high=high)


def _second_costs(
    members: Sequence[Candidate], prefer: SecondCost, latencies: Mapping[str, float]
) -> dict[str, float]:
    """By candidate; none for those whose latency is not measured."""
    if prefer == "latency":
        return {c.name: latencies[c.real.name] for c in members if c.real.name in latencies}
    return {candidate.name: second_cost(candidate, prefer) for candidate in members}


def second_cost(candidate: Candidate, prefer: Literal["params", "activations", "macs"]) -> float:
    """The parameters, activations of an image, or MACs of a candidate's real network."""
    from cmtscale.arch.cost import cost

    return float(getattr(cost(candidate.real), prefer))


def _cheapest(members: Sequence[Candidate], costs: Mapping[str, float]) -> Candidate:
    """The cheapest by `costs`, params deciding among equals; the first while costs are missing."""
    if len(costs) < len(members):
        return members[0]
    limit = EQUAL_COST * min(costs.values())
    equal = [candidate for candidate in members if costs[candidate.name] <= limit]
    return min(equal, key=lambda candidate: second_cost(candidate, "params"))


def _comparisons(evidence: Evidence, draws: FloatArray, taken: int) -> tuple[Comparison, ...]:
    """The paper's constants, each axis alone, and a candidate drawn by lot."""
    roles = [arm.role for arm in evidence.arms]
    paper = roles.index("paper") if "paper" in roles else len(roles)
    columns = {"the paper's constants": draws[:, paper]}
    columns |= {f"{role} only": draws[:, roles.index(role)] for role in CORNERS if role in roles}
    lot = np.random.default_rng(evidence.settings.seed)
    drawn = lot.choice(np.flatnonzero(evidence.eligible), size=len(draws))
    columns["a candidate drawn by lot"] = draws[np.arange(len(draws)), drawn]
    return tuple(
        Comparison(
            name=name,
            loss=interval(np.exp(column)),
            excess=interval(np.exp(column - draws[:, taken]) - 1),
        )
        for name, column in columns.items()
    )


def _noise(evidence: Evidence, known: Forecast, draws: FloatArray, leading: Sequence[int]) -> Noise:
    trained = evidence.trained
    assert trained is not None
    images = together = None
    if len(leading) == 2:
        one, other = leading
        together = float((draws[:, one] - draws[:, other]).std())
        runs = [np.flatnonzero(trained.arms == arm)[-1] for arm in leading]  # their longest ones
        covariance = trained.image_covariance[np.ix_(runs, runs)]
        images = math.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    return Noise(
        seeds=tuple(known.sigma(rung) for rung in range(evidence.settings.ladder.rungs)),
        degrees=evidence.degrees,
        images=images,
        forecast=together,
    )


def _curves(evidence: Evidence, known: Forecast) -> tuple[Expected, ...]:
    """The forecast of each candidate, from the first rung as far as targets may lie.

    None where all runs have one length: the slopes would be those of the prior.
    """
    settings = evidence.settings
    if len(settings.horizons) == 1:
        return ()
    furthest = LONGEST_TARGET * settings.images_seen[-1]
    horizons = np.geomspace(settings.images_seen[0], furthest, CURVE_POINTS).round().astype(int)
    curves = []
    for images in map(int, horizons):
        draws = known.draws(evidence.time(images), count=DRAWS, seed=settings.seed)
        for number, arm in enumerate(evidence.arms):
            loss = interval(np.exp(draws[:, number]))
            values = {"loss": loss.median, "low": loss.low, "high": loss.high}
            curves.append(Expected(candidate=arm.name, images=images, **values))
    return tuple(curves)


def _nothing_learned(best_score: Score, guess: Guess | None) -> str:
    """Why the scores mean nothing yet; empty where they do."""
    assert best_score.accuracy is not None
    if guess is not None and not guess.beaten_by(best_score.accuracy):
        return (
            f"the best candidate is no better than guessing (the commonest class alone: "
            f"{100 * guess.accuracy:.2f} %); train longer (--ladder), or on more images"
        )
    temperature = best_score.temperature
    if temperature is not None and temperature > ALARM_TEMPERATURE:
        return (
            f"the best candidate's fitted temperature is {temperature:.0f}: its outputs say next "
            f"to nothing; train longer (--ladder)"
        )
    if temperature is not None and temperature < 1 / ALARM_TEMPERATURE:
        return (
            "the best candidate names (nearly) every validation image right: they are too few, or "
            "too easy, to tell candidates apart"
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
        eligible=np.append(evidence.eligible, False),
        seconds=np.vstack([seconds, np.full(len(evidence.times), np.inf)]),
        tolerance=settings.tolerance,
        probability=SURE,
        seed=settings.seed,
    )
    if needed is None:
        return replace(choice, verdict="undecided", more=None)
    ended = [
        RungRun(candidate=r.candidate, rung=settings.horizons.index(r.horizon), seed=r.seed)
        for r in evidence.rows
    ]
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
