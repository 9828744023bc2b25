"""Architectures whose log loss is known at every horizon, and runs of them.

The scales are those measured on small CMTs: spreads of 0.07, 0.05 and 0.05 in ln loss at T, 3T and
9T images, seeds' noise of 0.029, 0.020 and 0.0175, horizons that correlate 0.9 from T to 3T and 0.4
from T to 9T.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmtscale.search.cells import numbered
from cmtscale.search.curves import FloatArray, IntArray, Trained, bend
from cmtscale.search.image_noise import image_covariance
from cmtscale.search.ladder import seed_of
from cmtscale.search.scales import Scales

TIMES = (0.0, 1.0, 2.0)  # of the rungs, in triplings of T
COSTS = (1.0, 3.0, 9.0)  # of a run, in units of T images
TARGET, BEYOND = 2.0, 3.0  # 9T and 27T

SCENARIOS = ("as modelled", "outlier", "image noise", "floor", "rough", "images measured", "bent")
OUTLIER = 0.4  # what the outlier's ln loss is too high by, at every horizon: six spreads at T
FLOOR = 0.08  # the loss that no training goes below, where 9T is at 0.26 without it
IMAGE_NOISE, COMMON_IMAGE_NOISE = 0.02, 0.03  # of ln loss, of each architecture and of all alike
IMAGES = 500  # where their noise is measured: few of them are hard
SHARE_OF_IMAGES = 0.5  # of a seed's variance: what it does to single images
LENGTH, ROUGH_LENGTH = 0.5, 0.25
# of a curvature that is smooth over the points, and of what a seed does to all runs of a rung:
# what 13 twins on Fashion-MNIST make most probable (results/horizons)
CURVATURE, COMMON_NOISE = 0.06, 0.02

_SEED_NOISE = np.array([0.029, 0.020, 0.0175])
_MOST_SEEDS = 64

Run = tuple[int, int]  # architecture, rung


@dataclass(frozen=True, kw_only=True)
class World:
    """K architectures: `truth` (K, 4) is ln loss at T, 3T, 9T, 27T, `anchors` four of them.

    `seed_noise` (K, R, seeds) is what each run will be off by; `image_noise` (K,), with covariance
    `image_covariance` (K, K), all runs of an architecture. Where it is not known, `image_losses`
    (K, images) are relative to each one's mean, and `difficulty` (images,) is how much they vary.
    """

    seed: int
    points: FloatArray
    truth: FloatArray
    anchors: tuple[int, ...]
    seed_noise: FloatArray
    image_noise: FloatArray
    image_covariance: FloatArray
    scales: Scales
    difficulty: FloatArray | None = None
    image_losses: FloatArray | None = None

    def trained(self, runs: list[Run]) -> Trained:
        """What these runs show; the k-th run of an architecture at a rung is always the same."""
        arms, rungs = np.array(runs, dtype=np.int64).T
        earlier = [runs[:number].count(run) for number, run in enumerate(runs)]
        noise = self.seed_noise[arms, rungs, earlier] + self.image_noise[arms]
        (_, cell_arms), _ = numbered(rungs, arms)
        covariance = self.image_covariance[np.ix_(cell_arms, cell_arms)]
        if self.image_losses is not None:
            losses = self.image_losses[arms] + self._churn(arms, rungs, earlier)
            covariance = image_covariance(losses, losses.mean(axis=1), arms=arms, rungs=rungs)
        return Trained(
            points=self.points,
            arms=arms,
            times=np.array(TIMES)[rungs],
            rungs=rungs,
            seeds=np.array([seed_of(r, k) for r, k in zip(rungs.tolist(), earlier, strict=True)]),
            losses=self.truth[arms, rungs] + noise,
            image_covariance=covariance,
        )

    def _churn(self, arms: IntArray, rungs: IntArray, earlier: list[int]) -> FloatArray:
        """(n, images): what each run's seed does to single images, whose mean is in its noise."""
        assert self.difficulty is not None
        keys = [(self.seed, *key) for key in zip(arms, rungs, earlier, strict=True)]
        normal = np.stack([np.random.default_rng(key).standard_normal(IMAGES) for key in keys])
        size = _SEED_NOISE[rungs, None] * (SHARE_OF_IMAGES * IMAGES) ** 0.5
        churn = size * self.difficulty * normal
        return churn - churn.mean(axis=1, keepdims=True)


def world(scenario: str, candidates: int, seed: int) -> World:
    """The world of this scenario and seed; no two share a random number."""
    random = np.random.default_rng([seed, candidates, SCENARIOS.index(scenario)])
    shares = np.concatenate([np.eye(3), random.dirichlet(np.ones(3), candidates - 3)])
    points = shares / 2**0.5  # one unit between corners
    first, second, nearby = _smooth(points, ROUGH_LENGTH if scenario == "rough" else LENGTH, random)
    level = 0.105 * first + 0.03 * random.standard_normal(candidates)
    slope = 0.055 * (-0.81 * first + 0.43 * second) + 0.012 * random.standard_normal(candidates)
    times = np.array([*TIMES, BEYOND])
    truth = -0.8 + level[:, None] + (slope[:, None] - 0.3) * times + 0.013 * times**2
    seed_noise = _SEED_NOISE[:, None] * random.standard_normal((candidates, 3, _MOST_SEEDS))
    centre = int(np.argmin(((shares - 1 / 3) ** 2).sum(axis=1)))
    outlier = random.choice([arm for arm in range(3, candidates) if arm != centre])
    own, common = random.standard_normal(candidates), random.standard_normal()
    image_noise = np.zeros(candidates)
    known_covariance = np.zeros((candidates, candidates))
    difficulty = image_losses = None
    if scenario == "outlier":
        truth[outlier] += OUTLIER
    elif scenario == "floor":
        truth = np.log(FLOOR + np.exp(truth))
    elif scenario == "image noise":  # half of each one's own is shared with its neighbours
        image_noise = COMMON_IMAGE_NOISE * common + IMAGE_NOISE * (nearby + own) / 2**0.5
        alike = (_matern(points, LENGTH) + np.eye(candidates)) / 2
        known_covariance = COMMON_IMAGE_NOISE**2 + IMAGE_NOISE**2 * alike
    elif scenario == "bent":
        bent = _smooth(points, LENGTH, random)[0]
        truth += CURVATURE * bent[:, None] * bend(times)
        common_noise = COMMON_NOISE * (_SEED_NOISE / _SEED_NOISE[0])[:, None]
        seed_noise = seed_noise + common_noise * random.standard_normal((3, _MOST_SEEDS))
    elif scenario == "images measured":
        alike = (_matern(points, LENGTH) + np.eye(candidates)) / 2
        difficulty = random.gamma(0.25, 4, IMAGES) / 5**0.5  # mean square 1
        normal = np.linalg.cholesky(alike) @ random.standard_normal((candidates, IMAGES))
        effects = IMAGE_NOISE * normal + COMMON_IMAGE_NOISE * random.standard_normal(IMAGES)
        image_losses = 1 + effects * difficulty * IMAGES**0.5
        image_noise = image_losses.mean(axis=1) - 1
        image_losses = image_losses - image_noise[:, None]
        # what these images do to all alike is no noise: a forecast is of losses on them
        truth += image_noise.mean()
        image_noise -= image_noise.mean()
    return World(
        seed=seed,
        points=points,
        truth=truth,
        anchors=(0, 1, 2, centre),
        seed_noise=seed_noise,
        image_noise=image_noise,
        image_covariance=known_covariance,
        scales=_true_scales(scenario),
        difficulty=difficulty,
        image_losses=image_losses,
    )


def _true_scales(scenario: str) -> Scales:
    """What the worlds are drawn with; the seeds' noise as near as one decay per rung comes."""
    decay, first = np.polyfit(range(3), np.log(_SEED_NOISE), 1)
    values = {
        "level": 0.105,
        "curvature": CURVATURE if scenario == "bent" else 1e-6,
        "slope": 0.055 * (0.81**2 + 0.43**2) ** 0.5,
        "correlation": -0.81 / (0.81**2 + 0.43**2) ** 0.5,
        "length": ROUGH_LENGTH if scenario == "rough" else LENGTH,
        "own_level": 0.03,
        "own_slope": 0.012,
        "own_curvature": 1e-6,
        "noise": np.exp(first),
        "common_noise": COMMON_NOISE if scenario == "bent" else 1e-6,
        "noise_decay": decay,
    }
    return Scales(**{name: np.array([value]) for name, value in values.items()})


def _matern(points: FloatArray, length: float) -> FloatArray:
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2)) * 5**0.5 / length
    correlation: npt.NDArray[np.float64] = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return correlation


def _smooth(points: FloatArray, length: float, random: np.random.Generator) -> FloatArray:
    """(3, K): two smooth standard normal fields of this length, and one of the usual one."""
    normal = random.standard_normal((3, len(points)))
    nudge = 1e-9 * np.eye(len(points))
    root = np.linalg.cholesky(_matern(points, length) + nudge)
    usual = np.linalg.cholesky(_matern(points, LENGTH) + nudge)
    return np.stack([root @ normal[0], root @ normal[1], usual @ normal[2]])
