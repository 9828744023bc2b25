"""Candidates: points of the constraint surface that integers can express, solved to the budget.

What is trained grows from `trained_base` (the twin base, or the base itself without proxies); the
real variant is solved at the budget from the shares that the trained integers stand for.
"""

import bisect
import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmtscale.search.request import Settings
from cmtscale.spec import paper
from cmtscale.spec.budget import format_macs
from cmtscale.spec.cost import cost, smooth_macs
from cmtscale.spec.errors import RequestError
from cmtscale.spec.scaling import Scaling, Shares, dim_step, implied, resize, scaling_from_shares
from cmtscale.spec.solve import (
    BUDGET_TOLERANCE,
    RESOLUTION_WEIGHT,
    STRAY_CAP,
    WIDTH_WEIGHT,
    Solution,
    find,
)
from cmtscale.spec.variant import Variant, nearest_multiple

Role = Literal["base", "depth", "width", "resolution", "paper", "compound"]
TWIN_STRAY_CAP = 0.1  # a twin may misplace a tenth of its cost onto another axis
LARGEST_TRAINED = 1e9  # numbers, parameters and one image's activations, of a trained network
FINEST_GRID = 64  # splits between depth and width


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What is trained, and the real variant that it stands for.

    `shares` are those of the trained integers. Pure one-dimensional candidates and the base stand
    at their own MACs; `on_budget` says whether a candidate may be chosen. `stray` and `phi` are
    those of the real variant.
    """

    name: str
    role: Role
    shares: Shares
    trained: Variant
    trained_macs: int
    real: Variant
    macs: int
    phi: float
    stray: float
    on_budget: bool


def grid(settings: Settings) -> list[Candidate]:
    """The base, the pure one-dimensional variants, the paper's constants, and a grid between them.

    Each reachable resolution is a level; at each the rest of the growth is split between depth and
    width in equal steps, ends included, as fine as gives at most `settings.trials` candidates;
    with many levels only every second, third, … is taken. Candidates that round to one trained
    network are one. Raises `RequestError` where even the coarsest grid has more.
    """
    anchors = _anchors(settings)
    points_of = functools.cache(functools.partial(_grid_points, settings))
    finest = bisect.bisect_right(
        range(1, FINEST_GRID + 1), settings.trials, key=lambda steps: len(points_of(steps, 1))
    )
    levels = resolution_levels(settings.trained_base, settings.trained_macs)
    coarser = [(steps, 1) for steps in range(max(1, finest), 0, -1)]
    coarser += [(1, stride) for stride in range(2, len(levels) + 1)]
    candidates: list[Candidate] = []
    seen = None
    for steps, stride in coarser:
        points = points_of(steps, stride)
        if points == seen:  # finer steps had rounded to the same
            continue
        seen = points
        networks = list(anchors)
        for side, dim1 in points:
            network = _at_point(settings, side, dim1)
            if network is not None:
                networks.append(("compound", network))
        candidates = _make_candidates(settings, networks)
        if len(candidates) <= settings.trials:
            return candidates
    raise RequestError(
        f"trials {settings.trials} are too few: the coarsest grid has {len(candidates)} "
        f"candidates; use {len(candidates)} or more"
    )


def express(settings: Settings, shares: Shares) -> Variant | None:
    """The trained network nearest to `shares` among those that integers express at the cost.

    The resolution is rounded to a reachable level, then the first dim, then depth takes what is
    left. None if the rounding of depth strays too far.
    """
    base, target = settings.trained_base, settings.trained_macs
    growth = math.log(target / cost(base).macs)  # of the cost; its exponents are near 1, 1.5, 2
    wanted = base.resolution_px * math.exp(shares.resolution * growth / paper.RESOLUTION_EXPONENT)
    levels = resolution_levels(base, target)
    side = min(levels, key=lambda side: abs(math.log(side / wanted)))
    rest = shares.depth + shares.width
    split = np.array([shares.width / rest if rest else 0.5])
    return _at_point(settings, side, int(_dims_at(base, target, side, split)[0]))


def make_candidate(settings: Settings, name: str, role: Role, trained: Variant) -> Candidate | None:
    """The candidate that trains `trained`; None if its shares have no variant at the budget."""
    _, raw = implied(settings.trained_base, trained)
    shares = raw.normalised() if role != "base" else raw
    trained_macs = cost(trained).macs
    if not settings.proxy:
        phi, _ = implied(settings.base, trained)
        real, stray = trained, 0.0
    elif role == "base":
        real, phi, stray = settings.base, 0.0, 0.0
    elif role == "resolution":
        real = _pure_resolution(settings.base, settings.budget_macs)
        phi, _ = implied(settings.base, real)
        stray = 0.0
    else:
        scaling = scaling_from_shares(0.0, shares)
        solution = find(settings.base, scaling, settings.budget_macs)
        if solution is None:
            return None
        real, phi, stray = solution.variant, solution.phi, solution.stray
    macs = cost(real).macs
    on_budget = (
        role != "base"
        and abs(macs / settings.budget_macs - 1) <= BUDGET_TOLERANCE
        and abs(trained_macs / settings.trained_macs - 1) <= BUDGET_TOLERANCE
    )
    return Candidate(
        name=name,
        role=role,
        shares=shares,
        trained=trained,
        trained_macs=trained_macs,
        real=real,
        macs=macs,
        phi=phi,
        stray=stray,
        on_budget=on_budget,
    )


def paper_solution(settings: Settings) -> Solution | None:
    """The paper's constants solved to the budget, to stand beside the choice; None: they cannot."""
    return find(settings.base, Scaling(0.0), settings.budget_macs)


def extreme_networks(settings: Settings) -> tuple[Variant, ...]:
    """What is trained at each corner of the triangle and for the base: from slow to fast."""
    return tuple(network for _, network in _anchors(settings))


def largest_resolution(settings: Settings) -> int:
    """The largest side in px that any candidate can be trained at."""
    base, target = settings.trained_base, settings.trained_macs
    pure = _pure_resolution(base, target).resolution_px
    return max(*resolution_levels(base, target), base.resolution_px, pure)


def require_trainable(settings: Settings) -> None:
    """Raise `RequestError` if a network of this search could be held by no ordinary machine."""
    for network in extreme_networks(settings):
        counted = cost(network)
        if counted.params + counted.activations > LARGEST_TRAINED:
            twins = "--proxy-macs" if settings.proxy else "--budget"
            raise RequestError(
                f"a network of {format_macs(counted.macs)} MACs at {network.resolution_px} px, "
                f"grown from {settings.trained_base.name}, holds {counted.params:.2g} parameters "
                f"and {counted.activations:.2g} activations an image; use less {twins}"
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


def _anchors(settings: Settings) -> list[tuple[Role, Variant]]:
    """The base, each axis alone, and the paper's constants where integers can express them."""
    base, target = settings.trained_base, settings.trained_macs
    anchors: list[tuple[Role, Variant]] = [("base", base)]
    depth = _at_point(settings, base.resolution_px, base.dims[0])
    if depth is not None:
        anchors.append(("depth", depth))
    anchors.append(("width", _pure_width(base, target)))
    anchors.append(("resolution", _pure_resolution(base, target)))
    published = find(base, Scaling(0.0), target, stray_cap=_stray_cap(settings))
    if published is not None:
        anchors.append(("paper", published.variant))
    return anchors


def _make_candidates(settings: Settings, networks: list[tuple[Role, Variant]]) -> list[Candidate]:
    candidates: list[Candidate] = []
    for role, network in networks:
        if any(network.same_network(known.trained) for known in candidates):
            continue
        candidate = make_candidate(settings, f"c{len(candidates):02d}", role, network)
        if candidate is not None:
            candidates.append(candidate)
    return candidates


def _grid_points(settings: Settings, steps: int, stride: int = 1) -> list[tuple[int, int]]:
    """(resolution, dim 1) of the grid with `steps` equal splits at the base's resolution.

    Of the resolutions every `stride`-th is a level.
    """
    base, target = settings.trained_base, settings.trained_macs
    growth = math.log(target / cost(base).macs)
    points: dict[tuple[int, int], None] = {}  # in order, each once
    for side in resolution_levels(base, target)[::stride]:
        share = paper.RESOLUTION_EXPONENT * math.log(side / base.resolution_px) / growth
        count = max(1, round(steps * (1 - min(1.0, share))))
        for dim1 in _dims_at(base, target, side, np.linspace(0.0, 1.0, count + 1)):
            points[side, int(dim1)] = None
    return list(points)


def _dims_at(
    base: Variant, target: int, side: int, splits: NDArray[np.float64]
) -> NDArray[np.int64]:
    """First dims that take the part `splits` of the growth left at `side` px; depth has the rest.

    To the nearest legal dim, but never so far that depth would have to turn back.
    """
    resolution = side / base.resolution_px
    growth = math.log(target / smooth_macs(base, 1.0, 1.0, resolution))  # of the cost
    # Of sizes: at most 4 times as much, as a quarter of any base's cost scales with its depth.
    low, high = np.sort([np.zeros(splits.shape), np.full(splits.shape, 4 * growth)], axis=0)
    for _ in range(15):  # bisection, to far below one rounding
        middle = (low + high) / 2
        depth = np.exp((1 - splits) * middle)
        width = np.exp(splits * middle / paper.WIDTH_EXPONENT)
        below = smooth_macs(base, depth, width, resolution) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    step = dim_step(base.stages[0].heads, 2)
    exact = base.dims[0] * np.exp(splits * low / paper.WIDTH_EXPONENT)
    nearest = np.maximum(np.floor(exact / step + 0.5), 1).astype(np.int64) * step
    depth = _depth_at(base, target, nearest, side)
    turned_back = (depth < 1) if growth > 0 else (depth > 1)
    back = step if growth > 0 else -step
    dims: NDArray[np.int64] = np.maximum(nearest - turned_back * back, step)
    return dims


def _at_point(settings: Settings, side: int, dim1: int) -> Variant | None:
    """The network at this resolution and first dim with the depths that cost the target."""
    base, target = settings.trained_base, settings.trained_macs
    depth = float(_depth_at(base, target, np.array([dim1]), side)[0])
    if depth <= 0:
        return None
    shares = Shares(
        depth=math.log(depth),
        width=paper.WIDTH_EXPONENT * math.log(dim1 / base.dims[0]),
        resolution=paper.RESOLUTION_EXPONENT * math.log(side / base.resolution_px),
    )
    if shares.total == 0:
        return None
    scaling = scaling_from_shares(0.0, shares.scaled(1 / shares.total).normalised())
    solution = find(base, scaling, target, stray_cap=_stray_cap(settings))
    return solution.variant if solution else None


def _depth_at(
    base: Variant, target: int, dim1: NDArray[np.int64], side: int
) -> NDArray[np.float64]:
    """Depth factors that cost `target` at these first dims; MACs are linear in depth."""
    width, resolution = dim1 / base.dims[0], side / base.resolution_px
    fixed = smooth_macs(base, 0.0, width, resolution)
    blocks = smooth_macs(base, 1.0, width, resolution) - fixed
    factors: NDArray[np.float64] = (target - fixed) / blocks
    return factors


def _stray_cap(settings: Settings) -> float:
    return TWIN_STRAY_CAP if settings.proxy else STRAY_CAP


def _pure_width(base: Variant, target: int) -> Variant:
    step = dim_step(base.stages[0].heads, 2)
    guess = nearest_multiple(base.dims[0] * (target / cost(base).macs) ** (1 / WIDTH_WEIGHT), step)
    networks = [
        _named(base, dim1=dim1, side=base.resolution_px)
        for dim1 in range(max(step, guess - 4 * step), guess + 5 * step, step)
    ]
    return _nearest_in_cost(networks, target)


def _pure_resolution(base: Variant, target: int) -> Variant:
    stride = paper.STAGE_STRIDES[-1]
    growth = (target / cost(base).macs) ** (1 / RESOLUTION_WEIGHT)
    guess = nearest_multiple(base.resolution_px * growth, stride)
    least = base.least_resolution_px
    networks = [
        _named(base, dim1=base.dims[0], side=side)
        for side in range(max(least, guess - stride), max(least, guess + stride) + 1, stride)
    ]
    return _nearest_in_cost(networks, target)


def _nearest_in_cost(networks: list[Variant], target: int) -> Variant:
    return min(networks, key=lambda network: abs(math.log(cost(network).macs / target)))


def _named(base: Variant, *, dim1: int, side: int) -> Variant:
    name = f"{base.name}-{dim1}-{side}px"
    return resize(base, name=name, dim1=dim1, depths=base.depths, resolution_px=side)
