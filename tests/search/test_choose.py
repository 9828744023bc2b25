"""The choice: the lowest mean loss at the budget, with noise between seeds, or no choice."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cmtscale.record.losses import Losses
from cmtscale.record.row import Row
from cmtscale.search import choose as choose_module
from cmtscale.search.choose import Choice, Guess, choose, pooled_sigma, rank

GUESS = Guess(accuracy=0.1, val_images=1000)
Runs = Callable[..., list[Row]]


@pytest.fixture
def runs(make_row: Callable[..., Row]) -> Runs:
    """One row per loss; None is a run that diverged."""

    def make(candidate: str, *losses: float | None, **changes: Any) -> list[Row]:
        return [
            make_row(
                candidate=candidate,
                role="compound",
                seed=seed,
                status="diverged" if loss is None else "complete",
                val_loss=loss,
                val_accuracy=None if loss is None else 1 - loss / 10,
                **changes,
            )
            for seed, loss in enumerate(losses)
        ]

    return make


def images_of(rows: list[Row], *, noise: float = 0.0, images: int = 400) -> dict[str, Losses]:
    """Losses per image; their mean is the loss of the run."""
    drawn = np.random.default_rng(0)
    losses = {}
    for row in rows:
        if row.val_loss is not None:
            deviations = noise * drawn.standard_normal(images)
            losses[row.run_id] = (row.val_loss + deviations - deviations.mean()).astype(np.float16)
    return losses


def chosen(rows: list[Row], guess: Guess = GUESS) -> Choice:
    choice = choose(rows, images_of(rows), guess)
    assert choice is not None
    return choice


def test_the_lowest_mean_loss_wins_not_the_lowest_run(runs: Runs) -> None:
    choice = chosen([*runs("c00", 1.0, 1.9), *runs("c01", 1.3, 1.4), *runs("c02", 1.6, 1.6)])
    assert choice.winner == "c01"
    assert [score.candidate for score in choice.ranking] == ["c01", "c00", "c02"]
    assert [score.loss for score in choice.ranking] == pytest.approx([1.35, 1.45, 1.6])
    assert choice.best.accuracy == pytest.approx(1 - 0.135)


def test_what_is_off_the_budget_is_ranked_but_cannot_win(runs: Runs) -> None:
    choice = chosen([*runs("c00", 0.1, on_budget=False), *runs("c01", 0.5), *runs("c02", 0.6)])
    assert choice.winner == "c01"
    assert choice.ranking[0].candidate == "c00"
    assert not choice.ranking[0].may_win


def test_what_is_off_the_budget_is_not_compared(runs: Runs) -> None:
    rows = [*runs("c01", 0.5, 0.51), *runs("c02", 0.9, 0.91)]
    alone, beside = chosen(rows), chosen([*rows, *runs("c00", 0.1, 0.11, on_budget=False)])
    assert beside.probability == alone.probability
    assert beside.ties == alone.ties


def test_the_noise_of_a_run_is_pooled_over_candidates(runs: Runs) -> None:
    # squares about the means 1.1 and 2.2: 0.02 and 0.08, on 1 + 2 degrees of freedom
    rows = [*runs("c00", 1.0, 1.2), *runs("c01", 2.0, 2.2, 2.4), *runs("c02", 5.0)]
    sigma, degrees = pooled_sigma(rank(rows))
    assert degrees == 3
    assert sigma == pytest.approx(math.sqrt(0.10 / 3))


def test_one_seed_each_measures_no_noise(runs: Runs) -> None:
    choice = chosen([*runs("c00", 1.0), *runs("c01", 2.0)])
    assert (choice.sigma, choice.degrees, choice.probability, choice.ties) == (None, 0, None, ())
    assert choice.verdict == "choice"


def test_without_the_losses_of_the_images_there_is_no_probability(runs: Runs) -> None:
    rows = [*runs("c00", 1.0, 1.1), *runs("c01", 1.2, 1.3)]
    losses = images_of(rows)
    assert chosen(rows).probability is not None
    del losses[rows[3].run_id]
    choice = choose(rows, losses, GUESS)
    assert choice is not None
    assert choice.probability is None
    assert choice.sigma is not None


@pytest.mark.parametrize("count", [2, 5])
def test_equal_candidates_tie_and_are_no_choice(runs: Runs, count: int) -> None:
    rows = [row for number in range(count) for row in runs(f"c{number:02d}", 1.0, 1.1)]
    choice = chosen(rows)
    assert choice.probability == pytest.approx(1 / count, abs=0.04)
    assert choice.winner == "c00"
    assert choice.ties == tuple(f"c{number:02d}" for number in range(1, count))


def test_a_probability_no_better_than_chance_is_no_choice(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for number in range(4) for row in runs(f"c{number:02d}", 1.0, 1.1)]
    for probability, verdict in ((0.25, "no choice can be made"), (0.26, "choice")):
        monkeypatch.setattr(
            choose_module, "probability_of_best", lambda *_, p=probability, **__: np.full(4, p)
        )
        choice = chosen(rows)
        assert choice.verdict == verdict
        assert ("by lot" in choice.reason) == (verdict != "choice")


def test_a_winner_far_ahead_is_sure_and_has_no_ties(runs: Runs) -> None:
    choice = chosen([*runs("c00", 1.0, 1.01), *runs("c01", 2.0, 2.01), *runs("c02", 3.0, 3.01)])
    assert choice.probability is not None
    assert choice.probability > 0.99
    assert (choice.ties, choice.verdict, choice.reason) == ((), "choice", "")


def test_ties_lie_within_two_standard_errors_of_the_difference(runs: Runs) -> None:
    # every mean of two has the error 0.1 / sqrt(2) * sqrt(2) / sqrt(2) = 0.0707 -> 2 se = 0.2
    rows = [row for m in (1.0, 1.19, 1.21) for row in runs(f"c{m}", m - HALF, m + HALF)]
    choice = chosen(rows)
    assert choice.sigma == pytest.approx(0.1)
    assert choice.ties == ("c1.19",)


HALF = 0.1 / math.sqrt(2)  # two runs at m ± HALF have the standard deviation 0.1


def test_a_candidate_that_diverged_with_some_seed_is_ranked_but_cannot_win(runs: Runs) -> None:
    rows = [*runs("c00", None, 0.5), *runs("c01", 0.4, 0.7), *runs("c02", None, None)]
    choice = chosen(rows)
    assert choice.winner == "c01"
    assert [(s.candidate, len(s.seeds), s.diverged) for s in choice.ranking] == [
        ("c00", 1, 1),
        ("c01", 2, 0),
        ("c02", 0, 2),
    ]
    assert [score.may_win for score in choice.ranking] == [False, True, False]
    assert choice.ranking[0].loss_sd is None
    assert choice.degrees == 1


def test_there_is_no_choice_where_nothing_on_the_budget_is_complete(runs: Runs) -> None:
    for rows in ([], runs("c00", None, None), runs("c00", 0.5, on_budget=False)):
        assert choose(rows, images_of(rows), GUESS) is None


def test_the_choice_does_not_depend_on_the_order_of_rows(runs: Runs) -> None:
    rows = [row for number in range(6) for row in runs(f"c{number}", number / 50, 0.1)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert chosen(sorted(shuffled, key=lambda row: row.sort_key)) == chosen(rows)


def test_a_winner_no_better_than_guessing_has_learned_nothing(runs: Runs) -> None:
    rows = [*runs("c00", 1.0, 1.01), *runs("c01", 2.0, 2.01)]
    accuracy = chosen(rows).best.accuracy
    assert accuracy is not None
    error = math.sqrt(accuracy * (1 - accuracy) / 1000)
    assert chosen(rows, Guess(accuracy=accuracy - 3 * error, val_images=1000)).verdict == "choice"
    for guess in (accuracy, accuracy - error):
        choice = chosen(rows, Guess(accuracy=guess, val_images=1000))
        assert choice.verdict == "nothing learned yet"
        assert f"(the commonest class alone: {100 * guess:.2f} %)" in choice.reason


@pytest.mark.parametrize(
    ("temperature", "verdict"),
    [
        (49.0, "nothing learned yet"),
        (21.0, "nothing learned yet"),
        (19.0, "choice"),
        (0.06, "choice"),
        (0.03, "no choice can be made"),
    ],
)
def test_a_fitted_temperature_near_its_bound_is_no_choice(
    runs: Runs, temperature: float, verdict: str
) -> None:
    rows = [*runs("c00", 1.0, 1.01, temperature=temperature), *runs("c01", 2.0, 2.01)]
    choice = chosen(rows)
    assert choice.verdict == verdict
