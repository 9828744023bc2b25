"""How log loss runs over log images: the prior over architectures, and what runs say of it.

The true ln loss of architecture i at t = log3(images seen / those of the first rung) is

    f_i(t) = level_i + slope_i t + curvature_i t (t - 1) / 2,

so the level is that of the first rung, the slope what a tripling adds there, and the curvature a
second difference, which neither of the first two rungs sees. Each is a mean, a smooth part (Matern
5/2 over the points, one length; level and slope correlated) and a part of the architecture's own.
A run adds what its seed does to it alone, what its seed does to all runs of its rung alike (they
see the same images in the same order), both times exp(decay rung), and the noise of the validation
images, whose covariance is known. All is Gaussian, so given eleven scales all is in closed form,
in matrices of the size of the cells (`cells.py`): more runs of a cell cost no time.

Shapes: S sets of scales, n runs in m cells with q seeds at their rungs, K architectures, C values
asked for.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cmtscale.search.cells import Cells, cells_of
from cmtscale.search.scales import Scales, common_noise_variance, noise_variance, scales_of

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
    first rung (the same for all runs of a rung), `rungs` (n,) which rung from 0, `seeds` (n,) the
    run's seed, `losses` (n,) ln of the validation loss, and `image_covariance` (m, m) that of the
    losses of `cells` over draws of the validation images, which are the same for all its runs.
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
        if {*map(len, (self.arms, self.times, self.rungs, self.seeds))} != {runs}:
            raise ValueError(f"arms, times, rungs and seeds are not all of {runs} runs")
        cells = len(self.cells.arms)
        if self.image_covariance.shape != (cells, cells):
            raise ValueError(f"the image covariance is not of {cells} cells")
        if not np.array_equal(self.cell_times[self.cells.of_runs], self.times):
            raise ValueError("runs of a rung are of several times")
        if not np.isfinite(self.losses).all():
            raise ValueError("a log loss is not a finite number; leave failed runs out")

    @cached_property
    def cells(self) -> Cells:
        """What the runs say of their cells."""
        return cells_of(self.arms, self.rungs, self.seeds, self.losses)

    @cached_property
    def cell_times(self) -> FloatArray:
        """(m,): log3 of the images that runs of each cell saw over those of the first rung."""
        times = dict(zip(self.rungs.tolist(), self.times.tolist(), strict=True))
        return np.array([times[rung] for rung in self.cells.rungs.tolist()])


@dataclass(frozen=True, kw_only=True)
class Values:
    """C values of curves that are asked for: `arms` (C,) at `times` (C,).

    Each is the true one plus that mean of the cells' image noises which its row of `images` (C, m)
    says, and what seed `seeds` (C,) does to all runs of rung `rungs` (C,) alike; -1 is no seed.
    """

    arms: IntArray
    times: FloatArray
    images: FloatArray
    rungs: IntArray
    seeds: IntArray


def bend(times: FloatArray) -> FloatArray:
    """What multiplies a curvature at these times."""
    return times * (times - 1) / 2


def prior_mean(trained: Trained, times: FloatArray) -> FloatArray:
    """(C,): the mean curve before any run, at the level of the runs."""
    curve = SLOPE_MEAN * times + CURVATURE_MEAN * bend(times)
    curve_of_runs = SLOPE_MEAN * trained.times + CURVATURE_MEAN * bend(trained.times)
    mean: FloatArray = curve + (trained.losses - curve_of_runs).mean()
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


def common_noise_covariance(scales: Scales, rungs: IntArray, seeds: IntArray) -> FloatArray:
    """(S, C, C): of what seeds do to all runs of a rung alike; seed -1 does nothing."""
    same = (rungs[:, None] == rungs) & (seeds[:, None] == seeds) & (seeds >= 0)
    covariance: FloatArray = common_noise_variance(scales, rungs)[:, :, None] * same
    return covariance


def common_noise_within(scales: Scales, cells: Cells) -> tuple[FloatArray, FloatArray]:
    """Mean and variance (S, q) of common noise along `directions`, given the runs' differences."""
    noise = noise_variance(scales, cells.seed_rungs)
    common = common_noise_variance(scales, cells.seed_rungs)
    share = common / (noise + common * cells.scatter)
    return share * cells.scores, share * noise


def means_given_differences(scales: Scales, trained: Trained) -> tuple[FloatArray, FloatArray]:
    """The cells' mean ln losses less their means (S, m), and their covariance (S, m, m).

    All noises are included, but for what runs of a cell say of it by their differences.
    """
    cells, times = trained.cells, trained.cell_times
    common, variance = common_noise_within(scales, cells)
    missed = cells.means - prior_mean(trained, times) - common @ cells.loadings.T
    covariance = curve_covariance(scales, trained.points, cells.arms, times, cells.arms, times)
    covariance += (cells.loadings * variance[:, None]) @ cells.loadings.T
    covariance += trained.image_covariance
    diagonal = np.arange(len(times))
    covariance[:, diagonal, diagonal] += noise_variance(scales, cells.rungs) / cells.counts
    return missed, covariance


def log_likelihood(normal: FloatArray, trained: Trained) -> FloatArray:
    """(S,): log density of the measured losses, less a constant, at (S, 11) coordinates."""
    cells = len(trained.cells.arms)
    size = max(1, _CHUNK_FLOATS // (cells + 1) ** 2)
    parts = []
    for start in range(0, len(normal), size):
        missed, covariance = means_given_differences(
            scales_of(normal[start : start + size]), trained
        )
        # The last row of the bordered matrix's Cholesky factor is inv(L) @ missed; the corner
        # only has to exceed that row's sum of squares.
        bordered = np.empty((len(covariance), cells + 1, cells + 1))
        bordered[:, :cells, :cells] = covariance
        bordered[:, cells, :cells] = bordered[:, :cells, cells] = missed
        bordered[:, cells, cells] = 1e12
        factor = np.linalg.cholesky(bordered)
        diagonal = np.diagonal(factor, axis1=1, axis2=2)[:, :cells]
        parts.append(
            -np.log(diagonal).sum(axis=1) - (factor[:, cells, :cells] ** 2).sum(axis=1) / 2
        )
    return np.concatenate(parts) + _log_likelihood_within(scales_of(normal), trained.cells)


def _log_likelihood_within(scales: Scales, cells: Cells) -> FloatArray:
    """(S,): log density of the differences between the runs of each cell, less a constant."""
    noise = noise_variance(scales, cells.rungs)
    alone = (cells.counts - 1) * np.log(noise) + cells.squares / noise + np.log(cells.counts)
    noise = noise_variance(scales, cells.seed_rungs)
    common = common_noise_variance(scales, cells.seed_rungs)
    mean, _ = common_noise_within(scales, cells)
    alike = np.log1p(common / noise * cells.scatter) - mean * cells.scores / noise
    density: FloatArray = -(alone.sum(axis=1) + alike.sum(axis=1)) / 2
    return density


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves under S sets of scales, given the runs."""

    scales: Scales
    trained: Trained

    @cached_property
    def _means(self) -> tuple[FloatArray, FloatArray]:
        return means_given_differences(self.scales, self.trained)

    def posterior(self, values: Values) -> tuple[FloatArray, FloatArray]:
        """Mean (S, C) and covariance (S, C, C) of values of curves."""
        scales, trained, cells = self.scales, self.trained, self.trained.cells
        arms, times = values.arms, values.times
        images = values.images @ trained.image_covariance  # (C, m)
        common, variance = common_noise_within(scales, cells)
        of_rung = values.rungs[:, None] == cells.seed_rungs
        is_seed = of_rung & (values.seeds[:, None] == cells.seeds)
        directions = is_seed @ cells.directions  # (C, q)
        new_seeds = np.where(is_seed.any(axis=1), -1, values.seeds)
        prior = curve_covariance(scales, trained.points, arms, times, arms, times)
        prior += common_noise_covariance(scales, values.rungs, new_seeds)
        prior += (directions * variance[:, None]) @ directions.T
        prior += images @ values.images.T
        to_cells = curve_covariance(
            scales, trained.points, arms, times, cells.arms, trained.cell_times
        )
        to_cells += (directions * variance[:, None]) @ cells.loadings.T
        to_cells += images
        missed, of_means = self._means
        pull = np.linalg.solve(of_means, to_cells.transpose(0, 2, 1))
        mean = prior_mean(trained, times) + common @ directions.T + (missed[:, None] @ pull)[:, 0]
        covariance = prior - to_cells @ pull
        return mean, (covariance + covariance.transpose(0, 2, 1)) / 2


def _matern(length: FloatArray, points: FloatArray) -> FloatArray:
    """(S, K, K): Matern 5/2 correlation between architectures."""
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    scaled = 5**0.5 * distance / length[:, None, None]
    correlation: FloatArray = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
    return correlation
