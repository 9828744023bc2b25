"""Every network that integers express at a budget: at most one a resolution and first dim.

The resolution is a multiple of 32, the first dim a multiple of 2 that the heads divide; the depths
take what the two leave of the growth, so that the network costs the target.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cmtscale.arch import paper
from cmtscale.arch.cost import cost
from cmtscale.arch.growth import smooth_macs
from cmtscale.arch.scaling import Shares, dim_step, resize, scaling_from_shares
from cmtscale.arch.solve import (
    BUDGET_TOLERANCE,
    RESOLUTION_WEIGHT,
    STRAY_CAP,
    WIDTH_WEIGHT,
    find,
)
from cmtscale.arch.variant import Variant, nearest_multiple, network_name

_TIE_DIGITS = 9  # distances that differ by less are the same: the order decides, on any machine


@dataclass(frozen=True, kw_only=True)
class LatticePoint:
    """A network at the budget, within 2 %, named by its integers.

    `shares` are those of its integers, computed back; `stray` says how far rounding moved it
    from real-valued sizes, as in `Solution`.
    """

    variant: Variant
    shares: Shares
    stray: float
    macs: int


class HasShares(Protocol):
    """What `nearest` chooses among."""

    @property
    def shares(self) -> Shares:
        """Log shares; they sum to 1."""
        ...


P = TypeVar("P", bound=HasShares)


def lattice(
    base: Variant, target_macs: float, *, stray_cap: float = STRAY_CAP
) -> tuple[LatticePoint, ...]:
    """Every network grown from `base` to `target_macs`, each once, by resolution and first dim.

    From the base outwards: the first ones grow in depth alone, the last ones mostly in resolution.
    Left out is where rounding strays further than `stray_cap`. Neighbouring first dims may round to
    one network: its stray is the smallest.
    """
    points: dict[Variant, LatticePoint] = {}
    for side in resolution_levels(base, target_macs):
        for dim1 in first_dims(base, target_macs, side):
            point = point_at(base, target_macs, side, dim1, stray_cap=stray_cap)
            if point is None:
                continue
            same = points.get(point.variant)
            if same is None or point.stray < same.stray:
                points[point.variant] = point
    return tuple(points.values())


def nearest(points: Iterable[P], shares: Shares, *, excluded: Collection[P] = ()) -> P | None:
    """The point with the shares nearest to `shares`, of equally near ones the first.

    The distance is Euclidean in the three log shares. None if all points are `excluded`.
    """
    left = [point for point in points if point not in excluded]
    return min(left, key=lambda point: _distance(point.shares, shares), default=None)


def farthest_first(points: Iterable[P], *, taken: Iterable[Shares], first: Shares) -> list[P]:
    """The points in an order that spreads well however soon it is cut off.

    The one nearest to `first` leads; after it comes, each time, the point that is farthest from all
    before it and from those `taken`, of equally far ones the first.
    """
    left = list(points)
    order: list[P] = []
    before = list(taken)
    while left:
        if order:
            following = max(left, key=lambda p: min(_distance(p.shares, s) for s in before))
        else:
            following = min(left, key=lambda p: _distance(p.shares, first))
        left.remove(following)
        order.append(following)
        before.append(following.shares)
    return order


def point_at(
    base: Variant, target_macs: float, side: int, dim1: int, *, stray_cap: float = STRAY_CAP
) -> LatticePoint | None:
    """The network at this resolution and first dim with the depths that cost the target.

    None where no depths do so within `stray_cap`, or where nothing has grown.
    """
    depth = float(_depth_at(base, target_macs, np.array([dim1]), side)[0])
    if depth <= 0:
        return None
    sizes = Shares(
        depth=math.log(depth),
        width=paper.WIDTH_EXPONENT * math.log(dim1 / base.dims[0]),
        resolution=paper.RESOLUTION_EXPONENT * math.log(side / base.resolution_px),
    )
    if sizes.total == 0:
        return None
    scaling = scaling_from_shares(0.0, sizes.scaled(1 / sizes.total).normalised())
    solution = find(base, scaling, target_macs, stray_cap=stray_cap)
    if solution is None or solution.shares.total == 0:
        return None
    return LatticePoint(
        variant=_named(solution.variant),
        shares=solution.shares.normalised(),
        stray=solution.stray,
        macs=solution.macs,
    )


def resolution_levels(base: Variant, target_macs: float) -> list[int]:
    """Resolutions between the base's and the target's, both reachable by resolution alone."""
    stride = paper.STAGE_STRIDES[-1]
    grows = target_macs >= cost(base).macs
    levels = []
    side = base.resolution_px
    while side >= stride:
        macs = smooth_macs(base, 1.0, 1.0, side / base.resolution_px)
        if (
            (macs > (1 + BUDGET_TOLERANCE) * target_macs)
            if grows
            else (macs < (1 - BUDGET_TOLERANCE) * target_macs)
        ):
            break
        levels.append(side)
        side += stride if grows else -stride
    return levels


def first_dims(base: Variant, target_macs: float, side: int) -> list[int]:
    """Legal first dims at `side` px: from the base's to the last that leaves growth for depth."""
    step = dim_step(base.stages[0].heads, 2)
    start = nearest_multiple(base.dims[0], step)
    growth = target_macs / smooth_macs(base, 1.0, 1.0, side / base.resolution_px)
    if growth < 1:
        dims = np.arange(start, 0, -step)
        return [int(dim1) for dim1 in dims[_depth_at(base, target_macs, dims, side) <= 1]]
    # A quarter of any base's cost or more grows with its width.
    dims = np.arange(start, 4 * growth * start, step, dtype=np.int64)
    return [int(dim1) for dim1 in dims[_depth_at(base, target_macs, dims, side) >= 1]]


def pure_width(base: Variant, target_macs: float) -> Variant:
    """`base` with other dims alone, as near in cost to the target as legal dims come.

    Looked for around what a power law guesses, which is near enough up to a growth of about 6.
    """
    step = dim_step(base.stages[0].heads, 2)
    growth = (target_macs / cost(base).macs) ** (1 / WIDTH_WEIGHT)
    guess = nearest_multiple(base.dims[0] * growth, step)
    networks = [
        _resized(base, dim1=dim1, side=base.resolution_px)
        for dim1 in range(max(step, guess - 4 * step), guess + 5 * step, step)
    ]
    return _nearest_in_cost(networks, target_macs)


def pure_resolution(base: Variant, target_macs: float) -> Variant:
    """`base` at another resolution alone, as near in cost to the target as steps of 32 px come.

    Looked for as in `pure_width`.
    """
    stride = paper.STAGE_STRIDES[-1]
    growth = (target_macs / cost(base).macs) ** (1 / RESOLUTION_WEIGHT)
    guess = nearest_multiple(base.resolution_px * growth, stride)
    least = base.least_resolution_px
    networks = [
        _resized(base, dim1=base.dims[0], side=side)
        for side in range(max(least, guess - stride), max(least, guess + stride) + 1, stride)
    ]
    return _nearest_in_cost(networks, target_macs)


def _depth_at(
    base: Variant, target_macs: float, dim1: NDArray[np.int64], side: int
) -> NDArray[np.float64]:
    """Depth factors that cost the target at these first dims; MACs are linear in depth."""
    width, resolution = dim1 / base.dims[0], side / base.resolution_px
    fixed = smooth_macs(base, 0.0, width, resolution)
    blocks = smooth_macs(base, 1.0, width, resolution) - fixed
    factors: NDArray[np.float64] = (target_macs - fixed) / blocks
    return factors


def _distance(one: Shares, other: Shares) -> float:
    steps = (one.depth - other.depth, one.width - other.width, one.resolution - other.resolution)
    return round(math.hypot(*steps), _TIE_DIGITS)


def _nearest_in_cost(networks: list[Variant], target_macs: float) -> Variant:
    return min(networks, key=lambda network: abs(math.log(cost(network).macs / target_macs)))


def _resized(base: Variant, *, dim1: int, side: int) -> Variant:
    return _named(resize(base, name="x", dim1=dim1, depths=base.depths, resolution_px=side))


def _named(network: Variant) -> Variant:
    return replace(network, name=network_name(network))
