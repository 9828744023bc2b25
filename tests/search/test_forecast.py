"""What runs say of curves: against dense formulas, and what it may and may not depend on."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cmtscale.search import curves
from cmtscale.search.curves import Curves, Trained, Values, log_likelihood
from cmtscale.search.forecast import Forecast, forecast, square_root
from cmtscale.search.importance import sample
from cmtscale.search.scales import NUMBER_OF_SCALES, Scales, normal_of, scales_of

POINTS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.4, 0.3, 0.3], [0.2, 0.5, 0.3]]) / 2**0.5
SCALES = Scales(
    level=np.array([0.12]),
    slope=np.array([0.04]),
    curvature=np.array([0.06]),
    correlation=np.array([-0.7]),
    length=np.array([0.45]),
    own_level=np.array([0.03]),
    own_slope=np.array([0.02]),
    own_curvature=np.array([0.011]),
    noise=np.array([0.025]),
    common_noise=np.array([0.015]),
    noise_decay=np.array([-0.3]),
)


def runs(repetitions: int = 1, noise: float = 0.02, rungs: int = 3) -> Trained:
    """Each of five architectures at each rung; their lines differ in level and slope."""
    random = np.random.default_rng(4)
    cells = [*product(range(5), range(rungs))] * repetitions
    arms, rung = np.array(cells).T
    repetition = np.arange(len(cells)) // (5 * rungs)
    levels, slopes = np.array([0.0, 0.1, -0.1, 0.05, 0.02]), np.array([0.0, -0.05, 0.06, 0.0, 0.01])
    losses = -0.8 + levels[arms] + (slopes[arms] - 0.3) * rung + 0.015 * rung * (rung - 1)
    return Trained(
        points=POINTS,
        arms=arms,
        times=rung.astype(float),
        rungs=rung,
        seeds=100 * rung + repetition,
        losses=losses + noise * random.standard_normal(len(arms)),
        image_covariance=np.zeros((5 * rungs, 5 * rungs)),
    )


def with_image_noise(trained: Trained, common: float, own: float) -> Trained:
    """The same runs, where images are known to move all by `common` and each arm by `own`."""
    same = trained.cells.arms[:, None] == trained.cells.arms
    return replace(trained, image_covariance=common**2 + own**2 * same)


def uneven() -> Trained:
    """Cells of one to three runs, which have some seeds in common."""
    trained = runs(repetitions=3)
    kept = np.flatnonzero(np.random.default_rng(7).random(45) < np.repeat([1.0, 0.5, 0.4], 15))
    shuffled = np.random.default_rng(8).permutation(kept)
    columns = {
        name: getattr(trained, name)[shuffled]
        for name in ("arms", "times", "rungs", "seeds", "losses")
    }
    return replace(trained, **columns)


def spread_of_difference(known: Forecast) -> float:
    draws = known.draws(2.0, count=4096, seed=0)
    return float((draws[:, 3] - draws[:, 4]).std())


def dense_covariance(trained: Trained, cells: list[tuple[int, float]]) -> np.ndarray:
    """Of curve values at (arm, time), pair by pair, under SCALES."""
    s = {name: float(value[0]) for name, value in vars(SCALES).items()}
    covariance = np.empty((len(cells), len(cells)))
    for (row, (i, t)), (column, (j, u)) in product(enumerate(cells), enumerate(cells)):
        distance = math.dist(trained.points[i], trained.points[j]) * math.sqrt(5) / s["length"]
        near = (1 + distance + distance**2 / 3) * math.exp(-distance)
        bends = t * (t - 1) / 2 * u * (u - 1) / 2
        value = curves.LEVEL_SD**2 + curves.SLOPE_SD**2 * t * u + curves.CURVATURE_SD**2 * bends
        crossed = s["correlation"] * s["level"] * s["slope"]
        value += near * (s["level"] ** 2 + crossed * (t + u) + s["slope"] ** 2 * t * u)
        value += near * s["curvature"] ** 2 * bends
        if i == j:
            value += s["own_level"] ** 2 + s["own_slope"] ** 2 * t * u
            value += s["own_curvature"] ** 2 * bends
        covariance[row, column] = value
    return covariance


def dense_run_covariance(trained: Trained) -> np.ndarray:
    cells = list(zip(trained.arms, trained.times, strict=True))
    decay = np.exp(SCALES.noise_decay * trained.rungs)
    common = (SCALES.common_noise * decay) ** 2 * (trained.seeds[:, None] == trained.seeds)
    images = trained.image_covariance[np.ix_(trained.cells.of_runs, trained.cells.of_runs)]
    noise = np.diag((SCALES.noise * decay) ** 2) + common + images
    return dense_covariance(trained, cells) + noise


def true_values(time: float) -> Values:
    """The five true curves at a time."""
    return Values(
        arms=np.arange(5),
        times=np.full(5, time),
        images=np.zeros((5, 15)),
        rungs=np.zeros(5, dtype=int),
        seeds=np.full(5, -1),
    )


@pytest.mark.parametrize("made", [runs, uneven])
def test_posterior_equals_the_dense_formula(made: Callable[[], Trained]) -> None:
    trained = with_image_noise(made(), common=0.03, own=0.02)
    n = len(trained.losses)
    # five true values, then what runs at the second rung would show: with seeds that others have
    # already, and with a new one that two of them share
    asked = replace(
        true_values(2.5),
        arms=np.array([0, 1, 2, 3, 4, 0, 1, 2, 3]),
        times=np.array([2.5] * 5 + [1.0] * 4),
        images=np.vstack([np.zeros((5, 15)), np.eye(15)[5:9]]),
        rungs=np.array([0] * 5 + [1] * 4),
        seeds=np.array([-1] * 5 + [100, 102, 150, 150]),
    )
    cells = [
        *zip(trained.arms, trained.times, strict=True),
        *zip(asked.arms, asked.times, strict=True),
    ]
    joint = dense_covariance(trained, cells)
    seeds = np.concatenate([trained.seeds, asked.seeds])
    rungs = np.concatenate([trained.rungs, asked.rungs])
    decay = np.exp(SCALES.noise_decay * rungs)
    joint += (SCALES.common_noise * decay) ** 2 * (
        (seeds[:, None] == seeds) & (rungs[:, None] == rungs) & (seeds >= 0)
    )
    shares = np.vstack([np.eye(15)[trained.cells.of_runs], asked.images])
    joint += shares @ trained.image_covariance @ shares.T
    joint[:n, :n] += np.diag((SCALES.noise * decay[:n]) ** 2)
    np.testing.assert_allclose(joint[:n, :n], dense_run_covariance(trained), rtol=1e-12)
    gain = joint[n:, :n] @ np.linalg.inv(joint[:n, :n])
    line = curves.prior_mean(trained, np.array([t for _, t in cells]))
    mean = line[n:] + gain @ (trained.losses - line[:n])
    covariance = joint[n:, n:] - gain @ joint[:n, n:]
    got_mean, got_covariance = Curves(scales=SCALES, trained=trained).posterior(asked)
    # inverting a matrix of condition 1e5
    np.testing.assert_allclose(got_mean[0], mean, atol=1e-9)
    np.testing.assert_allclose(got_covariance[0], covariance, atol=1e-9)


@pytest.mark.parametrize("made", [runs, uneven])
def test_likelihood_equals_the_dense_formula(made: Callable[[], Trained]) -> None:
    trained = with_image_noise(made(), common=0.03, own=0.02)
    other = replace(trained, losses=trained.losses + 0.1 * trained.points[trained.arms, 0])
    expected = [
        multivariate_normal.logpdf(
            each.losses, curves.prior_mean(each, each.times), dense_run_covariance(each)
        )
        for each in (trained, other)
    ]
    got = [log_likelihood(normal_of(SCALES), each)[0] for each in (trained, other)]
    constant = len(trained.losses) / 2 * math.log(2 * math.pi)
    assert got == pytest.approx([value + constant for value in expected], abs=1e-6)


def test_coordinates_and_scales_are_inverse() -> None:
    normal = np.random.default_rng(0).standard_normal((6, NUMBER_OF_SCALES))
    np.testing.assert_allclose(normal_of(scales_of(normal)), normal, atol=1e-12)


def test_lines_without_noise_are_recovered() -> None:
    trained = runs(repetitions=2, noise=0.0)
    truth = trained.losses[trained.times == 2][:5]
    draws = forecast(trained).draws(2.0, count=4096, seed=0)
    # the prior holds the noise above 1e-3
    np.testing.assert_allclose(draws.mean(axis=0), truth, atol=0.004)
    # levels, slopes and the common bend go on as they are
    beyond = np.array([0.0, 0.1, -0.1, 0.05, 0.02]) + 3 * np.array([0.0, -0.05, 0.06, 0.0, 0.01])
    later = forecast(trained).draws(3.0, count=4096, seed=0).mean(axis=0)
    np.testing.assert_allclose(later, -0.8 - 0.9 + 0.09 + beyond, atol=0.02)


def test_the_noise_of_replicates_is_seen() -> None:
    known = forecast(runs(repetitions=6, noise=0.04))
    # 75 degrees of freedom know a standard deviation to 8 %
    assert known.sigma(0) == pytest.approx(0.04, rel=0.25)


def test_more_replicates_narrow() -> None:
    once, often = forecast(runs()), forecast(runs(repetitions=6))
    assert spread_of_difference(often) < 0.7 * spread_of_difference(once)


def test_replicates_do_not_take_away_the_noise_of_the_images() -> None:
    known = forecast(with_image_noise(runs(repetitions=8), common=0.0, own=0.02))
    without = forecast(runs(repetitions=8))
    assert spread_of_difference(without) < 0.012
    # two architectures, each off by 0.02, of which neighbours tell a little
    assert spread_of_difference(known) > 0.02


def test_image_noise_common_to_all_moves_no_difference() -> None:
    alone = forecast(with_image_noise(runs(), common=0.0, own=0.01))
    shared = forecast(with_image_noise(runs(), common=0.2, own=0.01))
    before, after = (k.draws(2.0, count=4096, seed=0) for k in (alone, shared))
    before, after = (d - d.mean(axis=1, keepdims=True) for d in (before, after))
    # a thousandth of what divides candidates; the prior of the common level is wide, not flat
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(after.std(axis=0), before.std(axis=0), atol=1e-3)


def test_the_unit_of_the_loss_changes_nothing() -> None:
    trained = runs()
    doubled = replace(trained, losses=trained.losses + math.log(2))
    before, after = (forecast(t).draws(2.0, count=256, seed=0) for t in (trained, doubled))
    np.testing.assert_allclose(after, before + math.log(2), atol=1e-6)


def test_a_seed_that_all_have_in_common_moves_no_difference() -> None:
    # what seed 0 does to all runs of a rung alike drops out between runs that have it
    noisy = replace(SCALES, common_noise=np.array([0.3]))
    alike = runs(rungs=1)
    others = replace(alike, seeds=np.arange(5))

    def spread(trained: Trained, scales: Scales) -> float:
        images = np.zeros((5, len(trained.cells.arms)))
        values = replace(true_values(0.0), images=images)
        _, covariance = Curves(scales=scales, trained=trained).posterior(values)
        return float(np.sqrt(np.array([1, -1]) @ covariance[0, 3:, 3:] @ np.array([1, -1])))

    assert spread(alike, noisy) == pytest.approx(spread(alike, SCALES), rel=0.01)
    assert spread(others, noisy) > 1.5 * spread(others, SCALES)


def test_common_noise_and_bent_curves_are_learnt_from_runs() -> None:
    trained = runs(repetitions=4, noise=0.01)
    random = np.random.default_rng(2)
    moved = 0.05 * random.standard_normal(4)[trained.seeds % 100]
    bent = 0.2 * trained.points[trained.arms, 0] * curves.bend(trained.times)
    plain = scales_of(forecast(trained).normal_scales)
    shared = scales_of(forecast(replace(trained, losses=trained.losses + moved)).normal_scales)
    curved = scales_of(forecast(replace(trained, losses=trained.losses + bent)).normal_scales)
    assert np.median(plain.common_noise) < 0.01 < 0.02 < np.median(shared.common_noise)
    assert np.median(shared.noise) < 0.02
    assert np.median(curved.curvature) > 1.5 * np.median(plain.curvature)


def test_the_same_runs_in_any_order_give_the_same_draws() -> None:
    trained = with_image_noise(runs(), common=0.03, own=0.02)
    order = np.random.default_rng(1).permutation(len(trained.losses))
    shuffled = Trained(
        points=trained.points,
        arms=trained.arms[order],
        times=trained.times[order],
        rungs=trained.rungs[order],
        seeds=trained.seeds[order],
        losses=trained.losses[order],
        image_covariance=trained.image_covariance,
    )
    first = forecast(trained, seed=3).draws(2.0, count=100, seed=7)
    assert np.array_equal(first, forecast(shuffled, seed=3).draws(2.0, count=100, seed=7))
    assert not np.array_equal(first, forecast(trained, seed=4).draws(2.0, count=100, seed=7))


def test_rounding_moves_no_draw_by_more_than_rounding() -> None:
    # three directions have one variance, so eigenvectors may be any that span them
    alike = np.eye(4) + 0.5
    noise = np.random.default_rng(0).standard_normal((4, 4))
    root, moved = square_root(alike), square_root(alike + 1e-14 * (noise + noise.T))
    np.testing.assert_allclose(root @ root.T, alike, atol=1e-14)
    np.testing.assert_allclose(moved, root, atol=1e-13)


def test_a_forecast_widens_beyond_what_was_trained() -> None:
    known = forecast(runs(rungs=2))
    widths = [known.draws(t, count=4096, seed=0).std(axis=0).mean() for t in (1.0, 2.0, 3.0)]
    assert widths == sorted(widths)
    assert widths[2] > 2 * widths[0]


@pytest.mark.parametrize("factor", [0.1, 5.0])
def test_losses_far_from_the_prior_still_have_a_forecast(factor: float) -> None:
    trained = runs(repetitions=2)
    known = forecast(replace(trained, losses=factor * trained.losses))
    draws = known.draws(2.0, count=1024, seed=0)
    assert known.effective_samples > 100
    # 15 values with noises of 0.02 times the factor, and of the prior's least
    error = np.abs(draws.mean(axis=0) - factor * trained.losses[2:15:3]).max()
    assert error < 0.06 * factor + 0.02


def test_mismatched_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="not all of 15 runs"):
        replace(runs(), rungs=np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="not of 15 cells"):
        replace(runs(), image_covariance=np.zeros((45, 45)))
    with pytest.raises(ValueError, match="several times"):
        replace(runs(), times=np.linspace(0, 1, 15))
    with pytest.raises(ValueError, match="not a finite number"):
        replace(runs(), losses=np.full(15, np.nan))


def test_sampling_finds_a_posterior_that_is_known() -> None:
    measured, noise = np.array([2.0, -1.0, 0.0]), np.array([0.05, 0.5, 2.0])
    draws, effective_samples = sample(
        lambda z: -(((z - measured) / noise) ** 2).sum(axis=1) / 2,
        dimensions=3,
        count=2000,
        seed=0,
    )
    variance = 1 / (1 + 1 / noise**2)
    # some 300 effective draws know a mean to 0.06 standard deviations
    assert effective_samples > 200
    error = (draws.mean(axis=0) - measured / noise**2 * variance) / np.sqrt(variance)
    assert np.abs(error).max() < 0.2
    np.testing.assert_allclose(draws.std(axis=0), np.sqrt(variance), rtol=0.1)
