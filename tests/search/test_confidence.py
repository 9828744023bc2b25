"""The stated probability of being the best is how often the chosen candidate is the best."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from cmtscale.search.confidence import measure, probability_of_best

FloatArray = npt.NDArray[np.float64]

CANDIDATES, IMAGES = 14, 300
TRUTHS = ("normal", "one better", "one worse", "uniform", "ties")
SCENARIOS = list(product(TRUTHS, (0.0, 1.0), (2, 3, 5), (0.5, 1.0, 3.0)))


def true_losses(kind: str, random: np.random.Generator) -> FloatArray:
    """Losses of the candidates in units of their spread; the outliers lie six spreads away."""
    losses = random.standard_normal(CANDIDATES)
    if kind == "one better":
        losses[0] = -6
    elif kind == "one worse":
        losses[0] = 6
    elif kind == "uniform":
        losses = random.uniform(-(3**0.5), 3**0.5, CANDIDATES)
    elif kind == "ties":  # six within a twentieth of the spread, at a random level
        losses[:6] = losses[0] + 0.05 * random.standard_normal(6)
    return losses


def search(truths: FloatArray, split_noise: float, seeds: int, random: np.random.Generator):
    """Losses (seeds, images) of each candidate; the noise of a run is 1, half of it from images.

    Images differ in difficulty (gamma: most are easy). Each candidate does better or worse on an
    image by an exponential law, the same for all seeds, and by a normal one for each seed.
    """
    difficulty = random.gamma(0.5, size=IMAGES)
    scale = difficulty * (IMAGES / 0.75) ** 0.5  # the mean over images then has variance 1
    shape = (CANDIDATES, seeds, IMAGES)
    own = (random.exponential(size=(CANDIDATES, 1, IMAGES)) - 1) * scale * split_noise
    churn = random.standard_normal(shape) * scale * 0.5**0.5
    training = random.standard_normal((CANDIDATES, seeds, 1)) * 0.5**0.5
    return list(truths[:, None, None] + difficulty + own + churn + training)


def stated_and_right(
    scenarios: list[tuple[str, float, int, float]], searches: int, seed: int
) -> Iterator[tuple[tuple[str, float, int, float], float, float]]:
    """Scenario, stated probability of the chosen candidate, and 1 if it is the best, 0 if not."""
    random = np.random.default_rng(seed)
    for scenario, number in product(scenarios, range(searches)):
        kind, split_noise, seeds, spread = scenario
        truths = spread * true_losses(kind, random)
        image_losses = search(truths, split_noise, seeds, random)
        chosen = int(np.argmin([losses.mean() for losses in image_losses]))
        probabilities = probability_of_best(image_losses, seed=number, chains=8)
        assert probabilities is not None
        yield scenario, float(probabilities[chosen]), float(chosen == truths.argmin())


def test_the_probability_is_how_often_the_chosen_one_is_the_best() -> None:
    results = list(stated_and_right(SCENARIOS, searches=8, seed=0))
    groups = defaultdict(list)
    for (kind, split_noise, seeds, spread), stated, right in results:
        for group in (kind, split_noise, seeds, spread, (kind, split_noise), "all"):
            groups[str(group)].append((stated, right))
    for group, pairs in groups.items():
        stated, right = np.array(pairs).T
        # standard error of the share that is right, if the stated probabilities are correct
        error = np.sqrt((stated * (1 - stated)).sum()) / len(stated)
        excess = stated.mean() - right.mean()
        # the true losses may have another distribution than the model assumes: up to 5 points
        assert excess < 0.05 + 2 * error, f"{group}: {stated.mean():.3f} of {right.mean():.3f}"
        if group == "all":
            # over all of them at most 3 points, plus two standard errors of 720 searches
            assert abs(excess) < 0.03 + 2 * error


def far_apart(gap: float, images: int = 200) -> list[FloatArray]:
    """Three candidates of two seeds, `gap` apart, whose runs differ by about 0.1."""
    random = np.random.default_rng(3)
    return [
        gap * number + 0.1 * random.standard_normal((2, 1)) + random.gamma(1, 0.1, (2, images))
        for number in range(3)
    ]


def test_one_seed_each_measures_no_noise() -> None:
    assert probability_of_best([losses[:1] for losses in far_apart(1.0)], seed=0) is None


def test_one_candidate_with_two_seeds_is_enough() -> None:
    first, *others = far_apart(1.0)
    probabilities = probability_of_best([first, *(losses[:1] for losses in others)], seed=0)
    assert probabilities is not None
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.argmax() == 0


def test_a_candidate_far_ahead_is_the_best() -> None:
    probabilities = probability_of_best(far_apart(30.0), seed=0)
    assert probabilities is not None
    assert probabilities[0] > 0.99


def test_the_only_candidate_is_the_best() -> None:
    assert probability_of_best(far_apart(1.0)[:1], seed=0) == pytest.approx([1.0])


def test_equal_candidates_share_the_probability() -> None:
    image_losses = [np.tile([[0.1, 0.4], [0.3, 0.6]], (1, 50))] * 4
    probabilities = probability_of_best(image_losses, seed=0)
    # 12,800 correlated draws: two probabilities differ by some 0.01
    assert probabilities == pytest.approx([0.25] * 4, abs=0.04)


def test_runs_that_agree_to_the_bit_leave_no_doubt() -> None:
    image_losses = [np.full((2, 50), 1.0), np.full((2, 50), 2.0)]
    assert probability_of_best(image_losses, seed=0) == pytest.approx([1.0, 0.0])


def test_the_same_seed_gives_the_same_answer_in_any_unit() -> None:
    image_losses = far_apart(0.1)
    first = probability_of_best(image_losses, seed=5)
    again = probability_of_best([7 + 1000 * losses for losses in image_losses], seed=5)
    assert first == pytest.approx(again, abs=0.02)  # rounding may change a step of a chain
    assert np.array_equal(first, probability_of_best(image_losses, seed=5))


def test_what_images_do_to_all_candidates_changes_nothing() -> None:
    image_losses = far_apart(0.1)
    difficulty = np.random.default_rng(0).gamma(0.5, 5.0, 200)
    before = measure(image_losses)
    after = measure([losses + difficulty for losses in image_losses])
    np.testing.assert_allclose(
        after.split_root @ after.split_root.T, before.split_root @ before.split_root.T, atol=1e-12
    )
    assert after.squares == pytest.approx(before.squares)


def test_more_seeds_do_not_take_away_the_noise_of_the_images() -> None:
    random = np.random.default_rng(0)
    split, seeds_only = [], []
    for _ in range(50):
        truths = np.zeros(CANDIDATES)
        split.append((measure(search(truths, 1.0, 5, random)).split_root ** 2).sum())
        seeds_only.append((measure(search(truths, 0.0, 5, random)).split_root ** 2).sum())
    # 13: one of the 14 directions is the common mean. 300 skewed images estimate a variance to
    # about 15 %, 50 searches to 2 %; without split noise the estimate is small but positive
    assert np.mean(split) == pytest.approx(CANDIDATES - 1, rel=0.1)
    assert np.mean(seeds_only) < 0.05 * (CANDIDATES - 1)


def test_candidates_on_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="use one split"):
        probability_of_best([np.ones((2, 10)), np.ones((2, 11))], seed=0)
