"""The outcome of a search: the ranking, the choice, and how sure it is."""

import json

from rich.console import Console
from rich.markup import escape

from cmtscale.arch.budget import format_macs
from cmtscale.arch.scaling import Shares
from cmtscale.arch.variant import Variant
from cmtscale.cli.console import Column, counted, messages, print_table, results
from cmtscale.cli.next_steps import after_search
from cmtscale.cli.search_words import (
    DIVERGED,
    FAILED,
    explain_tags,
    off_budget_tag,
    share_cell,
    warn_of_few_steps,
)
from cmtscale.record.files import read_json
from cmtscale.record.folder import BEST, CHOICE, TEST_READS, TRIALS, VAL_LOSSES
from cmtscale.record.scores import Score, current
from cmtscale.search.candidates import Candidate
from cmtscale.search.choose import Choice
from cmtscale.search.outcome import Outcome
from cmtscale.search.settings import Settings


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
        out.print(f"written to {escape(str(outcome.folder))}: {BEST}, {CHOICE}, {TRIALS}")
    if settings.tour:
        out.print("[bold]This was a tour: it recommends nothing.[/bold]")
    for name, command in after_search(outcome):
        out.print(f"{name}: {command}", markup=False, soft_wrap=True)


def print_json(outcome: Outcome) -> None:
    """The choice as `choice.json` has it, with the folder; null where nothing could be chosen."""
    choice = None if outcome.choice is None else read_json(outcome.folder / CHOICE)
    print(json.dumps({"folder": str(outcome.folder), "choice": choice}, indent=1))


def _print_ranking(outcome: Outcome, out: Console) -> None:
    settings, ranking = outcome.settings, outcome.ranking
    by_name = {candidate.name: candidate for candidate in outcome.candidates}
    candidates = [by_name[score.candidate] for score in ranking]
    tags = [_tags(score, by_name[score.candidate], settings) for score in ranking]
    columns = {
        Column("candidate"): [score.candidate for score in ranking],
        Column("role", 5): [score.role for score in ranking],
        Column("d/w/r", 1): [share_cell(candidate) for candidate in candidates],
        Column("val loss"): [_number(score.loss, 4) for score in ranking],
        Column("± seeds"): [_number(score.loss_sd, 4) for score in ranking],
        Column("accuracy"): [_percent(score.accuracy) for score in ranking],
        Column("img/s", 2): [_number(score.images_per_second) for score in ranking],
        Column("MACs", 4): [format_macs(candidate.macs) for candidate in candidates],
    }
    if settings.proxy:
        columns[Column("stray", 3)] = [f"{100 * candidate.stray:.1f} %" for candidate in candidates]
    if any(tags):
        columns[Column("excluded")] = [", ".join(reasons) for reasons in tags]
    choice = outcome.choice
    chosen = choice.winner if choice and choice.verdict == "choice" else None
    bold = [n for n, score in enumerate(ranking) if score.candidate == chosen]
    print_table(out, list(columns), list(zip(*columns.values(), strict=True)), bold=bold)
    note = "val loss: cross-entropy after fitting one temperature, lower is better"
    if settings.proxy:
        note += (
            "; loss, accuracy and speed are of what was trained, MACs and stray of the real network"
        )
    out.print(note)
    explain_tags({reason for reasons in tags for reason in reasons}, out)


def _tags(score: Score, candidate: Candidate, settings: Settings) -> list[str]:
    """Every reason why a candidate cannot be chosen; none for one that can."""
    tags = [] if score.on_budget else [off_budget_tag(candidate, settings)]
    if score.diverged:
        tags.append(DIVERGED)
    elif score.loss is None:
        tags.append(FAILED)
    return tags


def _print_choice(outcome: Outcome, out: Console) -> None:
    choice, winner = outcome.choice, outcome.winner
    assert choice is not None
    assert winner is not None
    _print_networks(outcome, choice, winner, out)
    _print_certainty(choice, out)
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


def _print_networks(outcome: Outcome, choice: Choice, winner: Candidate, out: Console) -> None:
    """The winner at the real budget, and the paper's constants solved to it."""
    is_choice = choice.verdict == "choice" and not outcome.settings.tour
    labels = ["trained as", "alpha", "beta", "gamma", "phi"]
    labels += ["resolution", "dims", "depths", "MACs", "stray"]
    columns = [Column(""), Column("choice" if is_choice else "lowest loss on the budget")]
    networks = [
        [
            winner.name,
            *_growth_cells(winner.shares, winner.phi),
            *_network_cells(winner.real, winner.macs, winner.stray),
        ]
    ]
    published = outcome.paper
    if published is not None:
        columns.append(Column("the paper's constants"))
        trained = [
            candidate.name
            for candidate in outcome.candidates
            if candidate.role == "paper" or candidate.real.same_network(published.variant)
        ]
        networks.append(
            [
                trained[0] if trained else "not trained",
                *_growth_cells(published.scaling.shares, published.phi),
                *_network_cells(published.variant, published.macs, published.stray),
            ]
        )
    print_table(out, columns, list(zip(labels, *networks, strict=True)))
    if published is None:
        out.print("the paper's constants have no variant at this budget: rounding strays too far")


def _growth_cells(shares: Shares, phi: float) -> list[str]:
    return [f"{shares.alpha:.3f}", f"{shares.beta:.3f}", f"{shares.gamma:.3f}", f"{phi:.2f}"]


def _network_cells(network: Variant, macs: int, stray: float) -> list[str]:
    return [
        f"{network.resolution_px} px",
        "-".join(map(str, network.dims)),
        "-".join(map(str, network.depths)),
        format_macs(macs),
        f"{100 * stray:.1f} %",
    ]


def _print_certainty(choice: Choice, out: Console) -> None:
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


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f} %"
