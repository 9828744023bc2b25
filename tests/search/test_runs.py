"""The runs of a ladder before the forecast decides: the first rung, its noise, and the anchors."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cmtscale.data.dataset import Description
from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate, grid
from cmtscale.search.evidence import gather
from cmtscale.search.ladder import PRESETS, Ladder
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.runs import (
    RungRun,
    anchors,
    ended_rows,
    first_rung,
    fixed_runs,
    next_seed,
    run_id,
)
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings


def settings_of(trials: int = 6, ladder: Ladder = PRESETS["standard"], seeds: int = 1) -> Settings:
    request = SearchRequest(
        budget_macs=4_000_000_000,
        data="folder:/images",
        proxy_macs=14_427_200,
        trials=trials,
        ladder=ladder,
        seeds=seeds,
    )
    return resolve(
        request, Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000)
    )


def at_rung(runs: list[RungRun], rung: int) -> list[RungRun]:
    return [run for run in runs if run.rung == rung]


@pytest.fixture(scope="module")
def candidates() -> list[Candidate]:
    return grid(settings_of())


def test_a_run_is_named_by_candidate_length_and_seed() -> None:
    settings = settings_of()
    for rung, length in enumerate(("1x6000", "1x18000", "1x54000")):
        run = RungRun(candidate="d1.1.4.1-w22-r64", rung=rung, seed=7)
        assert run_id(settings, run) == f"d1.1.4.1-w22-r64-{length}-s7"


def test_anchors_are_the_corners_and_the_mixture_nearest_the_centre(
    candidates: list[Candidate],
) -> None:
    named = {anchor.name: anchor for anchor in anchors(candidates)}
    assert [anchor.role for anchor in named.values()] == [
        "depth",
        "width",
        "resolution",
        "compound",
    ]
    *_, centre = named.values()

    def distance(candidate: Candidate) -> float:
        shares = candidate.shares
        parts = np.array([shares.depth, shares.width, shares.resolution])
        return float(((parts - 1 / 3) ** 2).sum())

    mixed = [candidate for candidate in candidates if candidate.role == "compound"]
    assert distance(centre) == min(map(distance, mixed))


def test_a_grid_of_corners_alone_has_no_centre(candidates: list[Candidate]) -> None:
    corners = [c for c in candidates if c.role in ("base", "depth", "width", "resolution")]
    assert [anchor.role for anchor in anchors(corners)] == ["depth", "width", "resolution"]
    assert anchors([]) == []


def test_every_candidate_has_one_seed_before_any_has_the_next(candidates: list[Candidate]) -> None:
    runs = first_rung(settings_of(seeds=2), candidates)
    names = [candidate.name for candidate in candidates]
    assert [run.candidate for run in runs] == names * 2
    assert [run.seed for run in runs] == [0] * len(names) + [1] * len(names)
    assert {run.rung for run in runs} == {0}


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("degrees", [0, 3, 10, 21])
def test_anchors_are_repeated_until_the_noise_has_its_degrees_of_freedom(
    candidates: list[Candidate], make_row: Callable[..., Row], seeds: int, degrees: int
) -> None:
    settings = settings_of(seeds=seeds, ladder=Ladder(rungs=1, noise_degrees=degrees))
    runs = fixed_runs(settings, candidates)
    rows = [row_of(make_row, settings, candidates, run) for run in runs]
    drawn = np.random.default_rng(0)
    evidence = gather(
        settings, rows, {r.run_id: np.float16(drawn.uniform(size=9)) for r in rows}, NOT_TIMED
    )
    eligible_repeats = (seeds - 1) * (len(candidates) - 1)  # the base is not among the arms
    assert evidence.degrees == max(degrees, eligible_repeats)
    counts = Counter(run.candidate for run in runs)
    extra = {name: count - seeds for name, count in counts.items() if count > seeds}
    steady = [anchor.name for anchor in anchors(candidates)]
    assert extra.keys() <= set(steady)
    spread = [extra.get(name, 0) for name in steady]
    assert max(spread) - min(spread) <= 1  # in turns
    assert len(set(runs)) == len(runs)


def row_of(
    make_row: Callable[..., Row], settings: Settings, candidates: list[Candidate], run: RungRun
) -> Row:
    (candidate,) = [c for c in candidates if c.name == run.candidate]
    epochs, train_images = settings.horizons[run.rung]
    return make_row(
        candidate=run.candidate,
        role=candidate.role,
        seed=run.seed,
        epochs=epochs,
        train_images=train_images,
        dims=candidate.real.dims,
        depths=candidate.real.depths,
        resolution_px=candidate.real.resolution_px,
        proxy_dims=candidate.trained.dims,
        proxy_depths=candidate.trained.depths,
        proxy_resolution_px=candidate.trained.resolution_px,
    )


@pytest.mark.parametrize("rungs", [2, 3, 4])
def test_later_rungs_have_the_anchors_alone_each_with_a_seed_of_its_rung(
    candidates: list[Candidate], rungs: int
) -> None:
    runs = fixed_runs(settings_of(ladder=Ladder(rungs=rungs), seeds=2), candidates)
    steady = [anchor.name for anchor in anchors(candidates)]
    assert {run.candidate for run in at_rung(runs, 0)} == {c.name for c in candidates}
    for rung in range(1, rungs):
        later = at_rung(runs, rung)
        assert [run.candidate for run in later] == steady
        assert {run.seed for run in later} == {100 * rung}
    order = [run.rung for run in runs if run.rung]
    assert order == sorted(order, reverse=True)  # the longest first, to end together


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": 12},
        {"ladder": Ladder(rungs=4)},
        {"ladder": Ladder(noise_degrees=20)},
        {"trials": 9, "ladder": Ladder(rungs=5, noise_degrees=30)},
    ],
    ids=["trials", "rungs", "degrees", "all"],
)
def test_a_search_that_asks_for_more_has_all_that_it_asked_for_before(
    changes: dict[str, Any],
) -> None:
    before, after = settings_of(), settings_of(**changes)
    had = {run_id(before, run) for run in fixed_runs(before, grid(before))}
    has = {run_id(after, run) for run in fixed_runs(after, grid(after))}
    assert had < has


def test_more_seeds_for_all_take_the_place_of_repeated_anchors() -> None:
    before, after = settings_of(), settings_of(seeds=3)
    had = {run_id(before, run) for run in fixed_runs(before, grid(before))}
    has = {run_id(after, run) for run in fixed_runs(after, grid(after))}
    assert {run_id(after, run) for run in first_rung(after, grid(after))} < has
    new_seeds = {name for name in had - has if name.endswith("-s3")}
    assert had - has == new_seeds  # they stay in the record: see test_decide


def test_the_next_seed_is_the_first_that_no_run_at_the_rung_has() -> None:
    runs = [
        RungRun(candidate="a", rung=0, seed=0),
        RungRun(candidate="a", rung=0, seed=1),
        RungRun(candidate="b", rung=0, seed=5),
        RungRun(candidate="a", rung=2, seed=200),
    ]
    assert [next_seed(runs, "a", rung) for rung in range(3)] == [2, 100, 201]
    assert [next_seed(runs, name, 0) for name in ("b", "c")] == [6, 0]


def test_what_failed_or_is_on_no_rung_has_not_ended(make_row: Callable[..., Row]) -> None:
    settings = settings_of(ladder=PRESETS["quick"])
    lengths = [{"epochs": 1, "train_images": images} for images in (6_000, 18_000, 54_000, 12_800)]
    rows = [make_row(seed=seed, **length) for seed, length in enumerate(lengths)]
    diverged = make_row(seed=9, status="diverged", **lengths[0])
    infeasible = make_row(seed=10, status="infeasible", **lengths[0])
    failed = make_row(seed=8, status="failed", **lengths[0])
    older = replace(make_row(seed=7, **lengths[0]), scoring=0)
    ended = ended_rows(settings, [*rows, diverged, infeasible, failed, older])
    assert set(ended.values()) == {rows[0], rows[1], diverged, infeasible}
