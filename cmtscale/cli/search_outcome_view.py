"""The outcome of a search: the ranking, the choice, and how sure it is."""

from rich.console import Console
from rich.markup import escape

from cmtscale.arch.budget import format_macs
from cmtscale.cli.console import Column, counted, messages, print_table, results
from cmtscale.cli.search_words import OFF_BUDGET, marked, share_cells, warn_of_few_steps
from cmtscale.record.folder import TEST_READS, VAL_LOSSES
from cmtscale.record.scores import Score, current
from cmtscale.search.outcome import Outcome


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
        warn_of_few_steps(settings, out)
        out.print(f"written to {escape(str(outcome.folder))}: best.toml, choice.json, trials.csv")
    if settings.tour:
        out.print("[bold]This was a tour: it recommends nothing.[/bold]")


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
            marked(score.candidate, score.may_win),
            score.role,
            *share_cells(candidate),
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
