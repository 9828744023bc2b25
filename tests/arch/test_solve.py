"""The integer variant at a budget: within 2 %, with the smallest stray, or a correct error."""

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmtscale.arch.budget import format_macs, parse_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import BudgetError, ScalingError
from cmtscale.arch.growth import smooth_macs
from cmtscale.arch.scaling import Scaling, Shares, resize, scaling_from_shares
from cmtscale.arch.solve import STRAY_CAP, solve, solve_phi
from cmtscale.arch.variant import Stage, Variant, published_variants

BASES = {v.name: v for v in published_variants()}


@st.composite
def simplex(draw):
    u, v = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    root = math.sqrt(u)
    return Shares(depth=1 - root, width=root * (1 - v), resolution=root * v)


def budgets():
    return st.floats(math.log(0.2e9), math.log(40e9)).map(math.exp)


def roundings(base: Variant, scaling: Scaling, cap: float):
    """Every legal rounding with a stray of at most `cap`, by brute force."""
    factors = [c**scaling.phi for c in (scaling.alpha, scaling.beta, scaling.gamma)]
    for dim1 in range(2, math.ceil(base.dims[0] * factors[1] * 1.5), 2):
        width = 1.92 * abs(math.log(dim1 / (base.dims[0] * factors[1])))
        if width > cap:
            continue
        for side in range(32, math.ceil(base.resolution_px * factors[2] * 1.5), 32):
            resolution = 2.07 * abs(math.log(side / (base.resolution_px * factors[2])))
            if resolution > cap or side < 32:
                continue
            for depths in roundings_of_depth(base.depths, factors[0], cap):
                depth = 0.9 * abs(math.log(sum(depths) / (sum(base.depths) * factors[0])))
                if depth <= cap:
                    yield dim1, side, depths, max(width, resolution, depth)


def roundings_of_depth(depths, factor, cap):
    seen = set()
    for step in range(-200, 201):
        f = factor * math.exp(cap / 0.9 * step / 200)
        for ups in product((0, 1), repeat=4):
            rounded = tuple(math.floor(d * f) + up for d, up in zip(depths, ups, strict=True))
            if min(rounded) >= 1:
                seen.add(rounded)
    return seen


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(BASES)), simplex(), budgets())
def test_every_solution_hits_the_budget_within_the_stray_cap(name, shares, budget):
    base = BASES[name]
    arguments = {"alpha": shares.alpha, "beta": shares.beta, "gamma": shares.gamma}
    try:
        solution = solve(base, **arguments, budget_macs=budget)
    except BudgetError as error:
        named = parse_macs(str(error).rsplit(" ", 1)[1])
        solution = solve(base, **arguments, budget_macs=named)
        assert abs(solution.macs / named - 1) <= 0.02
        return
    assert solution.macs == cost(solution.variant).macs
    assert abs(solution.macs / budget - 1) <= 0.02
    assert solution.stray <= STRAY_CAP
    assert solution.variant.dims == tuple(solution.variant.dims[0] * 2**i for i in range(4))
    assert solution.variant.dims[0] % 2 == 0
    assert smallest_deviation_is(solution.stray, base, solution)


def smallest_deviation_is(stray, base, solution):
    scaling = solution.scaling
    factors = [c**scaling.phi for c in (scaling.alpha, scaling.beta, scaling.gamma)]
    deviations = (
        0.9 * abs(math.log(sum(solution.variant.depths) / (sum(base.depths) * factors[0]))),
        1.92 * abs(math.log(solution.variant.dims[0] / (base.dims[0] * factors[1]))),
        2.07 * abs(math.log(solution.variant.resolution_px / (base.resolution_px * factors[2]))),
    )
    return stray == pytest.approx(max(deviations), abs=1e-9)


def feasible_strays(base, point, budget):
    """Strays of every rounding within 2 % of the budget, found exhaustively."""
    phi = solve_phi(base, scaling_from_shares(0.0, point), budget)
    if phi is None:  # the layers outside the blocks already cost more
        return []
    return [
        stray
        for dim1, side, depths, stray in roundings(base, scaling_from_shares(phi, point), STRAY_CAP)
        if abs(macs(base, dim1, side, depths) / budget - 1) <= 0.02
    ]


@pytest.mark.parametrize(
    ("name", "shares", "budget"),
    [
        ("cmt-b", (1.0, 0.0, 0.0), 0.21e9),
        ("cmt-b", (0.7, 0.3, 0.0), 0.3e9),
        ("cmt-s", (0.9, 0.05, 0.05), 0.31e9),
        ("cmt-s", (0.1, 0.1, 0.8), 0.286e9),
    ],
)
def test_impossible_is_said_where_an_exhaustive_look_finds_no_rounding(name, shares, budget):
    point = Shares(depth=shares[0], width=shares[1], resolution=shares[2])
    assert feasible_strays(BASES[name], point, budget) == []
    arguments = {"alpha": point.alpha, "beta": point.beta, "gamma": point.gamma}
    with pytest.raises(BudgetError, match="the nearest budget that works is") as caught:
        solve(BASES[name], **arguments, budget_macs=budget)
    named = parse_macs(str(caught.value).rsplit(" ", 1)[1])
    assert abs(solve(BASES[name], **arguments, budget_macs=named).macs / named - 1) <= 0.02


@pytest.mark.parametrize(
    ("name", "shares", "budget"),
    [
        ("cmt-ti", (0.6, 0.3, 0.1), 0.24e9),
        ("cmt-ti", (0.5, 0.0, 0.5), 0.21e9),
        ("cmt-s", (0.5, 0.2, 0.3), 0.7e9),
        ("cmt-xs", (0.2, 0.5, 0.3), 4e9),
        ("cmt-b", (0.1, 0.2, 0.7), 12e9),
    ],
)
def test_the_smallest_stray_of_an_exhaustive_look_is_found(name, shares, budget):
    point = Shares(depth=shares[0], width=shares[1], resolution=shares[2])
    solution = solve(
        BASES[name], alpha=point.alpha, beta=point.beta, gamma=point.gamma, budget_macs=budget
    )
    best = min(feasible_strays(BASES[name], point, budget))
    assert solution.stray == pytest.approx(best, abs=1e-9)


def macs(base, dim1, side, depths):
    return cost(resize(base, name="x", dim1=dim1, depths=depths, resolution_px=side)).macs


def test_phi_is_solved_on_the_exact_cost():
    # One paper step multiplies the MACs by about 2.62, not 2.5.
    assert solve_phi(BASES["cmt-s"], Scaling(0.0), 2.62 * 4_031_742_464) == pytest.approx(
        1.0, abs=0.02
    )


@settings(deadline=None)
@given(st.sampled_from(sorted(BASES)), simplex(), budgets())
def test_the_solved_phi_costs_the_budget(name, point, budget):
    base, scaling = BASES[name], scaling_from_shares(0.0, point)
    phi = solve_phi(base, scaling, budget)
    if phi is None:  # the layers outside the blocks already cost more
        return
    sizes = (scaling.alpha**phi, scaling.beta**phi, scaling.gamma**phi)
    assert smooth_macs(base, *sizes) == pytest.approx(budget, rel=1e-8)


@settings(max_examples=25, deadline=None)
@given(simplex(), budgets())
def test_dims_in_multiples_of_8_on_request(shares, budget):
    try:
        solution = solve(
            BASES["cmt-s"],
            alpha=shares.alpha,
            beta=shares.beta,
            gamma=shares.gamma,
            budget_macs=budget,
            step=8,
        )
    except BudgetError:
        return
    assert all(dim % 8 == 0 for dim in solution.variant.dims)
    assert abs(solution.macs / budget - 1) <= 0.02


def test_a_base_with_other_proportions_keeps_them_as_far_as_heads_allow():
    stages = tuple(
        Stage(dim=dim, depth=depth, heads=heads, reduction=k, expansion=3.0)
        for dim, depth, heads, k in zip(
            (36, 60, 150, 210), (2, 3, 5, 2), (1, 3, 5, 7), (8, 4, 2, 1), strict=True
        )
    )
    base = replace(BASES["cmt-ti"], name="odd", stages=stages)
    solution = solve(base, budget_macs=2.5e9)
    assert abs(solution.macs / 2.5e9 - 1) <= 0.02
    for stage, original in zip(solution.variant.stages, stages, strict=True):
        assert stage.dim % stage.heads == 0
        assert stage.dim / solution.variant.dims[0] == pytest.approx(original.dim / 36, rel=0.06)


@pytest.mark.parametrize("budget", [0, -1.0, math.nan, math.inf])
def test_a_budget_that_is_none_is_refused(budget):
    with pytest.raises(BudgetError, match="not a positive number of MACs"):
        solve(BASES["cmt-s"], budget_macs=budget)


def test_constants_off_the_surface_are_refused():
    with pytest.raises(ScalingError, match="nearest legal"):
        solve(BASES["cmt-s"], alpha=2.0, beta=2.0, gamma=2.0, budget_macs=4e9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4G", 4_000_000_000),
        ("4.0G", 4_000_000_000),
        ("4e9", 4_000_000_000),
        ("600M", 600_000_000),
        (" 0.65g ", 650_000_000),
        ("4000000000", 4_000_000_000),
    ],
)
def test_budgets_are_read_as_people_write_them(text, expected):
    assert parse_macs(text) == expected


@pytest.mark.parametrize("text", ["", "4 GFLOPs", "-4G", "0", "nan", "G", "1e30", "4,0G"])
def test_what_is_no_budget_says_how_to_write_one(text):
    with pytest.raises(BudgetError, match=r"write 4\.0G, 600M or 4e9"):
        parse_macs(text)


@pytest.mark.parametrize("text", ["1.5", "4", "0.65"])
def test_a_budget_without_its_unit_is_asked_back(text):
    with pytest.raises(BudgetError, match=f"did you mean {text}G"):
        parse_macs(text)


@given(st.floats(1e3, 1e13))
def test_formatted_macs_read_back_to_three_digits(macs):
    assert parse_macs(format_macs(macs)) == pytest.approx(macs, rel=0.006, abs=0.5)
