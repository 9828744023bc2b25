"""A forecast of the log loss of every candidate at any horizon, with its uncertainty.

The curves of `curves.py`, averaged over their scales: with 12 to 40 architectures one best
fit of the scales is too sure of itself (results/forecast).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cmtscale.search.curves import Curves, FloatArray, IntArray, Trained, Values, log_likelihood
from cmtscale.search.importance import sample
from cmtscale.search.scales import (
    NUMBER_OF_SCALES,
    common_noise_variance,
    noise_variance,
    scales_of,
)

_SETS_OF_SCALES = 128


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What runs say of all candidates at all horizons.

    `normal_scales` (S, 11) are equally probable sets of scales, in the coordinates of `scales_of`;
    `effective_samples` is how many independent draws they are worth.
    """

    trained: Trained
    normal_scales: FloatArray
    effective_samples: float

    def moments(self, time: float) -> tuple[FloatArray, FloatArray]:
        """Mean (S, K) and covariance (S, K, K) of the true ln losses at a time, per set."""
        trained = self.trained
        arms = len(trained.points)
        values = Values(
            arms=np.arange(arms),
            times=np.full(arms, time),
            images=np.zeros((arms, len(trained.cells.arms))),
            rungs=np.zeros(arms, dtype=np.int64),
            seeds=np.full(arms, -1),
        )
        return self._curves.posterior(values)

    @cached_property
    def _curves(self) -> Curves:
        return Curves(scales=scales_of(self.normal_scales), trained=self.trained)

    def draws(self, time: float, *, count: int, seed: int) -> FloatArray:
        """(count, K): joint draws of the true ln loss at a time, free of all noise."""
        mean, covariance = self.moments(time)
        root = square_root(covariance)
        sets, arms = mean.shape
        rounds = -(-count // sets)
        normal = np.random.default_rng(seed).standard_normal((sets, rounds, arms))
        draws = mean[:, None] + normal @ root.transpose(0, 2, 1)  # (sets, rounds, K)
        return draws.transpose(1, 0, 2).reshape(-1, arms)[:count]

    def sigma(self, rung: int) -> float:
        """Posterior median of what a seed does to a run at a rung, in ln loss."""
        scales, rungs = scales_of(self.normal_scales), np.array([rung])
        variance = noise_variance(scales, rungs) + common_noise_variance(scales, rungs)
        return float(np.median(np.sqrt(variance)))


def forecast(trained: Trained, *, seed: int = 0) -> Forecast:
    """The forecast from these runs; the same runs, in any order, and seed give the same."""
    trained = _in_order(trained)
    normal_scales, effective_samples = sample(
        lambda normal: log_likelihood(normal, trained),
        dimensions=NUMBER_OF_SCALES,
        count=_SETS_OF_SCALES,
        seed=seed,
    )
    return Forecast(
        trained=trained, normal_scales=normal_scales, effective_samples=effective_samples
    )


def square_root(covariance: FloatArray) -> FloatArray:
    """(..., K, K) symmetric matrices whose squares are these, singular ones included.

    There is one only, so rounding moves draws by as little. (Eigenvectors alone would make roots,
    but their signs are those of the last digits.)
    """
    values, vectors = np.linalg.eigh(covariance)
    scaled = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    root: FloatArray = scaled @ np.swapaxes(vectors, -1, -2)
    return root


def _in_order(trained: Trained) -> Trained:
    """The same runs, sorted: sums in another order round differently."""
    keys = (trained.losses, trained.seeds, trained.rungs, trained.times, trained.arms)
    order: IntArray = np.lexsort(keys)
    return replace(
        trained,
        arms=trained.arms[order],
        times=trained.times[order],
        rungs=trained.rungs[order],
        seeds=trained.seeds[order],
        losses=trained.losses[order],
    )
