"""A candidate's score: means over its complete runs; other runs are counted with their causes."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmtscale.record.result import SCORING
from cmtscale.record.scores import current, leader, rankings, scores


def test_means_and_sample_standard_deviations_over_the_complete_seeds(make_row):
    values = [(0.5, 0.80, 600.0, 1.1), (0.7, 0.70, 500.0, 1.3), (0.6, 0.78, 640.0, 1.0)]
    rows = [
        make_row(seed=s, val_loss=loss, val_accuracy=a, images_per_second=i, temperature=t)
        for s, (loss, a, i, t) in enumerate(values)
    ]
    (score,) = scores([*rows, make_row(seed=3, status="failed", cause="killed")])
    losses, accuracies, speeds, temperatures = zip(*values, strict=True)
    assert score.seeds == (0, 1, 2)
    assert score.loss == pytest.approx(statistics.mean(losses), rel=1e-12)
    assert score.loss_sd == pytest.approx(statistics.stdev(losses), rel=1e-12)
    assert score.accuracy == pytest.approx(statistics.mean(accuracies), rel=1e-12)
    assert score.accuracy_sd == pytest.approx(statistics.stdev(accuracies), rel=1e-12)
    assert score.images_per_second == pytest.approx(statistics.mean(speeds), rel=1e-12)
    assert score.temperature == pytest.approx(statistics.mean(temperatures), rel=1e-12)
    assert score.may_win


@settings(deadline=None)
@given(losses=st.lists(st.floats(0, 20), min_size=2, max_size=6))
def test_loss_and_spread_are_those_of_the_statistics_module(losses, make_row):
    (score,) = scores([make_row(seed=seed, val_loss=loss) for seed, loss in enumerate(losses)])
    assert score.loss == pytest.approx(statistics.mean(losses), rel=1e-9, abs=1e-12)
    assert score.loss_sd == pytest.approx(statistics.stdev(losses), rel=1e-6, abs=1e-9)


def test_one_seed_has_its_values_and_no_spread(make_row):
    row = make_row(val_loss=0.1 + 0.2)
    (score,) = scores([row])
    assert (score.loss, score.accuracy) == (0.1 + 0.2, row.val_accuracy)
    assert (score.loss_sd, score.accuracy_sd) == (None, None)
    assert (score.candidate, score.role, score.on_budget) == (row.candidate, "grid", True)


def test_runs_that_did_not_end_well_are_counted_with_each_cause_once(make_row):
    ends = [
        ("complete", ""),
        ("diverged", "not finite"),
        ("failed", "killed"),
        ("failed", "killed"),
        ("infeasible", "memory"),
    ]
    rows = [make_row(seed=seed, status=s, cause=c) for seed, (s, c) in enumerate(ends)]
    (score,) = scores(rows)
    assert (score.seeds, score.diverged, score.failed, score.infeasible) == ((0,), 1, 2, 1)
    assert score.causes == ("not finite", "killed", "memory")
    assert score.loss == rows[0].val_loss


def test_without_a_complete_run_there_is_no_score_not_a_zero(make_row):
    (score,) = scores([make_row(status="failed", cause="killed")])
    values = (score.loss, score.loss_sd, score.accuracy, score.accuracy_sd)
    assert values == (None, None, None, None)
    assert (score.images_per_second, score.temperature, score.seeds) == (None, None, ())
    assert not score.may_win


@pytest.mark.parametrize(
    ("others", "on_budget", "may_win"),
    [
        ([], True, True),
        ([], False, False),
        (["failed"], True, True),
        (["diverged"], True, False),
        (["failed", "diverged"], True, False),
        (["infeasible"], True, False),
        (["failed"], False, False),
    ],
)
def test_who_may_win(others, on_budget, may_win, make_row):
    ends = ["complete", *others]
    rows = [make_row(seed=s, status=end, on_budget=on_budget) for s, end in enumerate(ends)]
    (score,) = scores(rows)
    assert score.may_win is may_win


@settings(deadline=None)
@given(order=st.permutations(range(6)))
def test_candidates_stand_in_the_order_they_were_asked_for_and_seeds_in_theirs(order, make_row):
    rows = [
        make_row(candidate=name, asked=n, seed=s) for n, name in enumerate("zab") for s in (0, 1)
    ]
    ordered = scores([rows[index] for index in order])
    assert [score.candidate for score in ordered] == ["z", "a", "b"]
    assert [score.seeds for score in ordered] == [(0, 1)] * 3


def test_only_rows_of_the_horizon_that_were_scored_as_today_are_current(make_row):
    ours = make_row(epochs=3, train_images=500)
    failed = make_row(epochs=3, train_images=500, seed=1, status="failed", cause="killed")
    others = [
        make_row(epochs=3, train_images=501),
        make_row(epochs=500, train_images=3),
        make_row(epochs=1, train_images=1500),  # as many images, but another schedule
        make_row(epochs=3, train_images=500, seed=2, scoring=SCORING - 1),
    ]
    assert current([*others, failed, ours], (3, 500)) == [failed, ours]
    assert current(others, (3, 500)) == []


def test_what_diverged_at_any_length_stands_last_of_all(make_row):
    lengths = [{"epochs": 1, "train_images": 10}, {"epochs": 3, "train_images": 10}]
    rows = [
        make_row(candidate="best", val_loss=0.5, **lengths[0]),
        make_row(candidate="gone", status="failed", cause="killed", **lengths[0]),
        make_row(candidate="half", val_loss=0.1, **lengths[0]),
        make_row(candidate="half", seed=1, status="diverged", cause="step 3", **lengths[0]),
        make_row(candidate="later", val_loss=0.2, **lengths[0]),
        make_row(candidate="later", seed=1, status="diverged", cause="step 9", **lengths[1]),
        make_row(candidate="wild", status="diverged", cause="step 3", **lengths[0]),
    ]
    first, second = rankings(rows, [(1, 10), (3, 10)])
    assert [score.candidate for score in first] == ["best", "gone", "half", "later", "wild"]
    assert [score.diverged for score in first] == [0, 0, 1, 1, 1]
    assert [(score.candidate, score.loss) for score in second] == [("later", None)]
    best = leader(first)
    assert best is not None
    assert best.candidate == "best"
    assert leader(first[2:]) is None
