"""What a search trains next, and how much more it would take to decide.

Top-two Thompson sampling (Russo 2016) names a pair of candidates that may both be the best at the
target; the run that most reduces the variance of their difference there, per second, is next.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmtscale.search.cells import Cells
from cmtscale.search.curves import Curves, FloatArray, IntArray, Trained, Values
from cmtscale.search.forecast import Forecast, square_root
from cmtscale.search.ladder import seed_of
from cmtscale.search.scales import noise_variance, scales_of

BoolArray = npt.NDArray[np.bool_]

_SETS_OF_SCALES = 16  # that variances are averaged over, of the forecast's
_DRAWS = 512  # of all candidates at the target, that pairs are named from
_REDRAWS = 64
_GENERATION = 4  # runs between two looks at whether they suffice
_FUTURES, _DRAWS_OF_EACH = 8, 64


@dataclass(frozen=True, kw_only=True)
class Beliefs:
    """What is believed of K arms under S sets of scales, before and after planned runs.

    `mean` (S, K) and `start` (S, K, K) are of the true ln losses at the target given what was
    trained. `covariance` (S, K·R + K, K·R + K) is of what the next runs of each arm at each of R
    rungs would show but for what their seeds do to them alone, then of the true ln losses at the
    target, given planned runs as well. `noise` (S, K·R) is the variance of what seeds do alone.
    """

    mean: FloatArray
    start: FloatArray
    covariance: FloatArray
    noise: FloatArray

    @property
    def at_target(self) -> FloatArray:
        """(S, K, K): covariance of the true ln losses at the target."""
        cells = self.noise.shape[1]
        return self.covariance[:, cells:, cells:]


def next_runs(
    forecast: Forecast,
    *,
    target: float,
    times: Sequence[float],
    eligible: BoolArray,
    seconds: FloatArray,
    size: int,
    seed: int,
) -> list[tuple[int, int]]:
    """`size` runs (arm, rung) to train at once; the same seed gives the same.

    `target` and `times` (R,) are log3 of images over those of the first rung, `eligible` (K,) says
    who can be chosen, `seconds` (K, R) what a run costs; infinite where it cannot be made.
    """
    pairs = _pairs(forecast.draws(target, count=_DRAWS, seed=seed), eligible)
    beliefs = _beliefs(forecast, target, times)
    return [run for run, _ in _plan(beliefs, pairs, seconds, size)]


def near_best(draws: FloatArray, eligible: BoolArray, tolerance: float) -> FloatArray:
    """(K,): P(ln loss less that of the best eligible <= tolerance) from draws (S, K)."""
    lowest = draws[:, eligible].min(axis=1, keepdims=True)
    probability: FloatArray = (draws - lowest <= tolerance).mean(axis=0) * eligible
    return probability


def best(draws: FloatArray, eligible: BoolArray) -> FloatArray:
    """(K,): the probability of each eligible arm that it has the lowest loss, from draws (S, K)."""
    lowest = np.where(eligible, draws, np.inf).argmin(axis=1)
    return np.bincount(lowest, minlength=draws.shape[1]) / len(draws)


def runs_needed(
    forecast: Forecast,
    *,
    target: float,
    times: Sequence[float],
    eligible: BoolArray,
    seconds: FloatArray,
    tolerance: float,
    probability: float = 0.8,
    most: int = 40,
    seed: int,
) -> list[tuple[int, int]] | None:
    """Runs after which some candidate is expected to be within tolerance with this probability.

    None if `most` runs are not expected to suffice. Arguments as for `next_runs`.
    """
    pairs = _pairs(forecast.draws(target, count=_DRAWS, seed=seed), eligible)
    beliefs = _beliefs(forecast, target, times)
    runs: list[tuple[int, int]] = []
    for run, after in _plan(beliefs, pairs, seconds, most):
        runs.append(run)
        if len(runs) % _GENERATION == 0 or len(runs) == most:
            expected = _expected_probability(after, eligible, tolerance, seed)
            if expected >= probability:
                return runs
    return None


def _pairs(draws: FloatArray, eligible: BoolArray) -> Iterator[tuple[int, int]]:
    """Pairs of arms of which each may be the best, without end."""
    ranked = np.where(eligible, draws, np.inf).argsort(axis=1)
    turn = 0
    while True:
        first, runner_up = ranked[turn % len(ranked), :2]
        turn += 1
        for _ in range(_REDRAWS):
            other = ranked[turn % len(ranked), 0]
            turn += 1
            if other != first:
                runner_up = other
                break
        yield int(first), int(runner_up)


def _beliefs(forecast: Forecast, target: float, times: Sequence[float]) -> Beliefs:
    trained = forecast.trained
    candidates, rungs = len(trained.points), len(times)
    arms = np.repeat(np.arange(candidates), rungs)
    rung_of = np.tile(np.arange(rungs), candidates)
    cells, measured = len(arms), len(trained.cells.arms)
    values = Values(
        arms=np.concatenate([arms, np.arange(candidates)]),
        times=np.concatenate([np.tile(times, candidates), np.full(candidates, target)]),
        images=np.concatenate(
            [_image_shares(trained.cells, arms, rung_of), np.zeros((candidates, measured))]
        ),
        rungs=np.concatenate([rung_of, np.zeros(candidates, dtype=np.int64)]),
        seeds=np.concatenate([_next_seeds(trained, arms, rung_of), np.full(candidates, -1)]),
    )
    scales = scales_of(forecast.normal_scales[:_SETS_OF_SCALES])
    mean, covariance = Curves(scales=scales, trained=trained).posterior(values)
    return Beliefs(
        mean=mean[:, cells:],
        start=covariance[:, cells:, cells:],
        covariance=covariance,
        noise=noise_variance(scales, rung_of),
    )


def _next_seeds(trained: Trained, arms: IntArray, rungs: IntArray) -> IntArray:
    """(C,): the seed that the next run of each arm at each rung will have."""
    of_cell = (arms[:, None] == trained.arms) & (rungs[:, None] == trained.rungs)
    firsts = np.array([seed_of(int(rung), 0) for rung in rungs])
    following: IntArray = np.where(of_cell, trained.seeds + 1, firsts[:, None]).max(axis=1)
    return following


def _image_shares(cells: Cells, arms: IntArray, rungs: IntArray) -> FloatArray:
    """(C, m): a new run has the image noise of its arm's runs: at its rung, or else at all."""
    of_arm = arms[:, None] == cells.arms
    shares = of_arm & (rungs[:, None] == cells.rungs)
    shares = np.where(shares.any(axis=1, keepdims=True), shares, of_arm)
    runs = np.where(shares.any(axis=1, keepdims=True), shares, True) * cells.counts
    mean: FloatArray = runs / runs.sum(axis=1, keepdims=True)
    return mean


def _plan(
    beliefs: Beliefs, pairs: Iterator[tuple[int, int]], seconds: FloatArray, size: int
) -> Iterator[tuple[tuple[int, int], Beliefs]]:
    """Runs (arm, rung) in turn, each with what will be believed once it and those before ended.

    Runs that are named again are believed to have the same part of the noise in common as the
    first, though their seeds differ: a few percent too little is expected of them.
    """
    cells = beliefs.noise.shape[1]
    covariance = beliefs.covariance.copy()
    every_cell = np.arange(cells)
    for _ in range(size):
        first, second = next(pairs)
        shown = covariance[:, every_cell, every_cell] + beliefs.noise  # variance of a run
        difference = covariance[:, :cells, cells + first] - covariance[:, :cells, cells + second]
        gain = (difference**2 / shown).mean(axis=0) / seconds.ravel()
        cell = int(np.where(np.isfinite(seconds.ravel()), gain, -1).argmax())
        column = covariance[:, :, cell] / np.sqrt(shown[:, cell, None])
        covariance = covariance - column[:, :, None] * column[:, None, :]
        after = Beliefs(
            mean=beliefs.mean, start=beliefs.start, covariance=covariance, noise=beliefs.noise
        )
        yield divmod(cell, seconds.shape[1]), after


def _expected_probability(
    beliefs: Beliefs, eligible: BoolArray, tolerance: float, seed: int
) -> float:
    """Of the most probable arm's being within tolerance, over what the planned runs may show."""
    random = np.random.default_rng(seed)
    sets, arms = beliefs.mean.shape
    learned = square_root(beliefs.start - beliefs.at_target).transpose(0, 2, 1)
    means = beliefs.mean[:, None] + random.standard_normal((sets, _FUTURES, arms)) @ learned
    left = square_root(beliefs.at_target).transpose(0, 2, 1)
    away = random.standard_normal((sets, _DRAWS_OF_EACH, arms)) @ left
    draws = means[:, :, None] + away[:, None]  # (sets, futures, draws, K)
    lowest = draws[..., eligible].min(axis=-1, keepdims=True)
    probability = (draws[..., eligible] - lowest <= tolerance).mean(axis=2)
    return float(probability.max(axis=-1).mean())
