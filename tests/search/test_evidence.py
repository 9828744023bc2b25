"""What a forecast rests on: where candidates lie, and whether the line has bent."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmtscale.data.dataset import DataRef, Description
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row
from cmtscale.search.candidates import grid
from cmtscale.search.evidence import Evidence, bend, gather
from cmtscale.search.recording import job_of, make_row
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.runs import RungRun
from cmtscale.search.samplers import Asked
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings

FALLS, STAYS = 0.7, 0.97  # what a tripling of images leaves of the loss


def searched(train_images: int) -> Settings:
    request = SearchRequest(
        budget_macs=4_000_000_000, data="folder:/images", proxy_macs=14_427_200, trials=2
    )
    return resolve(
        request, Description(num_classes=10, channels=1, train_images=train_images, val_images=10)
    )


def trained(settings: Settings, losses: Mapping[int, float], seeds: int = 1) -> Evidence:
    """All candidates at each rung of `losses`, with the same loss."""
    rows: list[Row] = []
    for rung, loss in losses.items():
        for number, candidate in enumerate(grid(settings)):
            for seed in range(seeds):
                data = DataRef(path=Path("x"), content_hash="x")
                run = RungRun(candidate=candidate.name, rung=rung, seed=seed)
                result = RunResult(status="complete", val_loss=loss, val_accuracy=0.9)
                asked = Asked(candidate=candidate, number=number, after=0, by="grid")
                job = job_of(settings, Path("x"), data, candidate, run)
                rows.append(make_row(asked, job.run, result))
    random = np.random.default_rng(0)
    images = {row.run_id: random.exponential(size=50).astype(np.float16) for row in rows}
    return gather(settings, rows, images, NOT_TIMED)


def test_more_passes_over_the_same_images_that_do_not_help_bend_the_line() -> None:
    settings = searched(600)
    assert settings.horizons[1] == (30, 600)
    text = bend(trained(settings, {0: 0.5, 1: 0.5 * STAYS}))
    assert "30 passes over the same 600 images change the loss by -3 %" in text
    assert bend(trained(settings, {0: 0.5, 1: 0.5 * FALLS})) == ""


def test_the_bend_is_seen_at_the_first_rung_that_shows_it() -> None:
    settings = searched(600)
    assert "90 passes" in bend(trained(settings, {0: 0.5, 1: 0.5 * FALLS, 2: 0.5 * FALLS * STAYS}))


def test_new_images_do_not_bend_a_line_however_little_they_help() -> None:
    settings = searched(54_000)
    assert settings.horizons[1] == (1, 18_000)
    assert bend(trained(settings, {0: 0.5, 1: 0.5 * STAYS})) == ""


def test_candidates_lie_where_their_growth_is_and_corners_one_unit_apart() -> None:
    settings = searched(54_000)
    evidence = trained(settings, {0: 0.5}, seeds=2)
    assert evidence.trained is not None
    points = dict(zip([arm.role for arm in evidence.arms], evidence.trained.points, strict=False))
    depth, width = points["depth"], points["width"]
    assert depth[1] == depth[2] == width[0] == width[2] == 0
    # integers miss a corner by what the cost of norms and rounding makes of it
    assert math.dist(depth, width) == pytest.approx(1, abs=0.15)
    paper = evidence.trained.points[-1]
    assert len(evidence.trained.points) == len(evidence.arms) + 1
    assert paper.sum() == pytest.approx(1 / math.sqrt(2))  # on the surface
    assert np.all(paper > 0)


def test_there_is_nothing_to_forecast_from_where_no_two_seeds_measure_the_noise() -> None:
    settings = searched(54_000)
    evidence = trained(settings, {0: 0.5})
    assert evidence.trained is None
    assert evidence.degrees == 0
    assert trained(settings, {0: 0.5}, seeds=3).degrees == 2 * len(evidence.arms)


def test_a_loss_of_nothing_has_no_logarithm_and_gives_no_forecast() -> None:
    settings = searched(600)
    evidence = trained(settings, {0: 0.0, 1: 0.0}, seeds=2)
    assert evidence.is_perfect
    assert evidence.trained is None
    assert bend(evidence) == ""


def test_a_folder_s_other_horizons_are_no_evidence() -> None:
    settings = searched(54_000)
    shorter = replace(settings, ladder=replace(settings.ladder, rungs=1))
    rows = trained(settings, {0: 0.5, 1: 0.4}, seeds=2).rows
    images = {row.run_id: np.ones(50, np.float16) for row in rows}
    assert {row.horizon for row in gather(shorter, rows, images, NOT_TIMED).rows} == {(1, 6_000)}
