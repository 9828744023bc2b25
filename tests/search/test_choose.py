"""The choice: lowest mean on the budget, with noise measured between seeds."""

import math
import random
from typing import Any

import numpy as np
import pytest

from cmtscale.search.choose import choose, pooled_sigma, scores


def runs(candidate: str, *losses: float | None, on_budget: bool = True) -> list[dict[str, Any]]:
    """One row per loss; None is a run that diverged."""
    return [
        {
            "candidate": candidate,
            "role": "compound",
            "status": "diverged" if loss is None else "complete",
            "val_loss": loss,
            "val_accuracy": None if loss is None else 1 - loss / 10,
            "images_per_second": None if loss is None else 100.0,
            "on_budget": on_budget,
            "seed": seed,
        }
        for seed, loss in enumerate(losses)
    ]


def test_the_lowest_mean_loss_wins_not_the_lowest_run() -> None:
    found = choose([*runs("c00", 1.0, 1.9), *runs("c01", 1.3, 1.4), *runs("c02", 1.6, 1.6)])
    assert found is not None
    assert found.winner == "c01"
    assert [score.candidate for score in found.ranking] == ["c01", "c00", "c02"]
    assert [score.loss for score in found.ranking] == pytest.approx([1.35, 1.45, 1.6])
    assert found.ranking[0].accuracy == pytest.approx(1 - 0.135)


def test_what_is_off_the_budget_is_ranked_but_cannot_win() -> None:
    rows = [*runs("c00", 0.1, on_budget=False), *runs("c01", 0.5), *runs("c02", 0.6)]
    found = choose(rows)
    assert found is not None
    assert found.winner == "c01"
    assert found.ranking[0].candidate == "c00"
    assert not found.ranking[0].may_win


def test_what_is_off_the_budget_does_not_make_the_winner_less_sure() -> None:
    rows = [*runs("c01", 0.5, 0.51), *runs("c02", 0.9, 0.91)]
    alone, beside = choose(rows), choose([*rows, *runs("c00", 0.1, 0.11, on_budget=False)])
    assert alone is not None
    assert beside is not None
    assert beside.probability >= alone.probability  # its seeds say more of the noise
    assert beside.ties == alone.ties


def test_the_noise_of_a_run_is_pooled_over_candidates() -> None:
    # squares about the means 1.1 and 2.2: 0.02 and 0.08, on 1 + 2 degrees of freedom
    rows = [*runs("c00", 1.0, 1.2), *runs("c01", 2.0, 2.2, 2.4), *runs("c02", 5.0)]
    sigma, degrees = pooled_sigma(rows)
    assert degrees == 3
    assert sigma == pytest.approx(math.sqrt(0.10 / 3))


def test_one_seed_each_measures_no_noise() -> None:
    found = choose([*runs("c00", 1.0), *runs("c01", 2.0)])
    assert found is not None
    assert (found.sigma, found.degrees, found.probability, found.ties) == (None, 0, None, ())


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_the_probability_is_how_often_the_winner_is_the_best(spread: float) -> None:
    random_ = np.random.default_rng(0)
    claimed, right = [], []
    for _ in range(400):
        truth = 5 + spread * random_.standard_normal(14)
        measured = truth[:, None] + random_.standard_normal((14, 2))
        found = choose([row for n, m in enumerate(measured) for row in runs(f"c{n:02d}", *m)])
        assert found is not None
        claimed.append(found.probability)
        right.append(found.winner == f"c{truth.argmin():02d}")
    # 3 standard errors of the share that is right
    assert np.mean(claimed) == pytest.approx(np.mean(right), abs=3 * 0.5 / math.sqrt(400))


def test_runs_that_agree_to_the_bit_leave_no_doubt() -> None:
    found = choose([*runs("c00", 1.0, 1.0), *runs("c01", 2.0, 2.0)])
    assert found is not None
    assert (found.sigma, found.probability, found.ties) == (0.0, 1.0, ())


@pytest.mark.parametrize("count", [2, 5])
def test_equal_candidates_share_the_probability_and_tie(count: int) -> None:
    rows = [row for number in range(count) for row in runs(f"c{number:02d}", 1.0, 1.1)]
    found = choose(rows)
    assert found is not None
    assert found.probability == pytest.approx(1 / count, abs=0.012)
    assert found.winner == "c00"
    assert found.ties == tuple(f"c{number:02d}" for number in range(1, count))


def test_a_winner_far_ahead_is_sure_and_has_no_ties() -> None:
    found = choose([*runs("c00", 1.0, 1.01), *runs("c01", 2.0, 2.01), *runs("c02", 3.0, 3.01)])
    assert found is not None
    assert found.probability is not None
    assert found.probability > 0.999
    assert found.ties == ()


def test_ties_lie_within_two_standard_errors_of_the_difference() -> None:
    # every mean of two has the error 0.1 / sqrt(2) * sqrt(2) / sqrt(2) = 0.0707 -> 2 se = 0.2
    rows = [row for m in (1.0, 1.19, 1.21) for row in runs(f"c{m}", m - HALF, m + HALF)]
    found = choose(rows)
    assert found is not None
    assert found.sigma == pytest.approx(0.1)
    assert found.ties == ("c1.19",)


HALF = 0.1 / math.sqrt(2)  # two runs at m ± HALF have the standard deviation 0.1


def test_a_candidate_that_diverged_with_some_seed_is_ranked_but_cannot_win() -> None:
    rows = [*runs("c00", None, 0.5), *runs("c01", 0.4, 0.7), *runs("c02", None, None)]
    found = choose(rows)
    assert found is not None
    assert found.winner == "c01"
    assert [(score.candidate, score.runs) for score in scores(rows)] == [("c00", 1), ("c01", 2)]
    assert [score.may_win for score in found.ranking] == [False, True]
    assert found.ranking[0].spread is None
    assert found.degrees == 1


@pytest.mark.parametrize(
    "rows",
    [[], runs("c00", None, None), runs("c00", 0.5, on_budget=False)],
    ids=["no rows", "all diverged", "off budget"],
)
def test_there_is_no_choice_where_nothing_on_the_budget_is_complete(rows: list[Any]) -> None:
    assert choose(rows) is None


def test_the_choice_does_not_depend_on_the_order_of_rows() -> None:
    rows = [row for number in range(6) for row in runs(f"c{number}", number / 50, 0.1)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert choose(shuffled) == choose(rows)
