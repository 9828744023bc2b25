"""The plan of a search: what will be trained, what it costs, how long it takes."""

import math
from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.cli.console import Column, counted, duration, print_table
from cmtscale.cli.search_words import excluding, explain, share_cell, warn_of_few_steps
from cmtscale.record.folder import free_bytes
from cmtscale.search.plan import Plan
from cmtscale.search.screen import limit_text
from cmtscale.search.sharing import GAIN
from cmtscale.train.recipe import AUGMENTED_EPOCHS


def print_plan(plan: Plan, console: Console) -> None:
    """What will be trained, what it costs, how long it takes."""
    settings, data = plan.settings, plan.dataset
    budget = format_macs(settings.budget_macs)
    if settings.tour:
        console.print(
            "[bold]A tour[/bold] on toy images: it shows how a search goes and recommends nothing. "
            "For an answer, search with your images (--data folder:PATH)."
        )
    console.print(
        f"budget {budget} MACs (G = 10⁹ multiply-adds, which papers call FLOPs), "
        f"base {settings.base.name} ({format_macs(cost(settings.base).macs)}), "
        f"data {escape(settings.data)}: {len(data.splits.train):,} train, "
        f"{len(data.splits.val):,} val, {len(data.splits.test):,} test images "
        f"of {data.native_px} px"
    )
    if settings.proxy:
        console.print(
            f"trained are twins of {format_macs(settings.trained_macs)} MACs with the candidates' "
            f"shares, grown from {settings.trained_base.name} "
            f"({format_macs(cost(settings.trained_base).macs)}, "
            f"{settings.trained_base.resolution_px} px)"
        )
    if plan.candidates:
        _print_candidates(plan, console)
        mixed = sum(c.role in ("compound", "paper") for c in plan.candidates)
        if mixed < settings.trials:
            within = " within the limits" if settings.limits else ""
            console.print(
                f"integers express no more than {counted(mixed, 'mixture')} at this size{within}"
            )
    else:
        console.print(
            f"{settings.sampler} asks for up to {settings.trials} candidates, a few at a time"
        )
    _print_limits(plan, console)
    largest = max([c.trained.resolution_px for c in plan.candidates], default=0)
    if largest > data.native_px:
        console.print(
            f"inputs of {settings.trained_base.resolution_px} to {largest} px are enlarged from "
            f"{data.native_px} px: resolution means token density here, and what it buys "
            f"(gamma) says nothing about larger images"
        )
    _print_runs(plan, console)
    warn_of_few_steps(settings, console)
    recipe, most_epochs = settings.recipe, settings.horizons[-1][0]
    if most_epochs >= AUGMENTED_EPOCHS and not (recipe.flip or recipe.shift_fraction):
        console.print(
            f"each image is seen {most_epochs} times without augmentation; --augment usually "
            f"pays from {AUGMENTED_EPOCHS} times on"
        )
    console.print(f"results in {plan.folder}", markup=False)
    _print_disk(plan, console)


def _print_disk(plan: Plan, console: Console) -> None:
    """What the results will need of the disk, and a warning where less is free."""
    if not plan.disk_bytes:
        return
    needed, free = decimal(plan.disk_bytes), free_bytes(plan.folder)
    console.print(f"disk: about {needed} from now, {decimal(free)} free")
    if free < plan.disk_bytes:
        console.print(
            f"[bold]warning[/bold]: the disk is too small by about "
            f"{decimal(plan.disk_bytes - free)}: the search will stop when it is full, lose "
            f"nothing, and go on with the same command; free some space, or use another --out"
        )


def runs_left(plan: Plan) -> str:
    """`12 runs, 4 of them done already; 3 min 20 s`: those of one side of a check."""
    done = f", {plan.runs_done} of them done already" if plan.runs_done else ""
    left = "nothing is left" if plan.runs_done == plan.runs else duration(plan.total_seconds)
    return f"{plan.runs} runs{done}; {left}"


def in_all(plans: Collection[Plan], folder: Path) -> str:
    """How long all sides of a check take, on what, and where its results go."""
    left = f"about {duration(sum(plan.total_seconds for plan in plans))} from now"
    if all(plan.runs_done == plan.runs for plan in plans):
        left = "nothing is left to train"
    devices = next(iter(plans)).devices
    return (
        f"in all {left} on {len(devices)} x {devices[0].split(':')[0]}; results in "
        f"{escape(str(folder))}"
    )


def _print_limits(plan: Plan, console: Console) -> None:
    """What the limits leave, and what is solved beside the searched budget."""
    settings, screened = plan.settings, plan.screened
    if screened is not None:
        parts = [
            f"{limit_text(name, settings.limits[name])} excludes {count}"
            + (f" of {screened.timed} timed" if name == "latency" else "")
            for name, count in screened.excluded.items()
        ]
        console.print(
            f"the limits leave {screened.left} of {screened.networks} networks at this budget: "
            f"{', '.join(parts)}"
        )
    if settings.family:
        console.print(
            f"searched is {format_macs(settings.budget_macs)}; "
            f"{', '.join(map(format_macs, settings.family))} then get the shares of the network "
            f"taken"
        )


def _print_runs(plan: Plan, console: Console) -> None:
    """The rungs, what of them is certain, how long it takes, and what is answered."""
    settings, ladder = plan.settings, plan.settings.ladder
    augmented = ", augmented" if settings.recipe.flip or settings.recipe.shift_fraction else ""
    horizons = " / ".join(
        f"{images:,}" if epochs == 1 else f"{epochs} x {images:,}"
        for epochs, images in settings.horizons
    )
    times = "once" if settings.seeds == 1 else f"{settings.seeds} times"
    console.print(
        f"runs of {horizons} images in batches of {settings.recipe.batch_size}{augmented}, each "
        f"with its own full schedule; every candidate {times} at {settings.images_seen[0]:,}"
        + (", the corners and the centre at all" if ladder.rungs > 1 else "")
    )
    done = f", {plan.runs_done} of them done already" if plan.runs_done else ""
    more = ", then what the forecast asks for" if plan.decides else ""
    left = f"{'at most' if more else 'about'} {duration(plan.total_seconds)} from now"
    if plan.runs_done == plan.runs and not more:
        left = "nothing is left to train"
    console.print(
        f"{plan.runs} runs{done}{more}, on {len(plan.devices)} x "
        f"{plan.devices[0].split(':')[0]}; {left}"
    )
    _print_sharing(plan, console)
    if settings.max_seconds is not None:
        console.print(
            f"all of it ends within {duration(settings.max_seconds)}, sooner where the answer is "
            f"sure (--max-time)"
        )
    elif ladder.spend and not plan.decides:
        console.print(
            f"these cost more than the ladder spends ({ladder.spend:g}): the forecast asks for no "
            f"more runs; raise --spend for some"
        )
    console.print(
        f"the answer is for a training of {settings.target_images:,} images seen: what lies within "
        f"{100 * settings.tolerance:g} % of the lowest loss, and of that the network with the "
        f"lowest {settings.prefer}"
    )


def _print_sharing(plan: Plan, console: Console) -> None:
    """How many runs share each GPU, and why, where that was measured."""
    sharing = plan.timings.sharing
    speeds = sharing.images_per_second if sharing else ()
    share, rest = divmod(len(plan.devices), len(set(plan.devices)))
    together = dict(zip((2**level for level in range(len(speeds))), speeds, strict=True))
    if rest or share not in together:
        return
    if share > 1:
        console.print(
            f"{share} runs share each GPU: {together[share]:,.0f} images/s together, "
            f"{together[1]:,.0f} alone (measured)"
        )
    elif together.get(2, math.inf) < GAIN * together[1]:
        console.print(
            f"one run at a time on each GPU: two together gain too little, {together[2]:,.0f} "
            f"images/s for {together[1]:,.0f} alone (measured)"
        )


def _print_candidates(plan: Plan, console: Console) -> None:
    settings, candidates = plan.settings, plan.candidates
    reasons = [excluding(candidate, settings) for candidate in candidates]
    columns = {
        Column("candidate"): [candidate.name for candidate in candidates],
        Column("role", 3): [candidate.role for candidate in candidates],
        Column("d/w/r", 1): [share_cell(candidate) for candidate in candidates],
    }
    if settings.proxy:
        columns[Column("twin MACs", 4)] = [format_macs(c.trained_macs) for c in candidates]
        columns[Column("real network", 2)] = [candidate.real.name for candidate in candidates]
    columns[Column("MACs")] = [format_macs(candidate.macs) for candidate in candidates]
    if settings.proxy:
        columns[Column("stray")] = [f"{100 * candidate.stray:.1f} %" for candidate in candidates]
    for rung, images in enumerate(settings.images_seen):
        rank = 0 if rung == 0 else 5 + rung
        columns[Column(f"run of {images:,}", rank)] = [
            duration(plan.seconds(candidate.name, rung)) for candidate in candidates
        ]
    if any(reasons):
        columns[Column("excluded")] = [", ".join(r.cell for r in own) for own in reasons]
    left_out = print_table(console, list(columns), list(zip(*columns.values(), strict=True)))
    name = "candidate: blocks of each stage, first dim and px of what is trained"
    notes = []
    if "d/w/r" not in left_out:
        notes.append("d/w/r: what depth, width and resolution take of the growth")
    if settings.proxy:
        name += "; MACs and stray are of the real network"
        notes.append("stray: the part of the cost that rounding moved from one axis to another")
    console.print(name)
    if notes:
        console.print("; ".join(notes))
    explain((reason for own in reasons for reason in own), console)
