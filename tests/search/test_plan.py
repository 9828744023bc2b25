"""The plan of a search: which runs are certain, what they may cost, and how long that takes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import RequestError
from cmtscale.data.dataset import Dataset
from cmtscale.data.sources import open_source
from cmtscale.search.candidates import grid
from cmtscale.search.decide import Batch
from cmtscale.search.ladder import PRESETS, Ladder
from cmtscale.search.plan import Plan, make_plan
from cmtscale.search.runs import RungRun, run_id
from cmtscale.search.settings import Settings
from cmtscale.search.timings import Timings

# four candidates, the base among them; three anchors (there is no mixture)
BASE, DEPTH, WIDTH, RESOLUTION = (
    "d1.1.1.1-w4-r64",
    "d4.3.3.3-w4-r64",
    "d1.1.1.1-w6-r64",
    "d1.1.1.1-w4-r96",
)
# seconds of a run of 2 epochs of 64 images at 0.001 s per image; see test_timings
RUN = 2 * 0.001 * (64 + (270 + 64) / 3)


@pytest.fixture(scope="module")
def digits(cache_dir: Path) -> Dataset:
    return open_source("digits", cache_dir=cache_dir).pack(96)


@pytest.fixture
def plan_of(tmp_path: Path, digits: Dataset, fake_training_class: Any) -> Any:
    """A function: the plan for settings, of a folder that holds nothing."""

    def plan(
        settings: Settings,
        *,
        batches: Sequence[Batch] = (),
        timings: Timings = Timings(),  # noqa: B008
        rows: Sequence[Any] = (),
        workers: int = 1,
        dataset: Dataset = digits,
    ) -> Plan:
        executor = fake_training_class(devices=("cpu",) * workers)
        return make_plan(
            settings, tmp_path, dataset, rows, batches, timings, executor, lambda _: None
        )

    return plan


def test_a_flat_plan_has_every_candidate_once_per_seed(
    plan_of: Any, tiny_settings: Settings
) -> None:
    plan = plan_of(tiny_settings)
    assert [candidate.name for candidate in plan.candidates] == [BASE, DEPTH, WIDTH, RESOLUTION]
    assert (plan.runs, plan.runs_done) == (8, 0)
    assert not plan.decides
    assert plan.total_seconds == pytest.approx(8 * RUN)


def test_a_ladder_adds_the_anchors_and_what_decisions_may_spend(
    plan_of: Any, tiny_settings: Settings
) -> None:
    ladder = Ladder(rungs=2, noise_degrees=1, spend=0.9)
    plan = plan_of(replace(tiny_settings, seeds=1, ladder=ladder))
    # every candidate at the first rung, one of them again, three anchors at the second
    assert plan.runs == 4 + 1 + 3
    # 0.9 of three runs of the three that can be chosen at the last rung, which takes three times
    allowance = 0.9 * 3 * 3 * (3 * RUN)
    assert plan.decides
    assert plan.total_seconds == pytest.approx(allowance)
    little = plan_of(replace(tiny_settings, seeds=1, ladder=replace(ladder, spend=0.1)))
    assert not little.decides
    certain = (4 + 1) * RUN + 3 * 3 * RUN
    assert little.total_seconds == pytest.approx(certain)
    blind = plan_of(replace(tiny_settings, seeds=1, ladder=replace(ladder, noise_degrees=0)))
    assert not blind.decides  # without noise nothing is forecast


def test_images_packed_for_smaller_networks_are_refused_where_they_have_more_pixels(
    plan_of: Any, tiny_settings: Settings, digits: Dataset
) -> None:
    packed_px = digits.images.shape[1]
    assert packed_px < 96  # the digits, which have no more
    plan_of(tiny_settings)
    plan_of(tiny_settings, dataset=replace(digits, native_px=packed_px))
    with pytest.raises(RequestError, match=f"packed at {packed_px} px, .* these reach 96 px"):
        plan_of(tiny_settings, dataset=replace(digits, native_px=500))


def test_workers_share_the_time_but_not_a_run(plan_of: Any, tiny_settings: Settings) -> None:
    settings = replace(tiny_settings, seeds=1, ladder=PRESETS["quick"])
    alone, two, many = (plan_of(settings, workers=workers) for workers in (1, 2, 500))
    assert two.total_seconds == pytest.approx(alone.total_seconds / 2)
    assert many.total_seconds == pytest.approx(3 * RUN)


def test_runs_decided_before_are_certain(plan_of: Any, tiny_settings: Settings) -> None:
    settings = replace(tiny_settings, seeds=1, ladder=Ladder(rungs=2, noise_degrees=0, spend=0))
    batch = (RungRun(candidate=WIDTH, rung=1, seed=101), RungRun(candidate=DEPTH, rung=0, seed=1))
    without, decided = plan_of(settings), plan_of(settings, batches=[batch])
    assert decided.runs == without.runs + 2
    assert decided.total_seconds == pytest.approx(without.total_seconds + RUN + 3 * RUN)


def test_what_was_decided_is_planned_for_candidates_that_are_still_there(
    plan_of: Any, tiny_settings: Settings
) -> None:
    batch = (RungRun(candidate="gone", rung=0, seed=2), RungRun(candidate=DEPTH, rung=0, seed=2))
    assert plan_of(tiny_settings, batches=[batch]).runs == 8 + 1


def test_runs_that_ended_are_done_and_say_what_their_network_takes(
    plan_of: Any, tiny_settings: Settings, make_row: Any
) -> None:
    (width,) = [c for c in grid(tiny_settings) if c.name == WIDTH]
    ended = RungRun(candidate=WIDTH, rung=0, seed=1)
    row = make_row(
        run_id=run_id(tiny_settings, ended),
        candidate=WIDTH,
        role="width",
        seed=1,
        epochs=2,
        train_images=64,
        seconds=5 * RUN,
        dims=width.real.dims,
        depths=width.real.depths,
        resolution_px=width.real.resolution_px,
        proxy_dims=width.trained.dims,
        proxy_depths=width.trained.depths,
        proxy_resolution_px=width.trained.resolution_px,
    )
    plan = plan_of(tiny_settings, rows=[row])
    assert (plan.runs, plan.runs_done) == (8, 1)
    assert plan.total_seconds == pytest.approx(6 * RUN + 5 * RUN)


def test_networks_with_a_time_are_not_timed_for_the_plan(
    plan_of: Any, tiny_settings: Settings
) -> None:
    slow = dict.fromkeys([BASE, DEPTH, WIDTH, RESOLUTION], 0.01)
    plan = plan_of(tiny_settings, timings=Timings(device="cpu", seconds_per_image=slow))
    assert plan.timings.seconds_per_image == slow
    assert plan.total_seconds == pytest.approx(8 * 10 * RUN)
    elsewhere = plan_of(tiny_settings, timings=Timings(device="cuda", seconds_per_image=slow))
    assert elsewhere.total_seconds == pytest.approx(8 * RUN)  # another device takes other times


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_where_a_sampler_asks_the_plan_counts_what_it_may_come_to(
    plan_of: Any, tiny_settings: Settings, sampler: Any
) -> None:
    settings = replace(tiny_settings, sampler=sampler, seeds=2)  # two networks are on the budget
    plan = plan_of(settings)
    assert plan.candidates == ()
    base = settings.trained_base.name  # from slow to fast, not all that may be asked for
    assert set(plan.timings.seconds_per_image) == {base, DEPTH, WIDTH, RESOLUTION}
    assert (plan.runs, plan.total_seconds) == (2 * 2, pytest.approx(4 * RUN))
    climbing = plan_of(replace(settings, ladder=Ladder(rungs=2, spend=0.5)))
    assert climbing.total_seconds == pytest.approx(0.5 * 3 * 2 * 3 * RUN)
