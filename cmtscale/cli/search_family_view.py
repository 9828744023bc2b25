"""The family of a search: the network of each budget, from the shares of the one taken."""

from rich.console import Console

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.cli.console import Column, print_table
from cmtscale.search.outcome import Outcome


def print_family(outcome: Outcome, out: Console) -> None:
    """The networks of the smaller budgets, and last that of the searched one; nothing without."""
    settings, winner, members = outcome.settings, outcome.winner, outcome.family
    if winner is None or not members:
        return
    networks = [
        (member.budget_macs, member.base, member.solution.variant, member.solution.stray)
        for member in members
        if member.solution is not None
    ]
    networks.append((settings.budget_macs, settings.base, winner.real, winner.stray))
    columns = [Column("family"), Column("network"), Column("grown from", 2)]
    columns += [Column("MACs"), Column("params"), Column("stray", 1)]
    rows = [
        [
            format_macs(budget),
            network.name,
            base.name,
            format_macs(cost(network).macs),
            format_macs(cost(network).params),
            f"{100 * stray:.1f} %",
        ]
        for budget, base, network, stray in networks
    ]
    out.print()
    print_table(out, columns, rows)
    limits = ", which the limits hold for" if settings.limits else ""
    searched = format_macs(settings.budget_macs)
    out.print(f"searched was {searched}{limits}; the others have the shares of its network")
    for member in members:
        if member.solution is None:
            out.print(f"{format_macs(member.budget_macs)}: {member.reason}", markup=False)
