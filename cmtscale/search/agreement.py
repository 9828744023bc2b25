"""How far two rankings of the same networks agree, and what their noise does to that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from cmtscale.search.curves import FloatArray

RESAMPLES = 2000
LEAST_NETWORKS = 4  # with fewer nothing can be said of a ranking

Cells = Sequence[FloatArray]  # the ln losses of each network's runs, none for one without


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two rankings of the networks that have runs in both, with 95 % bootstrap intervals.

    `corrected` is the correlation with the seeds' noise taken out (nan where it is not measured).
    """

    networks: int
    correlation: float
    correlation_interval: tuple[float, float]
    tau: float
    tau_interval: tuple[float, float]
    corrected: float
    corrected_interval: tuple[float, float]


def noise_of(cells: Cells) -> tuple[float, int]:
    """Pooled standard deviation between seeds, and its degrees of freedom (0: it is nan)."""
    degrees = sum(len(cell) - 1 for cell in cells if len(cell) > 1)
    squares = sum(float(((cell - cell.mean()) ** 2).sum()) for cell in cells if len(cell) > 1)
    return math.sqrt(squares / degrees) if degrees else float("nan"), degrees


def spread_of(cells: Cells) -> tuple[float, float]:
    """Standard deviation of the networks' means; and with the noise of the seeds taken out."""
    present = [cell for cell in cells if len(cell)]
    spread = float(np.std([cell.mean() for cell in present], ddof=1))
    of_means = noise_of(present)[0] ** 2 * float(np.mean([1 / len(cell) for cell in present]))
    return spread, math.sqrt(max(0.0, spread**2 - of_means))


def agreement(first: Cells, second: Cells, *, seed: int = 0) -> Agreement | None:
    """How two rankings agree; None with fewer than four networks in both.

    The bootstrap draws the seeds of each network on either side, then networks; a network that is
    drawn twice is tied with itself, which τ leaves out. A cell of one seed stays as it is, and two
    seeds drawn with replacement vary half as much as they should: intervals are a little narrow in
    the seeds and right in the networks.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if len(a) and len(b)]
    if len(pairs) < LEAST_NETWORKS:
        return None
    noises = [noise_of(cells)[0] for cells in (first, second)]
    random = np.random.default_rng(seed)
    values = []
    for drawn in random.integers(len(pairs), size=(RESAMPLES, len(pairs))):
        seeded = [_resampled(pair, random) for pair in pairs]
        values.append(_statistics([seeded[i] for i in drawn], noises))
    correlation, tau, corrected = _statistics(pairs, noises)
    intervals = [_interval(column[np.isfinite(column)]) for column in np.array(values).T]
    return Agreement(
        networks=len(pairs),
        correlation=correlation,
        correlation_interval=intervals[0],
        tau=tau,
        tau_interval=intervals[1],
        corrected=corrected,
        corrected_interval=intervals[2],
    )


def tau_of_noise(
    spreads: tuple[float, float], errors: tuple[float, float], networks: int, *, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and 95 % range of τ where both rankings are the same but for the noise of the means.

    `spreads` are the true ones on either side, `errors` the standard errors of a mean there.
    """
    random = np.random.default_rng(seed)
    truth = random.standard_normal((RESAMPLES, networks))
    one, other = (
        spread * truth + error * random.standard_normal(truth.shape)
        for spread, error in zip(spreads, errors, strict=True)
    )
    return _range(_taus(one, other))


def range_of_tau(tau: float, networks: int, *, seed: int = 0) -> tuple[float, float]:
    """What 95 % of samples of so many networks have for τ, where all networks together have `tau`.

    For two normal variables, whose correlation is sin(π τ / 2).
    """
    random = np.random.default_rng(seed)
    correlation = np.sin(np.pi * tau / 2)
    one, own = random.standard_normal((2, 10 * RESAMPLES, networks))
    other = correlation * one + np.sqrt(1 - correlation**2) * own
    return _range(_taus(one, other))[1:]


def _taus(one: FloatArray, other: FloatArray) -> FloatArray:
    """τ of each row, none of which has ties."""
    left, right = np.triu_indices(one.shape[1], 1)
    concordant = np.sign((one[:, left] - one[:, right]) * (other[:, left] - other[:, right]))
    return np.asarray(concordant.mean(axis=1))


def _range(taus: FloatArray) -> tuple[float, float, float]:
    low, high = np.quantile(taus, [0.025, 0.975])
    return float(taus.mean()), float(low), float(high)


def _interval(values: FloatArray) -> tuple[float, float]:
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _resampled(
    pair: tuple[FloatArray, FloatArray], random: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    first, second = (random.choice(cell, len(cell)) for cell in pair)
    return first, second


def _statistics(
    pairs: list[tuple[FloatArray, FloatArray]], noises: list[float]
) -> tuple[float, float, float]:
    """Correlation, Kendall's tau, and the correlation with the seeds' noise taken out."""
    means = np.array([[cell.mean() for cell in pair] for pair in pairs]).T
    covariance = np.cov(means)
    with np.errstate(divide="ignore", invalid="ignore"):  # one network drawn again and again
        correlation = float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
    counts = np.array([[1 / len(cell) for cell in pair] for pair in pairs]).mean(axis=0)
    true = np.diagonal(covariance) - np.array(noises) ** 2 * counts
    corrected = (
        float(np.clip(covariance[0, 1] / np.sqrt(true.prod()), -1, 1))
        if np.isfinite(true).all() and (true > 0).all()
        else float("nan")
    )
    return correlation, float(kendalltau(*means).statistic), corrected
