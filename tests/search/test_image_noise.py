"""The noise of the validation images, measured from the losses of single images."""

import numpy as np
import pytest

from cmtscale.search.cells import numbered
from cmtscale.search.image_noise import image_covariance

IMAGES, ARMS = 400, 8


def image_losses(random: np.random.Generator, arms: np.ndarray, churn: float) -> np.ndarray:
    """(n, images): few images are hard; each architecture has its own luck with each of them.

    The mean loss is near 1. Over draws of images it varies by 0.1 for all alike, by 0.04 for each
    architecture, and by 0.04 `churn` for each run.
    """
    difficulty = random.gamma(0.25, 4, IMAGES)  # mean 1, standard deviation 2
    scale = difficulty / 5**0.5  # mean square 1
    own = 0.8 * random.standard_normal((ARMS, IMAGES)) * scale
    run = 0.8 * churn * random.standard_normal((len(arms), IMAGES)) * scale
    return difficulty + own[arms] + run


def covariance_of(losses: np.ndarray, arms: np.ndarray, rungs: np.ndarray) -> np.ndarray:
    """(n, n): of runs, each as its cell's."""
    covariance = image_covariance(losses, losses.mean(axis=1), arms=arms, rungs=rungs)
    _, cells = numbered(rungs, arms)
    return covariance[np.ix_(cells, cells)]


def contrast(covariance: np.ndarray, first: int, second: int) -> float:
    """The variance of the difference of two runs."""
    both = covariance[first, first] + covariance[second, second]
    return float(both - 2 * covariance[first, second])


@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_differences_have_the_variance_that_new_images_give_them(churn: float) -> None:
    random = np.random.default_rng(0)
    arms = np.array([*range(ARMS), 0, 1, 2, 3, 0, 1, 2])
    rungs = np.zeros_like(arms)
    covariances = [covariance_of(image_losses(random, arms, churn), arms, rungs) for _ in range(60)]
    expected = 2 * 0.8**2 / IMAGES
    # 60 means of estimates that hard images make uncertain by a third each
    for pair in ((0, 1), (5, 6), (0, 7)):
        mean = np.mean([contrast(c, *pair) for c in covariances])
        assert mean == pytest.approx(expected, rel=0.25)


def test_what_rounding_moved_the_means_by_is_taken_back() -> None:
    arms, rungs = np.array([*range(ARMS), 0]), np.zeros(ARMS + 1, dtype=int)
    losses = image_losses(np.random.default_rng(1), arms, churn=1.0)
    means = losses.mean(axis=1)
    moved = losses + np.linspace(-0.1, 0.1, ARMS + 1)[:, None]
    expected = image_covariance(losses, means, arms=arms, rungs=rungs)
    assert expected.diagonal().min() > 1e-4
    np.testing.assert_allclose(
        image_covariance(moved, means, arms=arms, rungs=rungs), expected, rtol=1e-9, atol=1e-15
    )


def test_what_images_do_to_all_of_a_rung_alike_is_left_out() -> None:
    arms = np.array([*range(ARMS), 0])
    losses = image_losses(np.random.default_rng(2), arms, churn=0.5)
    losses /= losses.mean(axis=1, keepdims=True)
    more = losses + np.random.default_rng(3).gamma(0.2, 5, IMAGES) - 1
    more -= more.mean(axis=1, keepdims=True) - 1  # the means as before
    rungs = np.zeros_like(arms)
    before = covariance_of(losses, arms, rungs)
    after = covariance_of(more, arms, rungs)
    for pair in ((0, 1), (2, 5), (8, 7)):
        assert contrast(after, *pair) == pytest.approx(contrast(before, *pair), rel=1e-9)
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-15)


def test_it_is_a_covariance_of_relative_losses() -> None:
    arms, rungs = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0])
    losses = image_losses(np.random.default_rng(4), arms, churn=0.5)
    covariance = covariance_of(losses, arms, rungs)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12
    scaled = losses * np.array([1, 2, 3, 4, 5])[:, None]
    np.testing.assert_allclose(covariance_of(scaled, arms, rungs), covariance, atol=1e-12)


def test_one_architecture_of_a_rung_differs_from_none() -> None:
    losses = image_losses(np.random.default_rng(5), np.array([0, 0, 1]), churn=0.0)
    covariance = covariance_of(losses, np.array([0, 0, 1]), np.array([0, 1, 0]))
    assert np.all(covariance[1] == 0)  # alone at its rung
    assert contrast(covariance, 0, 2) > 0
    alone = covariance_of(losses[:1], np.array([0]), np.array([0]))
    assert alone == pytest.approx(np.zeros((1, 1)))


def test_runs_that_agree_to_the_bit_have_no_noise_between_them() -> None:
    losses = np.tile(np.random.default_rng(6).gamma(0.25, 4, IMAGES), (4, 1))
    arms = np.array([0, 1, 0, 1])
    covariance = covariance_of(losses, arms, np.zeros_like(arms))
    assert contrast(covariance, 0, 1) == pytest.approx(0, abs=1e-12)
