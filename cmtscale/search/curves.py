"""How log loss runs over log images: the prior over architectures, and what runs say of it.

The true ln loss of architecture i at t = log3(images seen / those of the first rung) is

    f_i(t) = level_i + slope_i t + curvature_i t (t - 1) / 2,

so the level is that of the first rung, the slope what a tripling adds there, and the curvature a
second difference, which neither of the first two rungs sees. Each is a mean, a smooth part (Matern
5/2 over the points, one length; level and slope correlated) and a part of the architecture's own.
A run adds what its seed does to it alone, what its seed does to all runs of its rung alike (they
see the same images in the same order), both times exp(decay rung), and the noise of the validation
images, whose covariance is known. All is Gaussian, so given eleven scales all is in closed form.

Shapes: S sets of scales, n runs, K architectures, C values asked for.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Means and standard deviations of what all architectures share. The level is centred on the data;
# measured slopes lie between -0.4 and -0.2, second differences between -0.1 and 0.15
# (results/horizons).
LEVEL_SD = 1.0
SLOPE_MEAN, SLOPE_SD = -0.3, 0.3
CURVATURE_MEAN, CURVATURE_SD = 0.0, 0.1

_CHUNK_FLOATS = 2**17  # covariances built at a time: 1 MB, so that they stay in the L2 cache


@dataclass(frozen=True, kw_only=True)
class Trained:
    """n runs of K architectures.

    `points` (K, 3) is the log growth of depth, width and resolution, one unit between corners;
    `arms` (n,) says which architecture, `times` (n,) log3 of the images seen over those of the
    first rung, `rungs` (n,) which rung from 0, `seeds` (n,) the run's seed, `losses` (n,) ln of
    the validation loss, and `image_covariance` (n, n) that of `losses` over draws of the validation
    images.
    """

    points: FloatArray
    arms: IntArray
    times: FloatArray
    rungs: IntArray
    seeds: IntArray
    losses: FloatArray
    image_covariance: FloatArray

    def __post_init__(self) -> None:
        runs = len(self.losses)
        if runs == 0:
            raise ValueError("no run has ended yet; a forecast needs one")
        columns = (self.arms, self.times, self.rungs, self.seeds)
        if {*map(len, columns), *self.image_covariance.shape} != {runs}:
            raise ValueError(
                f"arms, times, rungs, seeds and image covariance are not all of {runs} runs"
            )
        if not np.isfinite(self.losses).all():
            raise ValueError("a log loss is not a finite number; leave failed runs out")


@dataclass(frozen=True, kw_only=True)
class Scales:
    """S sets of hyperparameters, each field (S,): standard deviations in ln loss, but for three.

    `correlation` is that of smooth level and smooth slope, `length` in units of the points.
    `noise` is what a seed does to one run of the first rung, `common_noise` what it does to all
    runs there alike, `noise_decay` what a rung adds to the logarithm of both.
    """

    level: FloatArray
    slope: FloatArray
    curvature: FloatArray
    correlation: FloatArray
    length: FloatArray
    own_level: FloatArray
    own_slope: FloatArray
    own_curvature: FloatArray
    noise: FloatArray
    common_noise: FloatArray
    noise_decay: FloatArray


@dataclass(frozen=True, kw_only=True)
class Values:
    """C values of curves that are asked for: `arms` (C,) at `times` (C,).

    Each is the true one plus that mean of the runs' image noises which its row of `images` (C, n)
    says, and what seed `seeds` (C,) does to all runs of rung `rungs` (C,) alike; -1 is no seed.
    """

    arms: IntArray
    times: FloatArray
    images: FloatArray
    rungs: IntArray
    seeds: IntArray


# Prior of each scale: its median, and the standard deviation of its logarithm (of the inverse
# hyperbolic tangent for the correlation, of itself for the decay). 14 and 9 networks of equal MACs
# spread by 0.05 to 0.13 in ln loss at the first rung and by 0.04 to 0.06 in slope; fast starters
# gain less; seeds make 0.03 to 0.04, a third less a rung later or no less. A standard deviation of
# 0.6 allows a third to three times as much. Second differences of 13 networks spread by 0.07, half
# of it smooth; of nine others by 0.02 (results/horizons, proxy trainings). What is an
# architecture's own is hardly seen in 14 of them: its mean variance, twice that of the median, is
# about a tenth of the smooth part's.
_PRIORS = {
    "level": (0.1, 0.6),
    "slope": (0.05, 0.6),
    "curvature": (0.03, 0.8),
    "correlation": (-0.6, 0.5),
    "length": (0.6, 0.5),
    "own_level": (0.02, 0.6),
    "own_slope": (0.01, 0.6),
    "own_curvature": (0.007, 0.7),
    "noise": (0.03, 0.6),
    "common_noise": (0.01, 0.8),
    "noise_decay": (-0.2, 0.2),
}
NUMBER_OF_SCALES = len(_PRIORS)
assert tuple(_PRIORS) == tuple(field.name for field in fields(Scales))


def scales_of(normal: FloatArray) -> Scales:
    """Scales of (S, 11) coordinates in which the prior is standard normal."""
    values = {}
    for column, (name, (median, spread)) in zip(normal.T, _PRIORS.items(), strict=True):
        if name == "correlation":
            values[name] = np.tanh(np.arctanh(median) + spread * column)
        elif name == "noise_decay":
            values[name] = median + spread * column
        else:
            values[name] = median * np.exp(spread * column)
    return Scales(**values)


def normal_of(scales: Scales) -> FloatArray:
    """(S, 11): the coordinates of these scales; the inverse of `scales_of`."""
    columns = []
    for name, (median, spread) in _PRIORS.items():
        value = getattr(scales, name)
        if name == "correlation":
            columns.append((np.arctanh(value) - np.arctanh(median)) / spread)
        elif name == "noise_decay":
            columns.append((value - median) / spread)
        else:
            columns.append(np.log(value / median) / spread)
    return np.stack(columns, axis=1)


def noise_variance(scales: Scales, rungs: IntArray) -> FloatArray:
    """(S, n): the variance of ln loss that a seed alone makes in runs at these rungs."""
    return _at_rungs(scales.noise, scales, rungs)


def common_noise_variance(scales: Scales, rungs: IntArray) -> FloatArray:
    """(S, n): that of what a seed does to all runs of its rung alike."""
    return _at_rungs(scales.common_noise, scales, rungs)


def _at_rungs(first: FloatArray, scales: Scales, rungs: IntArray) -> FloatArray:
    log_sd = np.log(first)[:, None] + scales.noise_decay[:, None] * rungs
    variance: FloatArray = np.exp(2 * log_sd)
    return variance


def bend(times: FloatArray) -> FloatArray:
    """What multiplies a curvature at these times."""
    return times * (times - 1) / 2


def prior_mean(trained: Trained, times: FloatArray) -> FloatArray:
    """(C,): the mean curve before any run, at the level of the runs."""
    shape = SLOPE_MEAN * times + CURVATURE_MEAN * bend(times)
    there = SLOPE_MEAN * trained.times + CURVATURE_MEAN * bend(trained.times)
    mean: FloatArray = shape + (trained.losses - there).mean()
    return mean


def curve_covariance(
    scales: Scales,
    points: FloatArray,
    arms: IntArray,
    times: FloatArray,
    other_arms: IntArray,
    other_times: FloatArray,
) -> FloatArray:
    """(S, C, D): between curves of C arms at C times and those of D arms at D times."""
    first, second = times[:, None], other_times
    products, bends = first * second, bend(first) * bend(second)
    shape = bends.shape
    level, slope, curvature = scales.level, scales.slope, scales.curvature
    weights = np.stack(
        [level**2, scales.correlation * level * slope, slope**2, curvature**2], axis=1
    )
    terms = np.stack([np.ones(shape), first + second, products, bends])
    smooth = _matern(scales.length, points)[:, arms[:, None], other_arms]
    smooth *= (weights @ terms.reshape(4, -1)).reshape(-1, *shape)
    same = arms[:, None] == other_arms
    own = np.stack([same, same * products, same * bends]).reshape(3, -1)
    weights = np.stack([scales.own_level, scales.own_slope, scales.own_curvature], axis=1) ** 2
    smooth += (weights @ own).reshape(-1, *shape)
    smooth += LEVEL_SD**2 + SLOPE_SD**2 * products + CURVATURE_SD**2 * bends
    return smooth


def common_noise_covariance(
    scales: Scales, rungs: IntArray, seeds: IntArray, other_rungs: IntArray, other_seeds: IntArray
) -> FloatArray:
    """(S, C, D): of what seeds do to all runs of a rung alike; seed -1 does nothing."""
    same = (rungs[:, None] == other_rungs) & (seeds[:, None] == other_seeds) & (other_seeds >= 0)
    covariance: FloatArray = common_noise_variance(scales, rungs)[:, :, None] * same
    return covariance


def run_covariance(scales: Scales, trained: Trained) -> FloatArray:
    """(S, n, n): of the measured ln losses, all noises included."""
    arms, times, rungs, seeds = trained.arms, trained.times, trained.rungs, trained.seeds
    covariance = curve_covariance(scales, trained.points, arms, times, arms, times)
    covariance += common_noise_covariance(scales, rungs, seeds, rungs, seeds)
    covariance += trained.image_covariance
    diagonal = np.arange(len(arms))
    covariance[:, diagonal, diagonal] += noise_variance(scales, rungs)
    return covariance


def log_likelihood(normal: FloatArray, trained: Trained) -> FloatArray:
    """(S,): log density of the measured losses, less a constant, at (S, 11) coordinates."""
    runs = len(trained.losses)
    missed = trained.losses - prior_mean(trained, trained.times)
    size = max(1, _CHUNK_FLOATS // (runs + 1) ** 2)
    parts = []
    for start in range(0, len(normal), size):
        covariance = run_covariance(scales_of(normal[start : start + size]), trained)
        # The last row of the bordered matrix's Cholesky factor is inv(L) @ missed; the corner
        # only has to exceed that row's sum of squares.
        bordered = np.empty((len(covariance), runs + 1, runs + 1))
        bordered[:, :runs, :runs] = covariance
        bordered[:, runs, :runs] = bordered[:, :runs, runs] = missed
        bordered[:, runs, runs] = 1e12
        factor = np.linalg.cholesky(bordered)
        diagonal = np.diagonal(factor, axis1=1, axis2=2)[:, :runs]
        parts.append(-np.log(diagonal).sum(axis=1) - (factor[:, runs, :runs] ** 2).sum(axis=1) / 2)
    return np.concatenate(parts)


def posterior(scales: Scales, trained: Trained, values: Values) -> tuple[FloatArray, FloatArray]:
    """Mean (S, C) and covariance (S, C, C) of values of curves given the runs."""
    arms, times, rungs, seeds = values.arms, values.times, values.rungs, values.seeds
    images = values.images @ trained.image_covariance  # (C, n)
    prior = curve_covariance(scales, trained.points, arms, times, arms, times)
    prior += common_noise_covariance(scales, rungs, seeds, rungs, seeds)
    prior += images @ values.images.T
    to_runs = curve_covariance(scales, trained.points, arms, times, trained.arms, trained.times)
    to_runs += common_noise_covariance(scales, rungs, seeds, trained.rungs, trained.seeds)
    to_runs += images
    pull = np.linalg.solve(run_covariance(scales, trained), to_runs.transpose(0, 2, 1))
    missed = trained.losses - prior_mean(trained, trained.times)
    mean = prior_mean(trained, times) + missed @ pull
    covariance = prior - to_runs @ pull
    return mean, (covariance + covariance.transpose(0, 2, 1)) / 2


def _matern(length: FloatArray, points: FloatArray) -> FloatArray:
    """(S, K, K): Matern 5/2 correlation between architectures."""
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    scaled = 5**0.5 * distance / length[:, None, None]
    correlation: FloatArray = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return correlation
