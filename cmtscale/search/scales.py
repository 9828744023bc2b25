"""The eleven hyperparameters of the curves, and the prior over them.

Shapes: S sets of scales, n runs.
"""

from dataclasses import dataclass, fields

import numpy as np

from cmtscale.search.cells import FloatArray, IntArray


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
