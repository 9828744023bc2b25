"""Equal-weight draws from a posterior in a few dimensions, whose prior is standard normal.

Adaptive importance sampling: draws from the prior, then from a multivariate t fitted to what was
drawn so far, all weighted against the mixture of everything that they could have come from (Cornuet
and others 2012). Part of each round stays with the prior, so no weight is large.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp
from scipy.stats import chi2, norm, qmc

FloatArray = npt.NDArray[np.float64]
# How many draws, and the centre and Cholesky factor of the t they are from; None is the prior.
Proposal = tuple[float, tuple[FloatArray, FloatArray] | None]

_PRIOR_DRAWS = 512
_ROUNDS, _ROUND_DRAWS = (3, 12), 256  # at least, and at most until there are enough samples
_ENOUGH_SAMPLES = 200.0
_FREEDOM = 6.0  # of the t distribution: tails heavier than the posterior's
_DEFENCE = 0.1  # share of a round that is drawn from the prior
_FARTHEST = 8.0  # prior standard deviations, beyond which a draw counts for nothing
_LEAST_SAMPLES = 40.0  # effective draws that a fit rests on; the likelihood is flattened until then


def sample(
    log_likelihood: Callable[[FloatArray], FloatArray], *, dimensions: int, count: int, seed: int
) -> tuple[FloatArray, float]:
    """`count` draws (count, dimensions) of equal weight, and the effective sample size of all.

    `log_likelihood` maps (draws, dimensions) to (draws,). The same seed gives the same draws.
    """
    sobol = qmc.Sobol(dimensions + 1, rng=seed)
    uniform = sobol.random(_PRIOR_DRAWS)
    draws: FloatArray = norm.ppf(_inside(uniform[:, :-1]))
    likelihood = _bounded(log_likelihood, draws)
    proposals: list[Proposal] = [(float(_PRIOR_DRAWS), None)]
    log_weights = likelihood + _log_prior(draws) - _log_mixture(draws, proposals)
    least, most = _ROUNDS
    for number in range(most):
        if number >= least and _effective_samples(_normalised(log_weights)) >= _ENOUGH_SAMPLES:
            break
        centre, root = _fit(draws, log_weights)
        uniform = _inside(sobol.random(_ROUND_DRAWS))
        new = norm.ppf(uniform[:, :-1])
        from_prior = np.arange(_ROUND_DRAWS) < _DEFENCE * _ROUND_DRAWS
        stretch = np.sqrt(_FREEDOM / chi2.ppf(uniform[:, -1:], _FREEDOM))
        new = np.where(from_prior[:, None], new, centre + stretch * new @ root.T)
        draws = np.concatenate([draws, new])
        likelihood = np.concatenate([likelihood, _bounded(log_likelihood, new)])
        proposals[0] = (proposals[0][0] + _DEFENCE * _ROUND_DRAWS, None)
        proposals.append(((1 - _DEFENCE) * _ROUND_DRAWS, (centre, root)))
        log_weights = likelihood + _log_prior(draws) - _log_mixture(draws, proposals)
    weights = _normalised(log_weights)
    return draws[_resampled(weights, count, seed)], _effective_samples(weights)


def _bounded(log_likelihood: Callable[[FloatArray], FloatArray], draws: FloatArray) -> FloatArray:
    """(draws,): of those near enough; farther out a t may ask for what arithmetic cannot hold."""
    is_near = np.abs(draws).max(axis=1) <= _FARTHEST
    likelihood = np.full(len(draws), -np.inf)
    likelihood[is_near] = log_likelihood(draws[is_near])
    return likelihood


def _inside(uniform: FloatArray) -> FloatArray:
    return np.clip(uniform, 1e-9, 1 - 1e-9)


def _log_prior(draws: FloatArray) -> FloatArray:
    density: FloatArray = -(draws**2).sum(axis=1) / 2 - draws.shape[1] / 2 * np.log(2 * np.pi)
    return density


def _log_t(draws: FloatArray, centre: FloatArray, root: FloatArray) -> FloatArray:
    dimensions = draws.shape[1]
    squares = (np.linalg.solve(root, (draws - centre).T) ** 2).sum(axis=0)
    half = (_FREEDOM + dimensions) / 2
    constant = gammaln(half) - gammaln(_FREEDOM / 2) - dimensions / 2 * np.log(_FREEDOM * np.pi)
    volume = np.log(np.diagonal(root)).sum()
    density: FloatArray = constant - volume - half * np.log1p(squares / _FREEDOM)
    return density


def _log_mixture(draws: FloatArray, proposals: list[Proposal]) -> FloatArray:
    """Log density of all rounds together, each weighted by its number of draws."""
    parts = [
        np.log(number) + (_log_prior(draws) if t is None else _log_t(draws, *t))
        for number, t in proposals
    ]
    density: FloatArray = logsumexp(np.stack(parts), axis=0)
    return density


def _normalised(log_weights: FloatArray) -> FloatArray:
    weights = np.exp(log_weights - log_weights.max())
    total: FloatArray = weights / weights.sum()
    return total


def _effective_samples(weights: FloatArray) -> float:
    return float(1 / (weights**2).sum())


def _fit(draws: FloatArray, log_weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Centre and Cholesky factor of a t over the weighted draws, flattened if few of them count."""
    power = 1.0
    while _effective_samples(_normalised(power * log_weights)) < _LEAST_SAMPLES:
        power *= 0.8
    weights = _normalised(power * log_weights)
    centre = weights @ draws
    away = draws - centre
    covariance = (weights * away.T) @ away
    # few effective draws make up correlations
    covariance = 0.9 * covariance + 0.1 * np.diag(np.diagonal(covariance))
    root = np.linalg.cholesky(covariance).astype(np.float64)
    return centre, root


def _resampled(weights: FloatArray, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Indices by systematic resampling, in random order."""
    random = np.random.default_rng(seed)
    steps = (np.arange(count) + random.uniform()) / count
    chosen = np.searchsorted(np.cumsum(weights), steps).clip(max=len(weights) - 1)
    return random.permutation(chosen)
