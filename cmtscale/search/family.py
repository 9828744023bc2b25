"""The family of a choice: smaller budgets, solved with the shares of the network taken."""

from dataclasses import dataclass, replace

from cmtscale.arch.base import scaled_down
from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import BudgetError
from cmtscale.arch.scaling import Shares
from cmtscale.arch.solve import Solution, solve
from cmtscale.arch.twins import LEAST_PROXY_PX
from cmtscale.arch.variant import Variant, network_name
from cmtscale.search.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Member:
    """One smaller budget: what it grows from, and its network; None, and the reason, for none."""

    budget_macs: int
    base: Variant
    solution: Solution | None
    reason: str

    @property
    def file_name(self) -> str:
        """`best-600M.toml`."""
        return f"best-{format_macs(self.budget_macs)}.toml"


def solve_family(settings: Settings, shares: Shares) -> tuple[Member, ...]:
    """Each budget of the family with these shares, the smallest first.

    A member grows from the base of the search. What is smaller than a base that the search grows
    from grows from that base scaled down by the paper's constants: shares of a growth say nothing
    about what to take away.
    """
    return tuple(_member(settings, shares, macs) for macs in settings.family)


def member_base(base: Variant, budget_macs: int, macs: int) -> Variant:
    """What a member of `macs` grows from, where a search of `budget_macs` is based on `base`.

    Raises a `CmtscaleError` where `base` cannot be scaled down for it.
    """
    return scaled_down(base, macs) if macs < cost(base).macs <= budget_macs else base


def _member(settings: Settings, shares: Shares, macs: int) -> Member:
    base = settings.base
    try:
        base = member_base(base, settings.budget_macs, macs)
        solution = solve(
            base,
            alpha=shares.alpha,
            beta=shares.beta,
            gamma=shares.gamma,
            budget_macs=macs,
        )
    except BudgetError as error:
        return Member(budget_macs=macs, base=base, solution=None, reason=str(error))
    side = solution.variant.resolution_px
    if side < LEAST_PROXY_PX:
        reason = (
            f"at {side} px the last stage's attention has one key and no gradient, and with these "
            f"shares {format_macs(macs)} has no more; use a larger budget"
        )
        return Member(budget_macs=macs, base=base, solution=None, reason=reason)
    named = replace(solution.variant, name=network_name(solution.variant))
    return Member(budget_macs=macs, base=base, solution=replace(solution, variant=named), reason="")
