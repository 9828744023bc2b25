"""How far two rankings agree: against scipy, published ranges, and rankings that are known."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from cmtscale.search.agreement import (
    agreement,
    noise_of,
    range_of_tau,
    spread_of,
    tau_of_noise,
)


def cells(means: list[float], noise: float, seeds: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [mean + noise * random.standard_normal(seeds) for mean in means]


def test_eight_networks_of_tau_seven_tenths_show_nearly_any_tau() -> None:
    low, high = range_of_tau(0.7, 8)
    assert (round(low, 2), round(high, 2)) == (0.29, 0.93)  # as computed for the project before
    low, high = range_of_tau(0.71, 20)
    assert (low, high) == pytest.approx((0.54, 0.85), abs=0.02)


def test_noise_alone_leaves_the_tau_that_is_known_for_it() -> None:
    # one noisy ranking against the truth, at noise over spread 0.5 and 1: .70 and .50
    assert tau_of_noise((1, 1), (0, 0.5), 100)[0] == pytest.approx(0.70, abs=0.01)
    assert tau_of_noise((1, 1), (0, 1), 100)[0] == pytest.approx(0.50, abs=0.01)
    assert tau_of_noise((1, 2), (0, 0), 8) == (1, 1, 1)


def test_tau_is_scipy_s_of_the_means_and_lies_in_its_interval() -> None:
    means = list(np.linspace(0, 0.3, 8))
    first, second = cells(means, 0.05, 2), cells(means, 0.05, 2, seed=1)
    found = agreement(first, second)
    assert found is not None
    expected = kendalltau([c.mean() for c in first], [c.mean() for c in second]).statistic
    assert found.tau == pytest.approx(expected)
    assert found.tau_interval[0] < found.tau < found.tau_interval[1]
    assert found.networks == 8


def test_opposite_rankings_have_an_interval_far_below_any_threshold() -> None:
    means = list(np.linspace(0, 1, 8))
    found = agreement(cells(means, 0.01, 2), cells(means[::-1], 0.01, 2))
    assert found is not None
    assert found.tau == pytest.approx(-1)
    assert found.tau_interval[1] < 0


def test_networks_without_runs_on_both_sides_do_not_count() -> None:
    first, second = cells([0, 1, 2, 3, 4], 0.1, 2), cells([0, 1, 2, 3, 4], 0.1, 2)
    first[2] = np.array([])
    found = agreement(first, second)
    assert found is not None
    assert found.networks == 4
    second[0] = np.array([])
    assert agreement(first, second) is None


def test_spread_without_noise_is_what_the_networks_differ_by() -> None:
    means = list(np.random.default_rng(0).standard_normal(400))
    measured = cells(means, 0.8, 2, seed=1)
    noise, degrees = noise_of(measured)
    spread, true_spread = spread_of(measured)
    assert degrees == 400
    assert noise == pytest.approx(0.8, rel=0.1)
    assert spread > true_spread
    assert true_spread == pytest.approx(np.std(means, ddof=1), rel=0.1)


def test_a_network_drawn_twice_is_no_disagreement() -> None:
    first, second = (cells([*range(8)], 0.01, 3, seed=seed) for seed in (0, 1))
    found = agreement(first, second)
    assert found is not None
    assert found.tau == pytest.approx(1)
    assert found.tau_interval == pytest.approx((1, 1))
