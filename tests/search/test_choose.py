"""The answer: which candidates are as good as the best at the target, how sure, and which one."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmtscale.arch.cost import cost
from cmtscale.data.dataset import DataRef, Description
from cmtscale.record.losses import Losses
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate, grid
from cmtscale.search.choose import Choice, Guess, choose
from cmtscale.search.evidence import gather
from cmtscale.search.ladder import PRESETS, Ladder, seed_of
from cmtscale.search.recording import job_of, make_row
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.runs import RungRun
from cmtscale.search.samplers import Asked
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings

GUESS = Guess(accuracy=0.1, val_images=1000)
# Candidates of the grid below; params and activations are of the real networks.
BASE = "d1.1.4.1-w8-r64"
DEPTH = "d9.9.36.9-w8-r64"  # 35.8 M params, 35.5 M activations
WIDTH = "d1.1.4.1-w22-r64"  # 37.0 M params, 22.0 M activations
RESOLUTION = "d1.1.4.1-w8-r160"  # off the budget
CENTRE = "d1.1.7.2-w12-r96"  # 24.3 M params, 29.8 M activations
FINE = "d2.1.7.2-w8-r128"  # 20.7 M params, 36.4 M activations
WIDE = "d2.1.6.2-w18-r64"  # 35.9 M params, 24.5 M activations
AT_REST = {DEPTH: 1.5, FINE: 1.6, WIDE: 1.7}
Runs = Mapping[str, float | list[float | None]]


@pytest.fixture(scope="module")
def settings() -> Settings:
    """One rung of 6,000 images; 1 % is as good as the best."""
    request = SearchRequest(
        budget_macs=4_000_000_000,
        data="folder:/images",
        proxy_macs=14_427_200,
        trials=6,
        ladder=PRESETS["flat"],
        prefer="params",
    )
    return resolve(
        request, Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000)
    )


@pytest.fixture(scope="module")
def named(settings: Settings) -> dict[str, Candidate]:
    return {candidate.name: candidate for candidate in grid(settings)}


@pytest.fixture(scope="module")
def make_rows(settings: Settings, named: dict[str, Candidate]) -> Callable[..., list[Row]]:
    """Rows of a rung; a number stands for four seeds about it, None for a run that diverged."""

    def make(runs: Runs, *, rung: int = 0, rungs: int = 1, **result: Any) -> list[Row]:
        climbing = replace(settings, ladder=Ladder(rungs=rungs))
        rows = []
        for number, (name, losses) in enumerate(runs.items()):
            if not isinstance(losses, list):
                losses = [losses * (1 + part) for part in (-0.003, 0.001, -0.001, 0.003)]
            for replicate, loss in enumerate(losses):
                candidate = named[name]
                run = RungRun(candidate=name, rung=rung, seed=seed_of(rung, replicate))
                data = DataRef(path=Path("x"), content_hash="x")
                job = job_of(climbing, Path("x"), data, candidate, run)
                ended = {
                    "status": "diverged" if loss is None else "complete",
                    "val_loss": loss,
                    "val_accuracy": None if loss is None else 1 - loss / 10,
                    "temperature": 1.0,
                    **result,
                }
                asked = Asked(candidate=candidate, number=number, after=0, by="grid")
                rows.append(make_row(asked, job.run, RunResult(**ended)))
        return rows

    return make


def images_of(rows: list[Row], *, images: int = 400) -> dict[str, Losses]:
    """Losses per image: some are hard for all, a few for one candidate."""
    drawn = np.random.default_rng(0)
    hard = 0.1 * drawn.standard_normal(images)
    own = {row.candidate: 0.02 * drawn.standard_normal(images) for row in rows}
    losses = {}
    for row in rows:
        if row.val_loss is not None:
            deviations = hard + own[row.candidate]
            per_image = row.val_loss * (1 + deviations - deviations.mean())
            losses[row.run_id] = per_image.astype(np.float16)
    return losses


def chosen(
    settings: Settings,
    rows: list[Row],
    guess: Guess | None = GUESS,
    latencies: Mapping[str, float] | None = None,
    losses: dict[str, Losses] | None = None,
) -> Choice:
    choice = answered(settings, rows, guess, latencies, losses)
    assert choice is not None
    return choice


def answered(
    settings: Settings,
    rows: list[Row],
    guess: Guess | None = GUESS,
    latencies: Mapping[str, float] | None = None,
    losses: dict[str, Losses] | None = None,
) -> Choice | None:
    evidence = gather(settings, rows, images_of(rows) if losses is None else losses, NOT_TIMED)
    seconds = np.ones((len(evidence.arms), settings.ladder.rungs))
    return choose(evidence, rows, guess, seconds=seconds, latencies=latencies or {})


# --- the verdict


def test_a_candidate_far_ahead_is_clear_and_alone(settings: Settings, make_rows: Any) -> None:
    choice = chosen(settings, make_rows({WIDTH: 1.0, CENTRE: 1.3} | AT_REST))
    assert (choice.taken, choice.verdict, choice.near) == (WIDTH, "clear", (WIDTH,))
    assert choice.probability is not None
    assert choice.probability > 0.99
    assert (choice.reason, choice.more, choice.more_seconds) == ("", (), 0.0)
    names = [standing.candidate for standing in choice.standings]
    assert names[:2] == [WIDTH, CENTRE]
    assert choice.standing.loss is not None
    assert choice.standing.loss.low < 1.0 < choice.standing.loss.high
    assert choice.standing.loss.median == pytest.approx(1.0, rel=0.02)


def test_candidates_within_the_tolerance_of_each_other_tie(
    settings: Settings, make_rows: Any
) -> None:
    choice = chosen(settings, make_rows({WIDTH: 1.0, CENTRE: 1.001} | AT_REST))
    assert choice.verdict == "tie"
    assert set(choice.near) == {WIDTH, CENTRE}
    assert all(s.near is not None for s in choice.standings)
    near = {s.candidate: s.near for s in choice.standings}
    assert min(near[WIDTH], near[CENTRE]) >= 0.8
    assert near[DEPTH] < 0.01
    assert choice.probability == near[choice.taken]


def test_a_larger_tolerance_takes_more_in(settings: Settings, make_rows: Any) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: 1.05} | AT_REST)
    assert chosen(settings, rows).near == (WIDTH,)
    generous = chosen(replace(settings, tolerance=0.1), rows)
    assert set(generous.near) == {WIDTH, CENTRE}
    assert generous.taken == CENTRE  # for its parameters


def test_where_nobody_is_probably_near_the_best_it_is_undecided_and_says_what_would_decide(
    settings: Settings, make_rows: Any
) -> None:
    noisy: Runs = {WIDTH: [1.0, 1.12], CENTRE: [1.12, 1.0], DEPTH: [1.0, 1.12]}
    rows = make_rows(noisy)
    choice = chosen(settings, rows)
    assert choice.verdict == "undecided"
    assert choice.near == (choice.taken,)
    assert choice.probability is not None
    assert choice.probability < 0.8
    assert choice.reason == ""
    assert choice.more is None or len(choice.more) == choice.more_seconds > 0
    easier = chosen(replace(settings, tolerance=0.04), rows)
    assert easier.verdict == "undecided"
    assert easier.more
    assert len(easier.more) == easier.more_seconds  # a second each
    existing = {(row.candidate, row.seed) for row in rows}
    assert not existing & {(run.candidate, run.seed) for run in easier.more}
    assert {run.candidate for run in easier.more} <= {WIDTH, CENTRE, DEPTH}


def test_a_single_eligible_candidate_is_sure(settings: Settings, make_rows: Any) -> None:
    choice = chosen(settings, make_rows({WIDTH: 2.0, RESOLUTION: 1.0, BASE: 0.5}))
    assert (choice.taken, choice.verdict, choice.probability) == (WIDTH, "clear", 1.0)
    assert choice.noise is not None
    assert choice.noise.images is choice.noise.forecast is None  # of a difference of two


def test_there_is_no_choice_where_nothing_on_the_budget_is_complete(
    settings: Settings, make_rows: Any
) -> None:
    for runs in ({}, {WIDTH: [None, None]}, {RESOLUTION: 0.5, BASE: 0.4}):
        assert answered(settings, make_rows(runs)) is None


def test_the_answer_does_not_depend_on_the_order_of_rows(
    settings: Settings, make_rows: Any
) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: [1.02, 1.0], RESOLUTION: 1.1} | AT_REST)
    shuffled = random.Random(1).sample(rows, len(rows))
    losses = images_of(rows)
    assert chosen(settings, shuffled, losses=losses) == chosen(settings, rows, losses=losses)


# --- who can be taken


def test_what_is_off_the_budget_is_described_but_cannot_be_taken(
    settings: Settings, make_rows: Any
) -> None:
    choice = chosen(settings, make_rows({RESOLUTION: 0.5, WIDTH: 1.0, CENTRE: 1.3} | AT_REST))
    assert choice.taken == WIDTH
    assert choice.probability is not None
    assert choice.probability > 0.99  # near the best of those that can be taken
    (off,) = [s for s in choice.standings if s.candidate == RESOLUTION]
    assert off.loss is not None
    assert off.loss.high < 0.6
    assert (off.near, off.best) == (0.0, 0.0)


def test_what_diverged_with_some_seed_cannot_be_taken(settings: Settings, make_rows: Any) -> None:
    runs: Runs = {DEPTH: [None, 0.5, 0.5], FINE: [None], WIDTH: 1.0, CENTRE: 1.3}
    choice = chosen(settings, make_rows(runs))
    assert choice.taken == WIDTH
    standings = {standing.candidate: standing for standing in choice.standings}
    assert (standings[DEPTH].runs, standings[DEPTH].score.diverged) == ((2,), 1)
    assert standings[DEPTH].near == 0.0
    assert (standings[FINE].runs, standings[FINE].loss, standings[FINE].near) == ((0,), None, None)
    assert choice.standings[-1].candidate == FINE


def test_what_does_not_fit_into_the_memory_cannot_be_taken(
    settings: Settings, make_rows: Any
) -> None:
    runs: Runs = {DEPTH: [None, 0.5, 0.5], FINE: [None], WIDTH: 1.0, CENTRE: 1.3}
    rows = [
        replace(row, status="infeasible") if row.status == "diverged" else row
        for row in make_rows(runs)
    ]
    choice = chosen(settings, rows)
    assert choice.taken == WIDTH
    standings = {standing.candidate: standing for standing in choice.standings}
    score = standings[DEPTH].score
    assert (score.infeasible, score.diverged, score.is_sound) == (1, 0, False)
    assert (standings[DEPTH].near, standings[DEPTH].may_win) == (0.0, False)
    assert (standings[FINE].runs, standings[FINE].loss) == ((0,), None)
    assert choice.standings[-1].candidate == FINE


def test_the_base_is_neither_taken_nor_forecast(settings: Settings, make_rows: Any) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: 1.3} | AT_REST)
    beside = chosen(settings, [*rows, *make_rows({BASE: 0.3})])
    alone = chosen(settings, rows)
    assert (beside.taken, beside.probability) == (alone.taken, alone.probability)
    (base,) = [s for s in beside.standings if s.candidate == BASE]
    assert (base.runs, base.loss, base.near, base.best) == ((4,), None, None, None)


# --- the second cost

TIE: Runs = {WIDTH: 1.0, CENTRE: 1.001, **AT_REST}


@pytest.mark.parametrize(
    ("prefer", "taken"),
    # both have 4 G MACs, which is equal: parameters decide
    [("params", CENTRE), ("activations", WIDTH), ("macs", CENTRE)],
)
def test_of_the_set_the_cheapest_is_taken(
    settings: Settings, make_rows: Any, named: Any, prefer: Any, taken: str
) -> None:
    choice = chosen(replace(settings, prefer=prefer), make_rows(TIE))
    assert set(choice.near) == {WIDTH, CENTRE}
    assert choice.taken == taken
    real = {name: cost(named[name].real) for name in choice.near}
    assert choice.costs == {name: getattr(real[name], prefer) for name in choice.near}


@pytest.mark.parametrize(
    ("ratio", "taken"), [(0.9, WIDTH), (0.96, CENTRE), (1.0, CENTRE), (1.04, CENTRE)]
)
def test_latencies_less_than_5_percent_apart_are_equal_and_params_decide(
    settings: Settings, make_rows: Any, named: Any, ratio: float, taken: str
) -> None:
    latencies = {named[CENTRE].real.name: 0.1, named[WIDTH].real.name: 0.1 * ratio}
    by_latency = replace(settings, prefer="latency")
    choice = chosen(by_latency, make_rows(TIE), latencies=latencies)
    assert choice.taken == taken
    assert choice.costs == {CENTRE: 0.1, WIDTH: 0.1 * ratio}


def test_while_a_latency_is_not_measured_the_most_probable_is_taken(
    settings: Settings, make_rows: Any, named: Any
) -> None:
    by_latency = replace(settings, prefer="latency")
    for latencies in ({}, {named[CENTRE].real.name: 0.1}):
        choice = chosen(by_latency, make_rows(TIE), latencies=latencies)
        assert choice.taken == choice.near[0] == choice.standings[0].candidate
        assert len(choice.costs) == len(latencies)


# --- the target


def test_the_answer_is_about_the_target(settings: Settings, make_rows: Any) -> None:
    climbing = replace(settings, ladder=Ladder(rungs=2), target_images=6_000)
    rows = [
        *make_rows({WIDTH: 1.0, DEPTH: 1.1} | {CENTRE: 1.4, FINE: 1.5}),
        *make_rows({WIDTH: 0.9, DEPTH: 0.8}, rung=1, rungs=2),
    ]
    early, late = chosen(climbing, rows), chosen(replace(climbing, target_images=18_000), rows)
    farther = chosen(replace(climbing, target_images=54_000), rows)
    assert (early.taken, early.target_images) == (WIDTH, 6_000)
    assert (late.taken, late.target_images) == (DEPTH, 18_000)
    assert (farther.taken, farther.target_images) == (DEPTH, 54_000)
    losses = [choice.standings[0].loss for choice in (early, late, farther)]
    assert [loss.median for loss in losses[:2] if loss] == pytest.approx([1.0, 0.8], rel=0.02)
    assert losses[2] is not None
    assert losses[2].median < 0.7
    widths = [loss.high / loss.low for loss in losses if loss]
    assert widths[2] > 1.2 * widths[1]  # beyond what was trained it is less sure


def test_a_standing_has_its_runs_at_each_rung_and_what_the_longest_reached(
    settings: Settings, make_rows: Any
) -> None:
    climbing = replace(settings, ladder=Ladder(rungs=2), target_images=18_000)
    rows = [
        *make_rows({WIDTH: 1.0, DEPTH: [1.1, 1.3]}),
        *make_rows({WIDTH: [0.9]}, rung=1, rungs=2),
    ]
    standings = {s.candidate: s for s in chosen(climbing, rows).standings}
    assert standings[WIDTH].runs == (4, 1)
    assert (standings[WIDTH].longest.loss, standings[WIDTH].longest_images) == (0.9, 18_000)
    assert standings[WIDTH].score.loss == pytest.approx(1.0)
    assert standings[DEPTH].runs == (2, 0)
    assert standings[DEPTH].longest.loss == pytest.approx(1.2)
    assert standings[DEPTH].longest_images == 6_000


# --- beside it


def test_beside_it_stand_the_paper_s_constants_each_axis_and_one_by_lot(
    settings: Settings, make_rows: Any
) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: 1.2, RESOLUTION: 1.1} | AT_REST)
    choice = chosen(settings, rows)
    compared = {comparison.name: comparison for comparison in choice.comparisons}
    assert list(compared) == [
        "the paper's constants",
        "depth only",
        "width only",
        "resolution only",
        "a candidate drawn by lot",
    ]
    zero = compared["width only"].excess
    assert (zero.low, zero.median, zero.high) == (0, 0, 0)
    assert compared["depth only"].excess.median == pytest.approx(0.5, abs=0.02)
    assert compared["resolution only"].excess.median == pytest.approx(0.1, abs=0.02)
    assert compared["depth only"].loss.median == pytest.approx(1.5, rel=0.02)
    lot = compared["a candidate drawn by lot"].excess
    assert -0.02 < lot.low < lot.median < lot.high < 0.75
    nobody_trained_them = compared["the paper's constants"].loss
    assert nobody_trained_them.low < 1.3 < nobody_trained_them.high
    trained = compared["resolution only"].loss
    assert nobody_trained_them.high / nobody_trained_them.low > 1.1 * trained.high / trained.low


def test_an_axis_that_was_not_trained_is_not_beside_it(settings: Settings, make_rows: Any) -> None:
    names = [c.name for c in chosen(settings, make_rows({WIDTH: 1.0, CENTRE: 1.2})).comparisons]
    assert names == ["the paper's constants", "width only", "a candidate drawn by lot"]


def test_the_paper_s_constants_are_the_candidate_that_stands_for_them(
    settings: Settings, make_rows: Any
) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: 1.2} | AT_REST)
    losses = images_of(rows)
    rows = [replace(row, role="paper") if row.candidate == CENTRE else row for row in rows]
    paper = chosen(settings, rows, losses=losses).comparisons[0]
    assert paper.name == "the paper's constants"
    assert paper.excess.median == pytest.approx(0.2, abs=0.02)


# --- its noise


def test_the_noise_is_stated_with_its_degrees_of_freedom(
    settings: Settings, make_rows: Any
) -> None:
    quiet, loud = (
        chosen(settings, make_rows({n: [m - d, m, m + d] for n, m in runs.items()}))
        for d in (0.002, 0.1)
        for runs in [{WIDTH: 1.0, CENTRE: 1.3, **AT_REST}]
    )
    for choice in (quiet, loud):
        assert choice.noise is not None
        assert choice.noise.degrees == 2 * 5
        assert len(choice.noise.seeds) == 1
        assert choice.noise.images is not None
        assert choice.noise.forecast is not None
        assert 0 < choice.noise.images < choice.noise.forecast
    assert quiet.noise is not None
    assert loud.noise is not None
    assert loud.noise.seeds[0] > 3 * quiet.noise.seeds[0]


def test_one_seed_each_measures_no_noise_and_decides_nothing(
    settings: Settings, make_rows: Any
) -> None:
    choice = chosen(settings, make_rows({RESOLUTION: [0.5], WIDTH: [1.0], CENTRE: [2.0]}))
    assert (choice.verdict, choice.taken, choice.near) == ("undecided", WIDTH, (WIDTH,))
    assert choice.reason == "one seed each measures no noise; add --seeds 2, or another --ladder"
    assert choice.probability is choice.noise is None
    assert (choice.comparisons, choice.more) == ((), ())
    assert [s.candidate for s in choice.standings] == [RESOLUTION, WIDTH, CENTRE]  # by their means
    assert all(s.loss is s.near is s.best is None for s in choice.standings)


def test_without_the_losses_of_the_images_nothing_is_decided_and_the_reason_says_why(
    settings: Settings, make_rows: Any
) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: 2.0})
    losses = images_of(rows)
    lost = rows[5].run_id
    del losses[lost]
    choice = chosen(settings, rows, losses=losses)
    assert (choice.verdict, choice.taken, choice.probability) == ("undecided", WIDTH, None)
    assert f"the losses of single images are gone of {lost}, so the noise" in choice.reason
    assert "restore val_losses.npz" in choice.reason


# --- nothing learned


def test_a_network_no_better_than_guessing_has_learned_nothing(
    settings: Settings, make_rows: Any
) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: 1.3} | AT_REST, val_accuracy=0.5)
    error = 0.5 / 1000**0.5
    below = Guess(accuracy=0.5 - 3 * error, val_images=1000)
    assert chosen(settings, rows, below).verdict == "clear"
    assert chosen(settings, rows, None).verdict == "clear"  # where it is not known
    for accuracy in (0.5, 0.5 - error):
        choice = chosen(settings, rows, Guess(accuracy=accuracy, val_images=1000))
        assert choice.verdict == "nothing learned yet"
        assert f"(the commonest class alone: {100 * accuracy:.2f} %)" in choice.reason


@pytest.mark.parametrize(
    ("temperature", "verdict"),
    [
        (49.0, "nothing learned yet"),
        (21.0, "nothing learned yet"),
        (19.0, "clear"),
        (0.06, "clear"),
        (0.03, "nothing learned yet"),
    ],
)
def test_a_fitted_temperature_near_its_bound_says_nothing_of_candidates(
    settings: Settings, make_rows: Any, temperature: float, verdict: str
) -> None:
    rows = make_rows({WIDTH: 1.0, CENTRE: 1.3} | AT_REST, temperature=temperature)
    choice = chosen(settings, rows)
    assert choice.verdict == verdict
    assert bool(choice.reason) == (verdict != "clear")
