"""Which variant a budget is reached from: neither too near to it nor too far from it."""

from cmtscale.arch.budget import format_macs, rounded_up
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import BudgetError, RequestError
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.scaling import Scaling
from cmtscale.arch.solve import find
from cmtscale.arch.twins import LEAST_PROXY_PX
from cmtscale.arch.variant import Variant, published_variants

BASE_DISTANCE = 2.0  # nearer to the budget, whole lattices of candidates round to one architecture
BASE_GROWTH = 4.0  # from a base that is scaled down for the budget
BASE_REACH = 32.0  # farther, stages grow to hundreds of blocks or shrink to a handful of channels


def default_base(budget_macs: float, num_classes: int = 1000, channels: int = 3) -> Variant:
    """The largest published variant at most half the budget, else the smallest, scaled down.

    Scaled down by the paper's constants to a quarter of the budget, so that candidates grow from
    it: shares of a growth say nothing about what to take away. Variants are counted with the data
    set's classes and channels. Raises `RequestError` for a budget that is out of reach.
    """
    fitted = [fit_to_data(v, num_classes, channels) for v in published_variants()]
    smaller = [v for v in fitted if budget_macs >= BASE_DISTANCE * cost(v).macs]
    if smaller:
        return smaller[-1]
    return scaled_down(fitted[0], budget_macs)


def scaled_down(base: Variant, budget_macs: float) -> Variant:
    """`base` by the paper's constants to a quarter of a budget below it, to grow from there.

    Raises `RequestError` for a budget that is out of reach, and `BudgetError` where integers
    express no such network of 64 px or more.
    """
    require_reach(base, budget_macs)
    scaled = _quarter(base, budget_macs)
    if scaled is None:
        raise BudgetError(
            f"budget {format_macs(budget_macs)} is grown from {base.name} "
            f"({format_macs(cost(base).macs)}) scaled down to a quarter of it, and no such network "
            f"has {LEAST_PROXY_PX} px or more (below, the last stage's attention has one key and "
            f"no gradient); use {format_macs(_least_scaled_down(base, budget_macs))} or more"
        )
    return scaled


def _quarter(base: Variant, budget_macs: float) -> Variant | None:
    scaled = find(base, Scaling(0.0), budget_macs / BASE_GROWTH, stray_cap=1.0)
    if scaled is None or scaled.variant.resolution_px < LEAST_PROXY_PX:
        return None
    return scaled.variant


def _least_scaled_down(base: Variant, budget_macs: float) -> float:
    """A budget a little above the least, of those from here on, that `base` is scaled down for."""
    while _quarter(base, budget_macs) is None:
        budget_macs = rounded_up(1.1 * budget_macs)
    return budget_macs


def require_distance(base: Variant, budget_macs: float) -> None:
    """Raise `RequestError` for a budget within a factor of two of the base's MACs."""
    macs = cost(base).macs
    if 1 / BASE_DISTANCE < budget_macs / macs < BASE_DISTANCE:
        raise RequestError(
            f"base {base.name} ({format_macs(macs)}) is too near to the budget "
            f"{format_macs(budget_macs)}: a base must be at most half or at least twice the "
            f"budget; leave --base away for one that is"
        )


def require_reach(base: Variant, budget_macs: float) -> None:
    """Raise `RequestError` for a budget more than 32 times, or less than 1/32, the base's MACs."""
    macs = cost(base).macs
    if budget_macs > BASE_REACH * macs:
        limit, base_advice = f"{format_macs(BASE_REACH * macs)} or less", "larger"
        ratio = f"{budget_macs / macs:.0f} times"
    elif budget_macs < macs / BASE_REACH:
        limit, base_advice = f"{format_macs(macs / BASE_REACH)} or more", "smaller"
        ratio = f"1/{macs / budget_macs:.0f} of"
    else:
        return
    raise RequestError(
        f"budget {format_macs(budget_macs)} is {ratio} the base {base.name} "
        f"({format_macs(macs)}), and scaling reaches a factor of {BASE_REACH:.0f}; "
        f"use {limit}, or a {base_advice} --base"
    )
