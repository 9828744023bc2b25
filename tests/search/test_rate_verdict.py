"""What made-up and measured losses at three learning rates say."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmtscale.record.rate_check import RateCheck
from cmtscale.record.row import Row
from cmtscale.search.candidates import grid
from cmtscale.search.rate_verdict import FACTORS, judge, noise_alone
from cmtscale.search.settings import Settings

Losses = Mapping[str, Sequence[Sequence[float]]]  # by role, of each rate the seeds'; nan: none
Judge = Callable[..., RateCheck]
MEASURED = Path(__file__).parents[2] / "results" / "learning-rate" / "learning_rate.csv"
NEAR = [-0.01, 0.01]


@pytest.fixture
def judged(tiny_settings: Settings, make_row: Callable[..., Row]) -> Judge:
    """A function: the verdict on `Losses`."""
    (epochs, train_images), *_ = tiny_settings.horizons
    some = grid(tiny_settings)[0]

    def run(losses: Losses, status: str = "diverged") -> RateCheck:
        networks = [replace(some, name=f"a-{role}", role=role) for role in losses]
        sides, rows = {}, []
        for number, factor in enumerate(FACTORS):
            recipe = replace(tiny_settings.recipe, lr=factor * tiny_settings.recipe.lr)
            sides[factor] = replace(tiny_settings, recipe=recipe)
            rows.append(
                [
                    make_row(
                        candidate=f"a-{role}",
                        seed=seed,
                        epochs=epochs,
                        train_images=train_images,
                        **({"status": status} if math.isnan(loss) else {"val_loss": loss}),
                    )
                    for role, own in losses.items()
                    for seed, loss in enumerate(own[number])
                ]
            )
        seeds = max(len(cell) for own in losses.values() for cell in own)
        return judge(tiny_settings, networks, sides, rows, rung=0, seeds=seeds)

    return run


def losses(**means: Sequence[float]) -> Losses:
    """Two seeds a percent to each side of every mean: σ is √2 %, of a difference of means too."""
    return {role: [[mean * math.exp(e) for e in NEAR] for mean in own] for role, own in
            means.items()}  # fmt: skip


def test_the_measured_rates_serve_all_as_the_folder_of_results_says(judged: Judge) -> None:
    table: dict[str, dict[float, list[float]]] = {}
    with MEASURED.open(newline="") as file:
        for row in csv.DictReader(file):
            factor = float(row["lr"]) / 2e-3
            rates = table.setdefault(row["candidate"], {})
            rates.setdefault(factor, []).append(float(row["val_loss"]))
    check = judged({name: [rates[factor] for factor in FACTORS] for name, rates in table.items()})
    assert check.verdict == "one rate serves all"
    assert check.swaps == ()
    assert check.regret == 0
    assert check.degrees == 12
    lowest = {anchor.role: anchor.lowest for anchor in check.anchors}
    assert lowest == {
        "d1.1.4.1-w22-r64": 2.0,
        "d1.1.7.2-w12-r96": 1.0,
        "d1.1.4.1-w8-r160": 1.0,
        "d9.9.36.9-w8-r64": 2.0,
    }


def test_losses_that_rise_to_both_sides_serve_all(judged: Judge) -> None:
    check = judged(losses(width=(0.50, 0.45, 0.50), depth=(0.70, 0.65, 0.75)))
    assert check.verdict == "one rate serves all"
    assert (check.wanting, check.swaps, check.regret) == ((), (), 0)
    assert check.noise == pytest.approx(math.sqrt(2) * 0.01)
    assert check.degrees == 6
    line = check.line("a-width", 2.0)
    assert (line.loss, line.change) == pytest.approx((0.50, math.log(0.50 / 0.45)))
    # two means of two seeds each
    assert line.error == pytest.approx(check.noise)
    own = check.line("a-width", 1.0)
    assert (own.lr, own.change, own.error) == (2e-3, None, None)


def test_a_network_that_is_better_elsewhere_by_more_than_the_noise_wants_it(judged: Judge) -> None:
    check = judged(losses(width=(0.50, 0.45, 0.50), depth=(0.56, 0.50, 0.44)))
    assert check.verdict == "another rate is wanted"
    (depth,) = check.wanting
    assert (depth.role, depth.wants, depth.lowest) == ("depth", 2.0, 2.0)
    assert depth.hidden == pytest.approx(math.log(0.50 / 0.44) + 2 * math.sqrt(2) * 0.01)
    (swap,) = check.swaps
    assert (swap.factor, swap.first, swap.second) == (2.0, "depth", "width")
    assert not swap.by_noise
    assert check.regret == pytest.approx(0.45 / 0.44 - 1)
    assert check.may_lose is not None
    assert check.may_lose > check.regret


def test_less_than_two_standard_errors_is_no_wish_and_close_networks_cannot_be_told(
    judged: Judge,
) -> None:
    check = judged(losses(width=(0.50, 0.450, 0.50), depth=(0.56, 0.455, 0.444)))
    assert check.verdict == "cannot be told"
    assert check.wanting == ()
    assert check.anchors[1].lowest == 2.0
    assert check.swaps[0].by_noise is False  # width lost a tenth there, whatever depth did
    assert check.may_lose is not None
    assert check.may_lose > check.tolerance


def test_one_seed_tells_nothing(judged: Judge) -> None:
    check = judged({"width": [[0.5], [0.45], [0.5]], "depth": [[0.7], [0.65], [0.1]]})
    assert (check.verdict, check.noise, check.alone) == ("cannot be told", None, None)
    assert check.swaps[0].by_noise
    assert (check.regret, check.may_lose) == (pytest.approx(3.5), None)


@pytest.mark.parametrize("status", ["diverged", "infeasible"])
def test_a_seed_that_is_not_sound_counts_for_its_network_at_that_rate(
    judged: Judge, status: str
) -> None:
    spoilt = dict(losses(width=(0.50, 0.45, 0.50), depth=(0.70, 0.65, 0.64)))
    spoilt["depth"] = [*spoilt["depth"][:2], [0.3, math.nan]]
    check = judged(spoilt, status)
    assert check.verdict == "one rate serves all"
    assert check.anchors[1].lowest == 1.0
    line = check.line("a-depth", 2.0)
    assert (line.loss, line.seeds, getattr(line, status), line.is_sound) == (None, 1, 1, False)
    assert line.diverged + line.infeasible == 1
    spoilt["depth"] = [spoilt["depth"][0], [math.nan, math.nan], [math.nan, math.nan]]
    check = judged(spoilt, status)
    (depth,) = check.wanting
    assert (depth.wants, depth.hidden) == (0.5, None)


def test_runs_that_are_missing_leave_the_verdict_open(judged: Judge) -> None:
    gone = dict(losses(width=(0.50, 0.45, 0.50), depth=(0.70, 0.65, 0.70)))
    gone["depth"] = [*gone["depth"][:2], []]
    check = judged(gone)
    assert (check.verdict, check.regret, check.may_lose) == ("cannot be told", None, None)


def test_noise_alone_makes_the_best_of_three_better_by_what_is_known_for_it() -> None:
    # the mean of the largest of three standard normal numbers is 0.8463
    alone = noise_alone(np.array([0.0]), 0.01, 10_000)
    assert alone is not None
    assert alone.gain == pytest.approx(0.008463, rel=0.03)
    assert alone.regret == 0
    # either of two correlated differences lies two standard errors below: between 2.3 and 4.6 %
    assert 0.023 < alone.chance < 0.046
    far = noise_alone(np.array([0.0, 1.0]), 0.01, 12)
    near = noise_alone(np.array([0.0, 0.0]), 0.01, 12)
    assert far is not None
    assert near is not None
    assert far.regret == 0 < near.regret
