"""How a search looks: the plan before it, and the ranking at its end."""

import json

from rich.console import Console
from rich.markup import escape

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.cli.console import Column, counted, duration, messages, print_table, results
from cmtscale.cli.next_steps import after_search
from cmtscale.data.batches import batches_per_epoch
from cmtscale.record.files import read_json
from cmtscale.record.folder import CHOICE, TEST_READS, VAL_LOSSES
from cmtscale.record.scores import Score, current
from cmtscale.search.candidates import Candidate
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import Plan
from cmtscale.search.settings import Settings
from cmtscale.train.recipe import AUGMENTED_EPOCHS

OFF_BUDGET = "* cannot be chosen: it, or its twin, is off the budget, or it diverged with a seed"
FEW_STEPS = 100  # below, a training has hardly begun


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
    else:
        console.print(
            f"{settings.sampler} asks for up to {settings.trials} candidates, a few at a time"
        )
    largest = max([c.trained.resolution_px for c in plan.candidates], default=0)
    if largest > data.native_px:
        console.print(
            f"inputs of {settings.trained_base.resolution_px} to {largest} px are enlarged from "
            f"{data.native_px} px: resolution means token density here, and what it buys "
            f"(gamma) says nothing about larger images"
        )
    recipe = settings.recipe
    done = f", {plan.runs_done} of them done already" if plan.runs_done else ""
    left = f"about {duration(plan.total_seconds)} from now"
    if plan.runs_done == plan.runs:
        left = "nothing is left to train"
    augmented = ", augmented" if recipe.flip or recipe.shift_fraction else ""
    console.print(
        f"{plan.runs} runs{done}: {counted(recipe.epochs, 'epoch')} of "
        f"{recipe.train_images:,} images in batches of {recipe.batch_size}{augmented}, "
        f"{counted(settings.seeds, 'seed')} each, on {len(plan.devices)} x "
        f"{plan.devices[0].split(':')[0]}; {left}"
    )
    _warn_of_few_steps(settings, console)
    if recipe.epochs >= AUGMENTED_EPOCHS and not augmented:
        console.print(
            f"each image is seen {recipe.epochs} times without augmentation; --augment usually "
            f"pays from {AUGMENTED_EPOCHS} times on"
        )
    console.print(f"results in {plan.folder}", markup=False)


def _warn_of_few_steps(settings: Settings, console: Console) -> None:
    recipe = settings.recipe
    epochs, train_images = settings.horizon
    steps = epochs * batches_per_epoch(train_images, recipe.batch_size)
    if steps < FEW_STEPS:
        console.print(
            f"[bold]warning[/bold]: a training of {steps} steps has hardly begun, and its ranking "
            f"says little; use --epochs or a smaller --batch-size for {FEW_STEPS} steps or more"
        )


def print_outcome(outcome: Outcome) -> None:
    """The ranking, the choice with how sure it is, and the paper's constants beside it."""
    out = results()
    settings, choice = outcome.settings, outcome.choice
    for row in current(outcome.rows, settings.horizon):
        if row.status != "complete":
            messages().print(f"{row.run_id} {row.status}: {row.cause}", markup=False)
    _print_ranking(outcome, out)
    out.print()
    if choice is None:
        out.print("no run on the budget is complete: there is nothing to choose from")
    else:
        _print_choice(outcome, out)
        _warn_of_few_steps(settings, out)
        out.print(f"written to {escape(str(outcome.folder))}: best.toml, choice.json, trials.csv")
    if settings.tour:
        out.print("[bold]This was a tour: it recommends nothing.[/bold]")
    for name, command in after_search(outcome):
        out.print(f"{name}: {command}", markup=False, soft_wrap=True)


def print_json(outcome: Outcome) -> None:
    """The choice as `choice.json` has it, with the folder; null where nothing could be chosen."""
    choice = None if outcome.choice is None else read_json(outcome.folder / CHOICE)
    print(json.dumps({"folder": str(outcome.folder), "choice": choice}, indent=1))


def _print_ranking(outcome: Outcome, out: Console) -> None:
    candidates = {candidate.name: candidate for candidate in outcome.candidates}
    columns = [
        Column("candidate"),
        Column("role", 8),
        Column("depth", 1),
        Column("width", 2),
        Column("res.", 3),
        Column("px", 9),
        Column("val loss"),
        Column("± seeds"),
        Column("accuracy"),
        Column("img/s", 4),
        Column("MACs", 7),
        Column("stray", 6),
    ]
    rows = []
    for score in outcome.ranking:
        candidate = candidates[score.candidate]
        cells = (
            _marked(score.candidate, score.may_win),
            score.role,
            *_share_cells(candidate),
            str(candidate.trained.resolution_px),
            *_score_cells(score),
            format_macs(candidate.macs),
            f"{100 * candidate.stray:.1f} %",
        )
        rows.append(cells)
    choice = outcome.choice
    chosen = choice.winner if choice and choice.verdict == "choice" else None
    bold = [n for n, score in enumerate(outcome.ranking) if score.candidate == chosen]
    print_table(out, columns, rows, bold=bold)
    out.print(
        "val loss: cross-entropy after fitting one temperature, lower is better; px, loss and "
        f"speed are of what was trained, MACs and stray of the real network. {OFF_BUDGET}."
    )


def _print_choice(outcome: Outcome, out: Console) -> None:
    choice, winner, published = outcome.choice, outcome.winner, outcome.paper
    assert choice is not None
    assert winner is not None
    is_choice = choice.verdict == "choice" and not outcome.settings.tour
    what = "choice" if is_choice else "lowest loss on the budget"
    columns = [
        Column(what),
        *(Column(name) for name in ("alpha", "beta", "gamma")),
        Column("phi", 5),
        Column("px", 3),
        Column("dims", 1),
        Column("depths", 2),
        Column("MACs", 4),
        Column("stray", 6),
    ]
    shown = [
        (winner.name, winner.shares, winner.phi, winner.real, winner.macs, winner.stray),
    ]
    if published is not None:
        trained = any(candidate.role == "paper" for candidate in outcome.candidates)
        name = "the paper's constants" if trained else "the paper's, not trained"
        constants = published.scaling.shares
        shown.append(
            (name, constants, published.phi, published.variant, published.macs, published.stray)
        )
    rows = []
    for name, shares, phi, variant, macs, stray in shown:
        cells = (
            name,
            f"{shares.alpha:.3f}",
            f"{shares.beta:.3f}",
            f"{shares.gamma:.3f}",
            f"{phi:.2f}",
            str(variant.resolution_px),
            "-".join(map(str, variant.dims)),
            "-".join(map(str, variant.depths)),
            format_macs(macs),
            f"{100 * stray:.1f} %",
        )
        rows.append(cells)
    if print_table(out, columns, rows):
        real = winner.real
        out.print(
            f"{winner.name}: {format_macs(winner.macs)} MACs, stray {100 * winner.stray:.1f} %, "
            f"phi {winner.phi:.2f}, {real.resolution_px} px, dims {'-'.join(map(str, real.dims))}, "
            f"depths {'-'.join(map(str, real.depths))}"
        )
    if published is None:
        out.print("the paper's constants have no variant at this budget: rounding strays too far")
    if sum(score.may_win for score in choice.ranking) == 1:
        out.print("how sure: no other candidate could be chosen; add --trials for more of them")
    elif choice.sigma is None:
        out.print("how sure: not known, one seed each measures no noise; add --seeds 2 or more")
    else:
        sure = f"not known, {VAL_LOSSES} lacks some of the runs"
        if choice.probability is not None:
            sure = f"best at this training length with probability {choice.probability:.2f}"
        ties = (
            f"; within two standard errors of it: {', '.join(choice.ties)}" if choice.ties else ""
        )
        out.print(
            f"how sure: {sure}; noise between seeds {choice.sigma:.4f} "
            f"({choice.degrees} degrees of freedom){ties}"
        )
    if choice.verdict != "choice":
        out.print(f"[bold]{choice.verdict.capitalize()}[/bold]: {choice.reason}")
    missing = [s.candidate for s in choice.ranking if s.on_budget and s.loss is None]
    if missing:
        out.print(
            f"not in this choice, for no run of theirs is complete: {', '.join(missing)}; "
            f"failed runs are tried again by the same command"
        )
    winner_runs = {row.run_id for row in outcome.rows if row.candidate == winner.name}
    accuracies = [r.accuracy for r in outcome.readings if r.run_id in winner_runs]
    if accuracies:
        out.print(
            f"test accuracy of what was trained: {100 * sum(accuracies) / len(accuracies):.2f} % "
            f"(this search has read the test split {counted(len(outcome.readings), 'time')}, last "
            f"on {outcome.readings[-1].when}; see {TEST_READS})"
        )


def _print_candidates(plan: Plan, console: Console) -> None:
    trained = "twin px" if plan.settings.proxy else "px"
    columns = [
        Column("candidate"),
        Column("role", 6),
        *(Column(name) for name in ("depth", "width", "res.", trained)),
        Column("dim 1", 4),
        Column("blocks"),
        Column("MACs"),
    ]
    if plan.settings.proxy:
        columns += [Column("real px", 1), Column("real dim 1", 3), Column("real blocks", 2)]
        columns += [Column("real MACs", 8), Column("stray", 7)]
    rows = []
    for candidate, seconds in zip(plan.candidates, plan.run_seconds, strict=True):
        real, net = candidate.real, candidate.trained
        cells = [_marked(candidate.name, candidate.on_budget), candidate.role]
        cells += _share_cells(candidate)
        cells += [str(net.resolution_px), str(net.dims[0]), "-".join(map(str, net.depths))]
        cells.append(format_macs(candidate.trained_macs))
        if plan.settings.proxy:
            cells += [str(real.resolution_px), str(real.dims[0]), "-".join(map(str, real.depths))]
            cells += [format_macs(candidate.macs), f"{100 * candidate.stray:.1f} %"]
        rows.append([*cells, duration(seconds)])
    print_table(console, [*columns, Column("a run")], rows)
    if not all(candidate.on_budget for candidate in plan.candidates):
        console.print(OFF_BUDGET)


def _marked(name: str, on_budget: bool) -> str:
    return name if on_budget else f"{name} *"


def _share_cells(candidate: Candidate) -> list[str]:
    if candidate.role == "base":
        return ["", "", ""]
    shares = candidate.shares
    return [f"{part:.2f}" for part in (shares.depth, shares.width, shares.resolution)]


def _score_cells(score: Score) -> list[str]:
    """Loss, its spread, accuracy and speed; without a complete run, what happened instead."""
    if score.loss is None or score.accuracy is None or score.images_per_second is None:
        return ["diverged" if score.diverged else "failed", "–", "–", "–"]
    return [
        f"{score.loss:.4f}",
        "–" if score.loss_sd is None else f"{score.loss_sd:.4f}",
        f"{100 * score.accuracy:.2f} %",
        f"{score.images_per_second:.0f}",
    ]
