"""From (base, α, β, γ, budget) to the integer variant that hits the budget.

α, β, γ say how growth is shared; φ is solved on the exact cost of real-valued sizes; then the
roundings are searched. Of all integers within 2 % of the budget the answer is the one that strays
least from the real-valued point, in log cost.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cmtscale.arch import paper
from cmtscale.arch.budget import format_macs, parse_macs
from cmtscale.arch.cost import Number, cost
from cmtscale.arch.errors import BudgetError
from cmtscale.arch.growth import fixed_and_block_macs, smooth_macs
from cmtscale.arch.scaling import PHI_LIMIT, Scaling, Shares, dim_step, implied, resize
from cmtscale.arch.variant import Variant

BUDGET_TOLERANCE = 0.02
STRAY_CAP = 0.3
# d ln MACs / d ln size of CMT-S and CMT-Ti, measured: a stray is the share of the cost that
# rounding moved to another axis.
DEPTH_WEIGHT, WIDTH_WEIGHT, RESOLUTION_WEIGHT = 0.9, 1.92, 2.07
_FIRST_CAPS = (0.06, 0.15, STRAY_CAP)  # a narrow search first: most points are found there


def is_within_tolerance(macs: float, budget_macs: float) -> bool:
    """Whether a cost counts as on the budget: within 2 %."""
    return abs(macs / budget_macs - 1) <= BUDGET_TOLERANCE


@dataclass(frozen=True, kw_only=True)
class Solution:
    """An integer variant at a budget, and how it got there.

    `scaling` is the real-valued point (its φ solved), `stray` the largest deviation of the
    integers from it in log cost, `phi` and `shares` what the integers really stand for.
    """

    variant: Variant
    budget_macs: int
    macs: int
    scaling: Scaling
    stray: float
    phi: float
    shares: Shares


def solve(
    base: Variant,
    *,
    alpha: float = paper.ALPHA,
    beta: float = paper.BETA,
    gamma: float = paper.GAMMA,
    budget_macs: float,
    step: int = 2,
    name: str | None = None,
    stray_cap: float = STRAY_CAP,
) -> Solution:
    """The integer variant within 2 % of `budget_macs` with the smallest stray.

    Dims are multiples of `step` that the heads divide, resolution of 32, depths at least 1; the
    stem and dims 2 to 4 follow dim 1. Raises `ScalingError` off the constraint surface, and
    `BudgetError` naming the nearest budget that works where no integers lie within `stray_cap`.
    """
    scaling = Scaling(0.0, alpha, beta, gamma)
    if not (math.isfinite(budget_macs) and budget_macs >= 1):
        raise BudgetError(f"budget {budget_macs} is not a positive number of MACs; use e.g. 4.0G")
    if step < 1:
        raise BudgetError(f"dims cannot be multiples of {step}; use 2 or 8")
    solution = find(base, scaling, budget_macs, step=step, name=name, stray_cap=stray_cap)
    if solution is None:
        raise BudgetError(_impossible(base, scaling, budget_macs, step, stray_cap))
    return solution


def find(
    base: Variant,
    scaling: Scaling,
    budget_macs: float,
    *,
    step: int = 2,
    name: str | None = None,
    stray_cap: float = STRAY_CAP,
) -> Solution | None:
    """As `solve`, but None where there is no solution; the φ of `scaling` is not read."""
    rounding = _search(base, scaling, budget_macs, step, stray_cap)
    if rounding is None:
        return None
    phi, stray, dim1, resolution_px, depths = rounding
    solved = resize(
        base,
        name=name or f"{base.name}-{format_macs(budget_macs)}",
        dim1=dim1,
        depths=depths,
        resolution_px=resolution_px,
        step=step,
    )
    implied_phi, shares = implied(base, solved)
    return Solution(
        variant=solved,
        budget_macs=round(budget_macs),
        macs=cost(solved).macs,
        scaling=replace(scaling, phi=phi),
        stray=stray,
        phi=implied_phi,
        shares=shares,
    )


def solve_phi(base: Variant, scaling: Scaling, budget_macs: float) -> float | None:
    """φ at which the real-valued sizes cost `budget_macs`; None beyond φ = ±40 (`PHI_LIMIT`).

    The φ of `scaling` is not read. The cost rises with φ: two rounds of zooming bracket it within
    1e-4, and a line between the ends misses the budget by less than a part in 10^8.
    """
    low, high = -PHI_LIMIT, PHI_LIMIT
    for _ in range(2):
        phi = np.linspace(low, high, 1025)
        macs = smooth_macs(base, *_factors(scaling, phi))
        above = int(np.searchsorted(macs, budget_macs))
        if above in (0, len(phi)):
            return None
        low, high = phi[above - 1], phi[above]
    return float(np.interp(budget_macs, macs[above - 1 : above + 1], [low, high]))


_Rounding = tuple[float, float, int, int, tuple[int, ...]]  # φ, stray, dim 1, resolution, depths


def _search(
    base: Variant, scaling: Scaling, budget: float, step: int, stray_cap: float
) -> _Rounding | None:
    phi = solve_phi(base, scaling, budget)
    if phi is None:
        return None
    depth, width, resolution = (float(factor) for factor in _factors(scaling, phi))
    for cap in [cap for cap in _FIRST_CAPS if cap < stray_cap] + [stray_cap]:
        dim1 = _multiples_near(
            base.dims[0] * width, dim_step(base.stages[0].heads, step), cap / WIDTH_WEIGHT
        )
        side = _multiples_near(
            base.resolution_px * resolution, paper.STAGE_STRIDES[-1], cap / RESOLUTION_WEIGHT
        )
        side = side[side >= base.least_resolution_px]
        depths, depth_stray = _depths_near(base.depths, depth, cap)
        if not (len(dim1) and len(side) and len(depths)):
            continue
        dim1, side = (grid.ravel() for grid in np.meshgrid(dim1, side))
        stray_width = WIDTH_WEIGHT * np.abs(np.log(dim1 / (base.dims[0] * width)))
        stray_side = RESOLUTION_WEIGHT * np.abs(np.log(side / (base.resolution_px * resolution)))
        macs = _macs_table(base, dim1, side, depths, step)
        pair, row = np.nonzero(np.abs(macs / budget - 1) <= BUDGET_TOLERANCE)
        if not len(pair):
            continue
        strays = np.stack([depth_stray[row], stray_width[pair], stray_side[pair]])
        # Ties in the largest deviation (a coarse resolution sets it alone) go to the smallest
        # sum, then to the cost nearest to the budget.
        miss = np.abs(macs[pair, row] - budget)
        best = np.lexsort((miss, strays.sum(axis=0).round(9), strays.max(axis=0).round(9)))[0]
        chosen = tuple(int(d) for d in depths[row[best]])
        stray = float(strays[:, best].max())
        return phi, stray, int(dim1[pair[best]]), int(side[pair[best]]), chosen
    return None


def _factors(scaling: Scaling, phi: float | NDArray[np.float64]) -> tuple[Number, ...]:
    return tuple(np.power(c, phi) for c in (scaling.alpha, scaling.beta, scaling.gamma))


def _multiples_near(value: float, multiple: int, log_distance: float) -> NDArray[np.int64]:
    """Positive multiples within a factor e^±log_distance of `value`."""
    low = max(1, math.ceil(value * math.exp(-log_distance) / multiple))
    high = math.floor(value * math.exp(log_distance) / multiple)
    return np.arange(low, high + 1, dtype=np.int64) * multiple


def _depths_near(
    depths: tuple[int, ...], factor: float, cap: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Roundings of `depths` times a common factor, with their strays, at most `cap`.

    The factor runs over the allowed range; at each, every stage is rounded down or up.
    """
    reach = math.exp(cap / DEPTH_WEIGHT)
    low, high = factor / reach, factor * reach
    breaks = {
        count / depth
        for depth in depths
        for count in range(math.ceil(low * depth), math.floor(high * depth) + 1)
    }
    edges = np.array(sorted({low, high, factor, *breaks}))
    middles = np.concatenate([(edges[1:] + edges[:-1]) / 2, [factor]])
    floors = np.floor(middles[:, None] * np.array(depths)).astype(np.int64)
    ups = np.array(list(itertools.product((0, 1), repeat=len(depths))))
    rounded = (floors[:, None, :] + ups).reshape(-1, len(depths))
    rounded = np.unique(rounded[(rounded >= 1).all(axis=1)], axis=0)
    stray = DEPTH_WEIGHT * np.abs(np.log(rounded.sum(axis=1) / (sum(depths) * factor)))
    return rounded[stray <= cap], stray[stray <= cap]


def _macs_table(
    base: Variant,
    dim1: NDArray[np.int64],
    side: NDArray[np.int64],
    depths: NDArray[np.int64],
    step: int,
) -> NDArray[np.float64]:
    """Exact MACs of every (dim 1, resolution) pair (rows) with every depths (columns)."""
    # As in `resize`: halves go up.
    dims = np.stack(
        [dim1]
        + [
            _nearest_multiples(dim1 * stage.dim / base.dims[0], dim_step(stage.heads, step))
            for stage in base.stages[1:]
        ],
        axis=1,
    )
    stem = _nearest_multiples(base.stem_channels * dim1 / base.dims[0], 2)
    fixed, blocks = fixed_and_block_macs(base, dims=dims, stem_channels=stem, resolution_px=side)
    # float64 holds these integers exactly: they stay far below 2^53.
    return fixed[:, None] + blocks.astype(np.float64) @ depths.T.astype(np.float64)


def _nearest_multiples(values: NDArray[np.float64], multiple: int) -> NDArray[np.int64]:
    return np.maximum((values / multiple + 0.5).astype(np.int64), 1) * multiple


def _impossible(base: Variant, scaling: Scaling, budget: float, step: int, stray_cap: float) -> str:
    given = (
        f"no variant of {base.name} at {format_macs(budget)} MACs with alpha {scaling.alpha:.3g}, "
        f"beta {scaling.beta:.3g}, gamma {scaling.gamma:.3g}: rounding would move more than "
        f"{100 * stray_cap:.0f} % of the cost to another axis"
    )
    # Each integer variant covers ±2 % around its cost, so steps of 2 % miss hardly any. What is
    # tried is what is printed, three digits.
    for count in range(1, 400):
        for factor in ((1 + BUDGET_TOLERANCE) ** -count, (1 + BUDGET_TOLERANCE) ** count):
            near = format_macs(max(1e3, budget * factor))
            if _search(base, scaling, parse_macs(near), step, stray_cap) is not None:
                return f"{given}; the nearest budget that works is {near}"
    return f"{given}; use other constants or another base"
