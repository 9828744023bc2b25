"""How probable it is that each candidate of a search is truly the best.

The measured loss of candidate k, a mean over its seeds on the validation images, is

    measured[k] = truth[k] + split[k] + training[k],

`split` ~ N(0, C) from the choice of the validation images, the same for every seed, and
`training[k]` ~ N(0, variance / seeds[k]). C comes from the losses per image; the variance is
pooled over candidates and drawn along with the truths, as few runs tell it badly. Only
differences decide, so what the images do to all candidates alike is taken out.

The truths follow a law of unknown shape, and 14 of them do not show it. Three shapes stand side by
side: normal, uniform, and crowded at the low end, as near an optimum. Each has a wide component,
so that an outlier does not set the spread of the rest. Centre, spread and shape are integrated
over, by many Gibbs chains at once.

In simulated searches of 14 candidates, normal, uniform, tied or with an outlier, with and without
noise of the images, of two to five seeds, what is stated is right as often within a few points
(tests/search/test_confidence.py). It says too much, .38 where .20 is right, if five candidates are
equally good and better than all others, and by 10 points if losses crowd at an optimum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import helmert
from sklearn.covariance import ledoit_wolf

FloatArray = npt.NDArray[np.float64]

_CHAINS, _SWEEPS, _WARM_UP = 64, 200, 100

# The shapes as mixtures of five normals, with mean 0 and spread 1 but for the last component, which
# takes the outliers. Its share, one candidate in eight, and its width, four spreads, are our
# choice: with a smaller share, simulated searches were right more often than they said.
_SHARES = np.array([7 / 32] * 4 + [1 / 8])
_FLAT = (np.arange(4) + 0.5) / 4  # four equal pieces of [0, 1]
_MEANS = np.array(
    [[0.0] * 5, [*12**0.5 * (_FLAT - 0.5), 0.0], [*11.25**0.5 * (_FLAT**2 - 1 / 3), 0.0]]
)
_WIDTHS = np.array([[1.0] * 4 + [4.0], [12**0.5 / 8] * 4 + [4.0], [*_FLAT / 2, 4.0]])


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the runs say of K candidates.

    `losses` (K,) are means over `seeds` (K,) runs; `squares` is the sum of squares of the runs
    about them, on `degrees` degrees of freedom; `split_root` (K, K - 1) times its transpose is the
    covariance of the losses over choices of validation images, without what all candidates share.
    """

    losses: FloatArray
    seeds: FloatArray
    squares: float
    degrees: int
    split_root: FloatArray


@dataclass(frozen=True, kw_only=True)
class Law:
    """What the truths are drawn from, one per chain: all are (chains,); `shape` is a row above."""

    centre: FloatArray
    log_spread: FloatArray
    shape: npt.NDArray[np.int64]


def probability_of_best(
    image_losses: Sequence[FloatArray], *, seed: int, chains: int = _CHAINS
) -> FloatArray | None:
    """The probability of each candidate that its true mean loss is the lowest; None if unknown.

    `image_losses` has one array (seeds, images) per candidate, over the same images. Where no
    candidate has two seeds the noise of a run is not measured, and the answer is None. The same
    `seed` gives the same answer; fewer `chains` give a noisier one sooner.
    """
    if len({losses.shape[1] for losses in image_losses}) != 1:
        raise ValueError("candidates differ in their number of validation images; use one split")
    if max(len(losses) for losses in image_losses) == 1:
        return None
    if len(image_losses) == 1:
        return np.ones(1)
    truths = draw_truths(measure(image_losses), seed=seed, chains=chains)
    return np.bincount(truths.argmin(axis=1), minlength=len(image_losses)) / len(truths)


def measure(image_losses: Sequence[FloatArray]) -> Measured:
    """Means and noise of the runs; at least one candidate has two seeds.

    What a seed does to single images is in the noise between seeds already, so it is taken out of
    the covariance between images. A few hard images make most of that covariance: it is shrunk by
    as much as they leave it uncertain (Ledoit and Wolf 2004).
    """
    seeds = np.array([len(losses) for losses in image_losses], dtype=float)
    images = image_losses[0].shape[1]
    degrees = int(seeds.sum()) - len(seeds)
    squares = churn = 0.0
    for losses in image_losses:
        runs = losses.mean(axis=1)
        squares += ((runs - runs.mean()) ** 2).sum()
        per_image = losses - runs[:, None]
        churn += ((per_image - per_image.mean(axis=0)) ** 2).sum() / (images - 1) / degrees
    means = np.stack([losses.mean(axis=0) for losses in image_losses])
    contrasts = helmert(len(seeds))  # (K - 1, K), orthonormal, without the mean
    covariance, _ = ledoit_wolf((contrasts @ means).T)
    covariance -= contrasts / seeds @ contrasts.T * churn
    values, vectors = np.linalg.eigh(covariance)
    root = contrasts.T @ vectors * np.sqrt(np.maximum(values, 0) / images)
    return Measured(
        losses=means.mean(axis=1),
        seeds=seeds,
        squares=float(squares),
        degrees=degrees,
        split_root=root,
    )


def draw_truths(measured: Measured, *, seed: int, chains: int = _CHAINS) -> FloatArray:
    """Draws (draws, K) of the true losses given the measured ones, in units of the noise."""
    random = np.random.default_rng(seed)
    losses = measured.losses - np.median(measured.losses)
    noise = float(np.mean(measured.squares / measured.degrees / measured.seeds))
    noise += float((measured.split_root**2).sum()) / len(losses)
    # runs may agree to the bit
    unit = max(noise**0.5, 1e-6 * float(np.ptp(losses)), float(np.finfo(float).tiny))
    measured = Measured(
        losses=losses / unit,
        seeds=measured.seeds,
        squares=max(measured.squares / unit**2, 1e-12),
        degrees=measured.degrees,
        split_root=measured.split_root / unit,
    )
    spread = float(np.std(measured.losses))
    step = max(spread, 0.1) / len(losses) ** 0.5
    law = Law(
        centre=step * random.standard_normal(chains),
        log_spread=np.log(max(spread, 1)) + 0.5 * random.standard_normal(chains),
        shape=random.integers(0, len(_MEANS), chains),
    )
    truths = np.tile(measured.losses, (chains, 1))
    variance = np.full((chains, 1), measured.squares / measured.degrees)
    draws = []
    for sweep in range(_WARM_UP + _SWEEPS):
        law = _next_law(law, truths, step, random)
        truths, variance = _next_truths(law, truths, variance, measured, random)
        if sweep >= _WARM_UP:
            draws.append(truths)
    return np.concatenate(draws)


def _log_components(truths: FloatArray, law: Law) -> FloatArray:
    """(chains, K, components): log density of each truth in each, weighted by its share."""
    scaled = (truths - law.centre[:, None]) / np.exp(law.log_spread)[:, None]
    widths = _WIDTHS[law.shape, None]
    distance = (scaled[..., None] - _MEANS[law.shape, None]) / widths
    density: FloatArray = np.log(_SHARES / widths) - distance**2 / 2 - law.log_spread[:, None, None]
    return density


def _log_density(truths: FloatArray, law: Law) -> FloatArray:
    """(chains,): of the truths and their spread, which is half-Cauchy in units of the noise."""
    prior = law.log_spread - np.logaddexp(0, 2 * law.log_spread)
    components = _log_components(truths, law)
    nearest = components.max(axis=2, keepdims=True)
    each = nearest[..., 0] + np.log(np.exp(components - nearest).sum(axis=2))
    total: FloatArray = prior + each.sum(axis=1)
    return total


def _next_law(law: Law, truths: FloatArray, step: float, random: np.random.Generator) -> Law:
    """One Metropolis step of each chain; the proposal is symmetric."""
    chains = len(truths)
    new = Law(
        centre=law.centre + step * random.standard_normal(chains),
        log_spread=law.log_spread + 0.4 * random.standard_normal(chains),
        shape=random.integers(0, len(_MEANS), chains),
    )
    gain = _log_density(truths, new) - _log_density(truths, law)
    taken = -random.standard_exponential(chains) < gain
    return Law(
        centre=np.where(taken, new.centre, law.centre),
        log_spread=np.where(taken, new.log_spread, law.log_spread),
        shape=np.where(taken, new.shape, law.shape),
    )


def _next_truths(
    law: Law,
    truths: FloatArray,
    variance: FloatArray,
    measured: Measured,
    random: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """The truths (chains, K), then the variance between seeds (chains, 1).

    Each truth picks its component. Then all are drawn from the law, and moved by what they and
    the noise drawn with them miss of the measured losses (Matheron's rule).
    """
    components = _log_components(truths, law)
    picked = (components + random.gumbel(size=components.shape)).argmax(axis=2)
    spread, shape = np.exp(law.log_spread)[:, None], law.shape[:, None]
    width = spread * _WIDTHS[shape, picked]
    training_variance = variance / measured.seeds
    truths = law.centre[:, None] + spread * _MEANS[shape, picked]
    truths = truths + width * random.standard_normal(width.shape)
    training = np.sqrt(training_variance) * random.standard_normal(width.shape)
    root = measured.split_root
    split = random.standard_normal((len(width), root.shape[-1])) @ root.T
    total = root @ root.T + (width**2 + training_variance)[..., None] * np.eye(width.shape[1])
    missed = measured.losses - truths - training - split
    pull = np.linalg.solve(total, missed[..., None])[..., 0]
    training = training + training_variance * pull
    squares = measured.squares + (measured.seeds * training**2).sum(axis=1, keepdims=True)
    freedom = measured.degrees + width.shape[1]
    variance = squares / 2 / random.standard_gamma(freedom / 2, variance.shape)
    return truths + width**2 * pull, variance
