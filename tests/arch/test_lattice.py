"""The lattice lists every legal integer network at a budget exactly once."""

import functools
import itertools
import math
from dataclasses import astuple, dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmtscale.arch.cost import cost
from cmtscale.arch.growth import fixed_and_block_macs, smooth_macs
from cmtscale.arch.lattice import (
    LatticePoint,
    first_dims,
    lattice,
    nearest,
    pure_resolution,
    pure_width,
    resolution_levels,
)
from cmtscale.arch.scaling import Shares, implied, resize
from cmtscale.arch.variant import Stage, Variant, network_name, variant

SMALL = Variant(
    name="small",
    resolution_px=64,
    stem_channels=4,
    stages=(
        Stage(dim=8, depth=1, heads=1, reduction=8, expansion=4.0),
        Stage(dim=16, depth=1, heads=2, reduction=4, expansion=4.0),
        Stage(dim=32, depth=4, heads=4, reduction=2, expansion=4.0),
        Stage(dim=64, depth=1, heads=8, reduction=1, expansion=4.0),
    ),
    num_classes=10,
    in_channels=1,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A lattice and how many networks it has."""

    base: Variant
    target_macs: int
    stray_cap: float
    count: int

    @functools.cached_property
    def points(self) -> tuple[LatticePoint, ...]:
        return self.listed()

    def listed(self) -> tuple[LatticePoint, ...]:
        return lattice(self.base, self.target_macs, stray_cap=self.stray_cap)


def published(name: str) -> Variant:
    return replace(variant(name), num_classes=10, in_channels=1)


SIX_TIMES = Case(base=SMALL, target_macs=14_427_200, stray_cap=0.1, count=12)
CASES = [
    SIX_TIMES,
    Case(base=SMALL, target_macs=40_000_000, stray_cap=0.1, count=33),
    Case(base=published("cmt-xs"), target_macs=4_000_000_000, stray_cap=0.3, count=36),
    Case(base=published("cmt-b"), target_macs=2_000_000_000, stray_cap=0.3, count=60),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.base.name}-{c.target_macs:.2g}")


@cases
def test_networks_are_distinct_legal_and_at_the_budget(case: Case) -> None:
    points = case.points
    assert len({replace(point.variant, name="x") for point in points}) == len(points)
    for point in points:
        network = point.variant
        assert point.macs == cost(network).macs
        assert abs(point.macs / case.target_macs - 1) <= 0.02
        assert 0 <= point.stray <= case.stray_cap
        assert network.dims[0] % 2 == 0
        grown = resize(
            case.base,
            name=network.name,
            dim1=network.dims[0],
            depths=network.depths,
            resolution_px=network.resolution_px,
        )
        assert network == grown  # the rest follows from dim1, depths, resolution and the base
        assert network.resolution_px in resolution_levels(case.base, case.target_macs)


@cases
def test_shares_are_those_of_the_integers(case: Case) -> None:
    for point in case.points:
        _, shares = implied(case.base, point.variant)
        assert point.shares == shares.normalised()
        assert point.shares.total == pytest.approx(1)
        assert min(astuple(point.shares)) >= 0


@cases
def test_networks_are_named_by_their_integers_each_differently(case: Case) -> None:
    names = [point.variant.name for point in case.points]
    assert names == [network_name(point.variant) for point in case.points]
    assert len(set(names)) == len(names)


@cases
def test_the_order_and_the_number_of_networks_are_stable(case: Case) -> None:
    points = case.points
    assert points == case.listed()
    assert len(points) == case.count
    away = [abs(math.log(p.variant.resolution_px / case.base.resolution_px)) for p in points]
    assert away == sorted(away)


@cases
def test_first_dims_reach_from_the_base_to_the_last_that_leaves_growth_for_depth(
    case: Case,
) -> None:
    base, target = case.base, case.target_macs
    grows = target >= cost(base).macs
    for side in resolution_levels(base, target):
        dims = first_dims(base, target, side)
        assert dims[0] == base.dims[0]
        step = dims[1] - dims[0] if len(dims) > 1 else (2 if grows else -2)
        assert (step > 0) == grows
        assert dims == list(range(dims[0], dims[-1] + step, step))
        if side == base.resolution_px:  # beyond the last one depth would have to turn back
            depths = [smooth_depth(base, target, side, dims[-1] + d) for d in (0, step)]
            assert (depths[0] >= 1 > depths[1]) if grows else (depths[0] <= 1 < depths[1])


def test_an_exhaustive_look_finds_depths_exactly_where_the_lattice_has_a_network() -> None:
    base, target, cap = SMALL, SIX_TIMES.target_macs, SIX_TIMES.stray_cap
    assert {(p.variant.resolution_px, p.variant.dims[0]) for p in SIX_TIMES.points} == {
        (side, dim1)
        for side in resolution_levels(base, target)
        for dim1 in range(8, 60, 2)
        if depths_exist(base, target, side, dim1, cap)
    }


def depths_exist(base: Variant, target: int, side: int, dim1: int, cap: float) -> bool:
    """Whether some rounding of all depths by one factor, at least 1, costs the target."""
    network = resize(base, name="x", dim1=dim1, depths=base.depths, resolution_px=side)
    fixed, blocks = fixed_and_block_macs(
        base,
        dims=np.array([network.dims]),
        stem_channels=np.array([network.stem_channels]),
        resolution_px=np.array([side]),
    )
    depths = np.array(list(itertools.product(*(range(1, 12 * depth) for depth in base.depths))))
    macs = fixed + depths @ blocks[0]
    depths = depths[np.abs(macs / target - 1) <= 0.02]
    # a factor must exist of which each depth is the rounding, down or up
    least = ((depths - 1) / base.depths).max(axis=1, initial=0)
    most = ((depths + 1) / base.depths).min(axis=1, initial=np.inf)
    smooth = smooth_depth(base, target, side, dim1)
    stray = 0.9 * np.abs(np.log(depths.sum(axis=1) / (sum(base.depths) * smooth)))
    return smooth >= 1 and bool(((least < most) & (stray <= cap)).any())


def smooth_depth(base: Variant, target: int, side: int, dim1: int) -> float:
    """The unrounded depth factor at which this width and resolution cost the target."""
    sizes = (dim1 / base.dims[0], side / base.resolution_px)
    once, twice = smooth_macs(base, 1.0, *sizes), smooth_macs(base, 2.0, *sizes)
    return 1 + (target - once) / (twice - once)  # MACs are linear in depth


def test_at_the_base_s_own_cost_nothing_grows() -> None:
    assert lattice(SMALL, cost(SMALL).macs) == ()


def test_a_base_can_shrink() -> None:
    case = CASES[-1]
    for point in case.points:
        assert point.macs < cost(case.base).macs
        assert point.variant.resolution_px <= case.base.resolution_px


def test_resolution_levels_reach_from_the_base_to_resolution_alone() -> None:
    levels = resolution_levels(SMALL, 6.25 * cost(SMALL).macs)
    assert levels[0] == 64
    assert levels == list(range(64, levels[-1] + 1, 32))
    assert cost(replace(SMALL, resolution_px=levels[-1])).macs <= 6.4 * cost(SMALL).macs
    assert cost(replace(SMALL, resolution_px=levels[-1] + 32)).macs > 6.25 * cost(SMALL).macs
    assert len(levels) >= 3  # twin bases are chosen to leave room for two resolution steps


@pytest.mark.parametrize("grow", [pure_width, pure_resolution])
@pytest.mark.parametrize("ratio", [0.3, 2, 6.25])
def test_one_axis_alone_comes_as_near_to_the_cost_as_integers_allow(grow, ratio) -> None:
    base = published("cmt-s")
    target = ratio * cost(base).macs
    network = grow(base, target)
    assert network.depths == base.depths
    assert network.name == network_name(network)
    step = {"dim1": network.dims[0], "resolution_px": network.resolution_px}
    if grow is pure_width:
        assert network.resolution_px == base.resolution_px
        neighbours = [{**step, "dim1": network.dims[0] + d} for d in (-2, 2)]
    else:
        assert network.dims == base.dims
        neighbours = [{**step, "resolution_px": network.resolution_px + d} for d in (-32, 32)]
    miss = abs(math.log(cost(network).macs / target))
    for sizes in neighbours:
        other = resize(base, name="x", depths=base.depths, **sizes)
        assert abs(math.log(cost(other).macs / target)) >= miss


# --- the nearest network


@given(depth=st.floats(0, 1), rest=st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_asking_for_the_nearest_untaken_network_takes_each_once_from_near_to_far(
    depth: float, rest: float
) -> None:
    asked = Shares(depth=depth, width=(1 - depth) * rest, resolution=(1 - depth) * (1 - rest))
    points = SIX_TIMES.points
    taken: list[LatticePoint] = []
    while (point := nearest(points, asked, excluded=taken)) is not None:
        taken.append(point)
    assert len(taken) == len(points)
    assert set(taken) == set(points)
    distances = [math.dist(astuple(point.shares), astuple(asked)) for point in taken]
    assert distances == pytest.approx(sorted(distances), abs=1e-8)


def test_a_network_is_the_nearest_to_its_own_shares() -> None:
    points = SIX_TIMES.points
    for point in points:
        assert nearest(points, point.shares) == point


def test_of_equally_near_networks_the_first_is_taken() -> None:
    point = SIX_TIMES.points[0]
    corners = [
        replace(point, shares=Shares(depth=1.0, width=0.0, resolution=0.0)),
        replace(point, shares=Shares(depth=0.0, width=1.0, resolution=0.0)),
        replace(point, shares=Shares(depth=0.0, width=0.0, resolution=1.0)),
    ]
    middle = Shares(depth=1 / 3, width=1 / 3, resolution=1 / 3)
    for order in itertools.permutations(corners):
        assert nearest(order, middle) == order[0]
        assert nearest(order, middle, excluded=order[:1]) == order[1]


def test_nothing_is_nearest_among_none() -> None:
    asked = Shares(depth=1.0, width=0.0, resolution=0.0)
    assert nearest((), asked) is None
    assert nearest(SIX_TIMES.points, asked, excluded=SIX_TIMES.points) is None
