"""A check of the learning rate: its plan, how it goes, and what it found."""

import json
import math
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cmtscale.cli.check_words import factor_name, percent, rates_verdict
from cmtscale.cli.console import Column, counted, duration, print_table, results
from cmtscale.cli.search_plan_view import in_all, runs_left
from cmtscale.cli.search_view import CheckView
from cmtscale.cli.search_words import share_cell
from cmtscale.record.folder import CHECK, RATE_TABLE, RATES
from cmtscale.record.rate_check import AnchorFound, RateCheck, RateLine
from cmtscale.search.check_rates import RatePlan
from cmtscale.search.rate_verdict import FACTORS


class RateView(CheckView):
    """Prints the plan and each ended run; in between bars move."""

    def planned_rates(self, plan: RatePlan) -> None:
        _print_plan(plan, self.bars.console)


def _print_plan(plan: RatePlan, console: Console) -> None:
    settings, rung = plan.settings, plan.request.rung - 1
    if settings.tour:
        console.print("[bold]A tour[/bold] on toy images: it shows how a check goes, and no more.")
    console.print(
        f"{counted(len(plan.anchors), 'network')} of {escape(str(plan.request.folder))}, its "
        f"corners and centre, at {len(plan.plans)} learning rates, each with "
        f"{counted(plan.request.seeds, 'seed')}, in runs of {settings.images_seen[rung]:,} images"
    )
    own = plan.plans[1.0]
    columns = {
        Column("network"): [anchor.name for anchor in plan.anchors],
        Column("role"): [anchor.role for anchor in plan.anchors],
        Column("d/w/r", 1): [share_cell(anchor) for anchor in plan.anchors],
        Column("a run"): [duration(own.seconds(anchor.name, rung)) for anchor in plan.anchors],
    }
    print_table(console, list(columns), list(zip(*columns.values(), strict=True)))
    for factor, part in plan.plans.items():
        whose = "the search's own" if factor == 1 else factor_name(factor)
        console.print(f"peak rate {part.settings.recipe.lr:g} ({whose}): {runs_left(part)}")
    console.print(in_all(plan.plans.values(), plan.request.folder / RATES))


def print_rates(folder: Path, check: RateCheck) -> None:
    """Each network at each rate, whether their order and the choice change, and what that means."""
    out = results()
    columns = {
        Column("role"): [anchor.role for anchor in check.anchors],
        Column("network", 2): [anchor.network for anchor in check.anchors],
    }
    for factor in FACTORS:
        lines = [check.line(anchor.network, factor) for anchor in check.anchors]
        columns[Column(factor_name(factor))] = list(map(_loss, lines))
    columns[Column("lowest", 1)] = list(map(_lowest, check.anchors))
    columns[Column("than at ×1")] = [_change(_best_other(check, x)) for x in check.anchors]
    print_table(out, list(columns), list(zip(*columns.values(), strict=True)))
    out.print(
        f"losses at ½, 1 and 2 times the search's peak rate of {check.lr:g}, means of "
        f"{counted(check.seeds, 'seed')} after {check.images_seen:,} images; than at ×1: the best "
        f"of the two other rates, with its standard error"
    )
    edges = [anchor.role for anchor in check.anchors if anchor.lowest not in (None, 1.0)]
    if edges:
        out.print(
            f"edge: the lowest loss of {', '.join(edges)} is at the last rate tried; the true "
            f"optimum may lie beyond"
        )
    if check.noise is not None:
        out.print(
            f"noise of a run between seeds: {check.noise:.3f}, in parts of the loss, of all rates "
            f"together ({check.degrees} degrees of freedom)"
        )
    out.print()
    _print_findings(check, out)
    _print_order(check, out)
    _print_choice(check, out)
    out.print(f"[bold]{rates_verdict(check)}[/bold]")
    if check.alone is not None:
        out.print(
            f"If the rate made no difference, the best of three would look "
            f"{percent(check.alone.gain)} better by noise alone, and some network would seem to "
            f"want another rate in {100 * check.alone.chance:.0f} of 100 checks."
        )
    out.print(f"written to {escape(str(folder / RATES))}: {CHECK}, {RATE_TABLE}")
    if check.tour:
        out.print("[bold]This was a tour: it says nothing of your images.[/bold]")


def print_rates_json(folder: Path, check: RateCheck) -> None:
    """The check as `check.json` has it, with the folder."""
    print(json.dumps({"folder": str(folder), "check": asdict(check)}, indent=1))


def _print_findings(check: RateCheck, out: Console) -> None:
    """Which networks want another rate, and which do not."""
    for anchor in check.wanting:
        assert anchor.wants is not None
        line, name = check.line(anchor.network, anchor.wants), factor_name(anchor.wants)
        better = f"better at {name}: {_change(line)}"
        out.print(f"{anchor.role}: {better if line.change else f'trains at {name}, not at ×1'}")
    others = [anchor.role for anchor in check.anchors if anchor.wants is None]
    if others and check.noise is not None:
        out.print(f"{', '.join(others)}: no rate is better by more than two standard errors")


def _print_order(check: RateCheck, out: Console) -> None:
    if any(line.loss is None and line.is_sound for line in check.lines):
        out.print("order: not known at each rate, for some runs are not complete")
    elif not check.swaps:
        out.print("order: the same at each rate")
    for swap in check.swaps:
        noise = ", which noise may have done" if swap.by_noise else ", by more than the noise"
        out.print(
            f"order: at {factor_name(swap.factor)} {swap.first} comes before {swap.second}{noise}"
        )


def _print_choice(check: RateCheck, out: Console) -> None:
    if check.regret is None:
        return
    alone = f" (noise alone: {percent(check.alone.regret)})" if check.alone else ""
    hidden = ""
    if check.may_lose is not None:
        hidden = f", and at most {percent(check.may_lose)} within two standard errors"
    out.print(
        f"choice: with its own best rate for each network, the best at ×1 loses "
        f"{percent(check.regret)}{alone}{hidden}"
    )


def _best_other(check: RateCheck, anchor: AnchorFound) -> RateLine | None:
    """The other rate at which a network does best; None where none is comparable."""
    lines = [check.line(anchor.network, factor) for factor in FACTORS if factor != 1]
    known = [line for line in lines if line.change is not None]
    return min(known, key=lambda line: line.change or 0.0, default=None)


def _change(line: RateLine | None) -> str:
    """`−3.1 % ± 1.2 %`."""
    if line is None or line.change is None:
        return "–"
    change = math.expm1(line.change)
    error = "" if line.error is None else f" ± {percent(line.error)}"
    return f"{'−' if change < 0 else '+'}{percent(abs(change))}{error}"


def _loss(line: RateLine) -> str:
    if line.diverged:
        return "diverged"
    if line.infeasible:
        return "infeasible"
    return "–" if line.loss is None else f"{line.loss:.4f}"


def _lowest(anchor: AnchorFound) -> str:
    if anchor.lowest is None:
        return "–"
    name = factor_name(anchor.lowest)
    return name if anchor.lowest == 1 else f"{name} edge"
