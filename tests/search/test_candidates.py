"""Candidates: integer networks at the real and the trained budget, each once."""

import math
from collections import Counter
from dataclasses import astuple, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cmtscale.arch.cost import cost
from cmtscale.arch.lattice import nearest, resolution_levels
from cmtscale.arch.scaling import Shares, implied
from cmtscale.arch.solve import solve
from cmtscale.arch.variant import network_name, variant
from cmtscale.data.dataset import Description
from cmtscale.search.candidates import (
    Candidate,
    extreme_networks,
    grid,
    largest_resolution,
    lattice_candidates,
    paper_solution,
)
from cmtscale.search.points import point_of, shares_of
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings

G = 1_000_000_000
BUDGETS = st.floats(math.log(0.65 * G), math.log(40 * G)).map(lambda log: round(math.exp(log)))


def resolved(**changes: Any) -> Settings:
    request = SearchRequest(**{"budget_macs": 4 * G, **changes})
    return resolve(
        request, Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000)
    )


def deviation(macs: int, budget_macs: int) -> float:
    return abs(macs / budget_macs - 1)


def by_role(candidates: list[Candidate]) -> dict[str, Candidate]:
    return {candidate.role: candidate for candidate in candidates if candidate.role != "compound"}


def require_each_network_once(candidates: list[Candidate]) -> None:
    """Networks and names are unique."""
    networks = [replace(candidate.trained, name="x") for candidate in candidates]
    assert max(Counter(networks).values()) == 1
    assert len({candidate.name for candidate in candidates}) == len(candidates)
    for candidate in candidates:
        assert candidate.name == candidate.trained.name == network_name(candidate.trained)


@pytest.mark.parametrize("proxy", [True, False])
@hypothesis_settings(max_examples=5, deadline=None)
@given(budget=BUDGETS, trials=st.integers(1, 20))
def test_every_grid_is_on_budget_distinct_and_no_larger_than_asked(
    proxy: bool, budget: int, trials: int
) -> None:
    settings = resolved(budget_macs=budget, trials=trials, proxy=proxy)
    candidates = grid(settings)
    assert {"base", "width", "resolution"} <= {candidate.role for candidate in candidates}
    mixed = [candidate for candidate in candidates if candidate.role in ("compound", "paper")]
    assert len(mixed) <= trials
    for candidate in candidates:
        assert candidate.macs == cost(candidate.real).macs
        assert candidate.trained_macs == cost(candidate.trained).macs
        on_both = (
            max(
                deviation(candidate.macs, budget),
                deviation(candidate.trained_macs, settings.trained_macs),
            )
            <= 0.02
        )
        assert candidate.on_budget == (on_both and candidate.role != "base")
        if candidate.role in ("compound", "paper", "depth"):
            assert candidate.on_budget
            assert candidate.shares.total == pytest.approx(1)
            assert min(astuple(candidate.shares)) >= 0
        assert candidate.trained.resolution_px >= (64 if proxy else 32)
    require_each_network_once(candidates)
    sides = [candidate.trained.resolution_px for candidate in candidates]
    assert largest_resolution(settings) >= max(sides)


@pytest.mark.parametrize("proxy", [True, False])
def test_more_trials_add_to_the_grid_until_integers_express_no_more(proxy: bool) -> None:
    grids = [grid(resolved(trials=trials, proxy=proxy)) for trials in (1, 2, 5, 20, 500, 5000)]
    for coarse, fine in pairwise(grids):
        assert fine[: len(coarse)] == coarse
    assert len(grids[2]) > len(grids[1]) > len(grids[0])
    assert grids[-1] == grids[-2]
    on_budget = {candidate.name for candidate in grids[-1] if candidate.on_budget}
    assert on_budget == {c.name for c in lattice_candidates(resolved(proxy=proxy), NOT_TIMED)}


def test_a_few_trials_are_the_paper_s_constants_the_centre_and_what_is_far_from_them() -> None:
    settings = resolved(proxy=False, trials=4)
    alone, mixed = grid(settings)[:4], grid(settings)[4:]
    assert [candidate.role for candidate in alone] == ["base", "depth", "width", "resolution"]
    assert [candidate.role for candidate in mixed] == ["paper", "compound", "compound", "compound"]
    centre = Shares(depth=1 / 3, width=1 / 3, resolution=1 / 3)
    compound = [c for c in lattice_candidates(settings, NOT_TIMED) if c.role == "compound"]
    assert mixed[1] == nearest(compound, centre)
    # the next one is the farthest from all before it
    before = [candidate.shares for candidate in [*alone[1:], *mixed[:2]]]
    gaps = {c.name: min(math.dist(astuple(c.shares), astuple(s)) for s in before) for c in compound}
    assert gaps[mixed[2].name] == pytest.approx(max(gaps.values()))


def test_the_corners_scale_one_axis_alone_and_the_base_none() -> None:
    roles = by_role(grid(resolved()))
    base = resolved().trained_base
    assert roles["base"].trained.same_network(base)
    assert not roles["base"].on_budget
    shares = {name: astuple(roles[name].shares) for name in ("depth", "width", "resolution")}
    assert shares["depth"] == pytest.approx((1, 0, 0))
    assert shares["width"] == pytest.approx((0, 1, 0))
    assert shares["resolution"] == pytest.approx((0, 0, 1))
    assert roles["depth"].trained.dims == base.dims
    assert roles["depth"].trained.resolution_px == base.resolution_px
    assert roles["width"].trained.depths == base.depths
    assert roles["width"].trained.resolution_px == base.resolution_px
    assert roles["resolution"].trained.depths == base.depths
    assert roles["resolution"].trained.dims == base.dims


def test_the_real_corners_scale_the_same_axis_as_their_twins() -> None:
    settings = resolved()
    for role, candidate in by_role(grid(settings)).items():
        if role in ("depth", "width", "resolution"):
            _, shares = implied(settings.base, candidate.real)
            assert getattr(shares, role) > 0.85, role


def test_real_variants_are_solved_from_the_shares_of_their_twins() -> None:
    settings = resolved(trials=20)
    for candidate in grid(settings):
        if candidate.role in ("compound", "paper", "depth", "width"):
            shares = candidate.shares
            solution = solve(
                settings.base,
                alpha=shares.alpha,
                beta=shares.beta,
                gamma=shares.gamma,
                budget_macs=settings.budget_macs,
            )
            assert candidate.real.same_network(solution.variant)
            assert (candidate.phi, candidate.stray) == (solution.phi, solution.stray)


def test_without_proxies_the_paper_s_constants_are_a_candidate_and_networks_are_real() -> None:
    settings = resolved(proxy=False, trials=12)
    candidates = grid(settings)
    published = by_role(candidates)["paper"]
    assert published.real.same_network(paper_solution(settings).variant)
    assert published.on_budget
    assert all(candidate.real == candidate.trained for candidate in candidates)


def test_a_shrinking_search_has_only_smaller_networks() -> None:
    settings = resolved(base=variant("cmt-b"), budget_macs=2 * G, proxy=False, trials=20)
    for candidate in grid(settings):
        if candidate.role != "base":
            assert candidate.macs < cost(settings.base).macs
            assert candidate.real.resolution_px <= 256
            assert candidate.phi < 0


def test_the_extreme_networks_are_the_base_and_the_corners() -> None:
    settings = resolved()
    roles = by_role(grid(settings))
    extremes = extreme_networks(settings)
    for role in ("base", "depth", "width", "resolution"):
        assert any(network.same_network(roles[role].trained) for network in extremes)


@pytest.mark.parametrize("proxy", [True, False])
@hypothesis_settings(max_examples=5, deadline=None)
@given(budget=BUDGETS)
def test_samplers_choose_among_all_networks_at_the_budget(proxy: bool, budget: int) -> None:
    settings = resolved(budget_macs=budget, proxy=proxy)
    base = settings.trained_base
    candidates = lattice_candidates(settings, NOT_TIMED)
    require_each_network_once(candidates)
    for candidate in candidates:
        network = candidate.trained
        assert candidate.on_budget
        assert deviation(cost(network).macs, settings.trained_macs) <= 0.02
        assert candidate.stray <= 0.3
        assert candidate.shares.total == pytest.approx(1)
        assert all(stage.dim % stage.heads == 0 for stage in network.stages)
        assert [stage.reduction for stage in network.stages] == [s.reduction for s in base.stages]
        if candidate.role == "compound":
            assert network.resolution_px in resolution_levels(base, settings.trained_macs)
    assert lattice_candidates(settings, NOT_TIMED) == candidates  # in the same order


@pytest.mark.parametrize("proxy", [True, False])
@pytest.mark.parametrize("trials", [9, 20, 500])
def test_every_candidate_of_a_grid_at_the_budget_is_one_for_samplers(
    proxy: bool, trials: int
) -> None:
    settings = resolved(trials=trials, proxy=proxy, data="fashion-mnist")
    candidates = lattice_candidates(settings, NOT_TIMED)
    for candidate in grid(settings):
        assert (candidate in candidates) == candidate.on_budget


def test_a_candidate_has_one_name_and_one_network_in_every_search() -> None:
    coarse, fine, tour = (
        {candidate.name: candidate.trained for candidate in grid(settings)}
        for settings in (
            resolved(trials=9, data="fashion-mnist"),
            resolved(trials=500, data="fashion-mnist"),
            resolved(trials=9),
        )
    )
    assert coarse.keys() <= fine.keys()
    for names in (coarse, tour):
        assert names.keys() & fine.keys() >= {"d1.1.4.1-w8-r64"}  # the base
        for name in names.keys() & fine.keys():
            assert names[name] == fine[name]


def test_samplers_see_the_corners_and_the_paper_s_constants_by_their_roles() -> None:
    settings = resolved(proxy=False)
    roles = by_role(lattice_candidates(settings, NOT_TIMED))
    for role, candidate in by_role(grid(settings)).items():
        if candidate.on_budget:
            assert roles[role] == candidate
    assert {"depth", "width", "paper"} <= roles.keys()
    assert "base" not in roles


def test_most_of_the_triangle_is_expressed_near_where_it_was_asked() -> None:
    settings = resolved(proxy=False)
    candidates = lattice_candidates(settings, NOT_TIMED)
    distances = []
    for step in range(1, 10):
        for other in range(1, 10):
            asked = shares_of(step / 10, other / 10)
            network = nearest(candidates, asked)
            assert network is not None
            _, shares = implied(settings.base, network.trained)
            both = zip(astuple(asked), astuple(shares), strict=True)
            distances.append(max(abs(a - b) for a, b in both))
    assert sorted(distances)[len(distances) // 2] < 0.15


@given(u=st.floats(0, 1), v=st.floats(0, 1))
def test_points_of_the_square_are_shares_that_sum_to_one(u: float, v: float) -> None:
    shares = shares_of(u, v)
    assert shares.total == pytest.approx(1)
    assert min(astuple(shares)) >= 0


@given(u=st.floats(1e-6, 1), v=st.floats(0, 1))
def test_points_and_shares_convert_both_ways(u: float, v: float) -> None:
    point = point_of(shares_of(u, v))
    assert point["u"] == pytest.approx(u, abs=1e-9)
    assert point["v"] == pytest.approx(v, abs=1e-6)


def test_the_base_has_no_point_in_the_triangle() -> None:
    assert point_of(Shares(depth=0.0, width=0.0, resolution=0.0)) == {}


def test_uniform_points_are_uniform_shares() -> None:
    # on a uniform triangle each share has mean 1/3 and exceeds 1/2 on a quarter of the area
    steps = [(i + 0.5) / 100 for i in range(100)]
    triangle_shares = [shares_of(u, v) for u in steps for v in steps]
    for name in ("depth", "width", "resolution"):
        values = [getattr(shares, name) for shares in triangle_shares]
        assert sum(values) / len(values) == pytest.approx(1 / 3, abs=0.005)
        assert sum(value > 0.5 for value in values) / len(values) == pytest.approx(0.25, abs=0.01)
