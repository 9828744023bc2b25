"""A check of twins: its plan, how it goes, and what it found."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.cli.check_words import sizes_verdict, tau_cell
from cmtscale.cli.console import Column, counted, duration, print_table, results
from cmtscale.cli.search_plan_view import in_all, runs_left
from cmtscale.cli.search_view import CheckView
from cmtscale.cli.search_words import share_cell
from cmtscale.record.folder import CHECK, TWIN_TABLE, TWINS
from cmtscale.record.twin_check import SizeFound, TwinCheck
from cmtscale.search.agreement import range_of_tau
from cmtscale.search.check_twins import TwinPlan
from cmtscale.search.twin_verdict import networks_needed


class TwinView(CheckView):
    """Prints the plan and each ended run; in between bars move."""

    def planned_twins(self, plan: TwinPlan) -> None:
        _print_plan(plan, self.bars.console)


def _print_plan(plan: TwinPlan, console: Console) -> None:
    settings = plan.settings
    images = settings.images_seen[plan.request.rung - 1]
    if settings.tour:
        console.print("[bold]A tour[/bold] on toy images: it shows how a check goes, and no more.")
    ranked = len(plan.sizes[0].twins)
    console.print(
        f"{ranked} of the {counted(plan.networks, 'network')} on the budget of "
        f"{escape(str(plan.request.folder))} as twins of {len(plan.sizes)} sizes, each with "
        f"{counted(plan.request.seeds, 'seed')}, in runs of {images:,} images"
    )
    own = plan.sizes[0]
    columns = {
        Column("network"): list(own.twins),
        Column("role", 2): [twin.candidate.role for twin in own.twins.values()],
        Column("d/w/r", 1): [share_cell(twin.network) for twin in own.twins.values()],
    }
    for number, (size, part) in enumerate(zip(plan.sizes, plan.plans, strict=True)):
        macs, twins = format_macs(size.macs), size.twins.values()
        columns[Column(f"twin of {macs}", 4)] = [twin.candidate.name for twin in twins]
        columns[Column("off", 5 + number)] = [f"{twin.distance:.2f}" for twin in twins]
        columns[Column(f"run of {macs}", 3)] = [
            duration(part.seconds(twin.candidate.name, plan.request.rung - 1)) for twin in twins
        ]
    left_out = print_table(console, list(columns), list(zip(*columns.values(), strict=True)))
    if "off" not in left_out:
        console.print(
            "off: how far the twin's shares of depth, width and resolution lie from the network's"
        )
    for size, part in zip(plan.sizes, plan.plans, strict=True):
        base = size.settings.trained_base
        console.print(
            f"{format_macs(size.macs)}: grown from {base.name} ({format_macs(cost(base).macs)}, "
            f"{base.resolution_px} px), {runs_left(part)}"
        )
    console.print(in_all(plan.plans, plan.request.folder / TWINS))


def print_twins(folder: Path, check: TwinCheck) -> None:
    """The sizes, how each ranks the networks of the largest, and what that means."""
    out = results()
    columns = {
        Column("twins of"): [format_macs(size.macs) for size in check.sizes],
        Column("grown from", 4): [size.base for size in check.sizes],
        Column("noise", 2): [_number(size.noise) for size in check.sizes],
        Column("spread", 3): [_number(size.spread) for size in check.sizes],
        Column("τ, 95 %"): [tau_cell(size.tau) if size.tau else "–" for size in check.sizes],
        Column("noise alone", 1): [_alone(size) for size in check.sizes],
        Column("regret", 5): [
            f"{100 * size.tau.regret:.1f} %" if size.tau else "–" for size in check.sizes
        ],
    }
    left_out = print_table(out, list(columns), list(zip(*columns.values(), strict=True)))
    notes = ["τ: Kendall's, with the ranking by the largest twins"]
    if "noise" not in left_out:
        notes.append(
            "noise of a run between seeds and spread of the networks, in parts of the loss"
        )
    if "noise alone" not in left_out:
        notes.append("noise alone: what τ would be if nothing but noise told the rankings apart")
    if "regret" not in left_out:
        notes.append("regret: what the best at this size loses at the largest")
    out.print("; ".join(notes))
    out.print()
    for size in check.sizes[:-1]:
        own = ", the search's own" if size.macs == check.own_macs else ""
        out.print(f"{sizes_verdict(check, size)}{own}{_what_would_tell(check, size)}")
    _print_smallest(check, out)
    networks = max((size.tau.networks for size in check.sizes if size.tau), default=0)
    if networks:
        low, high = range_of_tau(check.threshold, networks)
        out.print(
            f"A check can refute twins and never certifies them: where τ is {check.threshold:g} in "
            f"truth, {networks} networks show {low:.2f} to {high:.2f} (95 %)."
        )
    out.print(f"written to {escape(str(folder / TWINS))}: {CHECK}, {TWIN_TABLE}")
    if check.tour:
        out.print("[bold]This was a tour: it says nothing of your images.[/bold]")
    out.print(f"figures: cmtscale plot {folder}", markup=False, soft_wrap=True)


def print_twins_json(folder: Path, check: TwinCheck) -> None:
    """The check as `check.json` has it, with the folder."""
    print(json.dumps({"folder": str(folder), "check": asdict(check)}, indent=1))


def _print_smallest(check: TwinCheck, out: Console) -> None:
    if check.smallest_macs is None:
        out.print(f"No smaller twins reach a τ of {check.threshold:g}.")
        return
    sure = "and" if check.is_above else "but not"
    out.print(
        f"The smallest twins that reach a τ of {check.threshold:g}: "
        f"{format_macs(check.smallest_macs)}, {sure} with the whole interval."
    )


def _what_would_tell(check: TwinCheck, size: SizeFound) -> str:
    """What would probably say on which side of the threshold a size is; empty where it is known."""
    tau = size.tau
    if tau is None:
        return ""
    if size.verdict == "refuted" or tau.low > check.threshold:
        return ""
    if tau.alone is not None and tau.alone[0] < check.threshold:
        return f"; noise alone leaves τ at {tau.alone[0]:.2f}: more --seeds, or a longer --rung"
    needed = networks_needed(tau, check.threshold)
    return (
        f"; about {needed} networks would tell" if needed else "; not a hundred networks would tell"
    )


def _alone(size: SizeFound) -> str:
    if size.tau is None or size.tau.alone is None:
        return "–"
    mean, low, high = size.tau.alone
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
