"""The answer of a search: the ranking at the target, the network taken, and how sure that is."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape

from cmtscale.arch.budget import format_macs
from cmtscale.arch.scaling import Shares
from cmtscale.arch.variant import Variant
from cmtscale.cli.check_words import beside_answer, rates_verdict
from cmtscale.cli.console import Column, counted, messages, print_table, results
from cmtscale.cli.next_steps import after_search
from cmtscale.cli.search_family_view import print_family
from cmtscale.cli.search_words import (
    DIVERGED,
    FAILED,
    INFEASIBLE,
    UNTIMED,
    Reason,
    excluding,
    explain,
    share_cell,
    warn_of_few_steps,
)
from cmtscale.cli.verdict_words import verdict
from cmtscale.cli.winner_view import print_winner
from cmtscale.record.choice import DECIDED
from cmtscale.record.folder import BEST, CHOICE, TEST_READS, TRIALS
from cmtscale.record.result import UNSOUND
from cmtscale.record.winner import WinnerRecord
from cmtscale.search.candidates import Candidate
from cmtscale.search.choose import Choice
from cmtscale.search.outcome import Outcome, described
from cmtscale.search.runs import ended_rows
from cmtscale.search.screen import limit_text
from cmtscale.search.standings import Interval, Standing


def print_outcome(outcome: Outcome) -> None:
    """What a search that has ended leaves: its answer, and where it is written."""
    out = results()
    _print_causes(outcome, messages())
    print_answer(outcome, out)
    if outcome.choice is not None:
        warn_of_few_steps(outcome.settings, out)
        family = [member.file_name for member in outcome.family if member.solution is not None]
        files = ", ".join([BEST, *family, CHOICE, TRIALS])
        out.print(f"written to {escape(str(outcome.folder))}: {files}")
    if outcome.settings.tour:
        out.print("[bold]This was a tour: it recommends nothing.[/bold]")


def print_steps(outcome: Outcome, trained: WinnerRecord | None) -> None:
    """The commands that can come next, where `trained` is trained fully of it."""
    for name, command in after_search(outcome, trained):
        results().print(f"{name}: {command}", markup=False, soft_wrap=True)


def print_shown(outcome: Outcome, record: WinnerRecord | None) -> None:
    """What a search answers now: what it has trained, its answer, and what comes next."""
    out, settings = results(), outcome.settings
    ended = ended_rows(settings, outcome.rows).values()
    trained = ", ".join(
        f"{counted(sum(row.horizon == horizon for row in ended), 'run')} of {images:,} images"
        for horizon, images in zip(settings.horizons, settings.images_seen, strict=True)
    )
    counts = {status: sum(row.status == status for row in ended) for status in UNSOUND}
    unsound = " and ".join(f"{count} {status}" for status, count in counts.items() if count)
    limits = "".join(f", {limit_text(name, most)}" for name, most in settings.limits.items())
    out.print(
        f"{escape(str(outcome.folder))}: budget {format_macs(settings.budget_macs)} MACs{limits}, "
        f"data {escape(settings.data)}; so far {trained}"
        + (f", of which {unsound}" if unsound else "")
    )
    _print_causes(outcome, out)
    print_answer(outcome, out)
    print_winner(outcome, record)
    print_steps(outcome, record)


def print_answer(outcome: Outcome, out: Console) -> None:
    """The ranking, the network taken, what else could be taken, and how sure that is."""
    choice = outcome.choice
    _print_ranking(outcome, out)
    out.print()
    if choice is None:
        within = " and within the limits" if outcome.settings.limits else ""
        out.print(f"no run on the budget{within} is complete: there is nothing to choose from")
        if outcome.untimed:
            out.print(
                f"the latency of {counted(len(outcome.untimed), 'network')} is not measured here; "
                f"measure it: cmtscale search --from {outcome.folder}",
                markup=False,
                soft_wrap=True,
            )
        return
    _print_networks(outcome, choice, out)
    print_family(outcome, out)
    _print_comparisons(choice, out)
    out.print()
    out.print(verdict(outcome, choice))
    for reason in outcome.damaged:
        out.print(f"a check is left out: {reason}", markup=False, soft_wrap=True)
    _print_noise(outcome, choice, out)
    if outcome.rate_check is not None:
        out.print(f"learning rate: checked: {rates_verdict(outcome.rate_check)}")
    _print_test(outcome, choice, out)


def print_json(outcome: Outcome, trained: WinnerRecord | None) -> None:
    """The choice as `choice.json` has it, with the folder; null where nothing could be chosen.

    And what was trained fully, as `winner.json` has it, if anything was.
    """
    table: dict[str, Any] = {"folder": str(outcome.folder), "choice": described(outcome)}
    if trained is not None:
        table["winner"] = asdict(trained)
    print(json.dumps(table, indent=1))


def _print_causes(outcome: Outcome, console: Console) -> None:
    """A line for each run that did not end well: at which step it diverged, or why it failed."""
    for row in outcome.rows:
        if row.status != "complete" and row.horizon in outcome.settings.horizons:
            console.print(f"{row.run_id} {row.status}: {row.cause}", markup=False, soft_wrap=True)


def _print_ranking(outcome: Outcome, out: Console) -> None:
    settings, standings, choice = outcome.settings, outcome.standings, outcome.choice
    candidates = [outcome.candidate(standing.candidate) for standing in standings]
    reasons = [_reasons(s, c, outcome) for s, c in zip(standings, candidates, strict=True)]
    columns = {
        Column("candidate"): [standing.candidate for standing in standings],
        Column("role", 9): [standing.score.role for standing in standings],
        Column("d/w/r", 3): [share_cell(candidate) for candidate in candidates],
    }
    is_forecast = choice is not None and choice.noise is not None
    if is_forecast:
        target = f"loss at {settings.target_images:,}"
        columns[Column(target)] = [_median(standing.loss) for standing in standings]
        columns[Column("90 %", 1)] = [_range(standing.loss) for standing in standings]
        winnable = [s if s.may_win else None for s in standings]
        columns[Column("near")] = [_number(s.near if s else None, 2) for s in winnable]
        columns[Column("best", 6)] = [_number(s.best if s else None, 2) for s in winnable]
    columns |= {
        Column("runs", 5): ["/".join(map(str, standing.runs)) for standing in standings],
        Column("val loss", 7 if is_forecast else 0): [
            _number(standing.longest.loss, 4) for standing in standings
        ],
        Column("accuracy", 2): [_percent(standing.longest.accuracy) for standing in standings],
        Column("after", 4): [f"{standing.longest_images:,}" for standing in standings],
        Column("MACs", 8): [format_macs(candidate.macs) for candidate in candidates],
    }
    if any(reasons):
        columns[Column("excluded")] = [", ".join(r.cell for r in own) for own in reasons]
    decided = choice.taken if choice is not None and choice.verdict in DECIDED else None
    bold = [n for n, standing in enumerate(standings) if standing.candidate == decided]
    left_out = print_table(out, list(columns), list(zip(*columns.values(), strict=True)), bold=bold)
    notes = ["losses are cross-entropies after fitting one temperature, lower is better"]
    if is_forecast:
        notes.append(
            f"near: the probability of being within {100 * settings.tolerance:g} % of the lowest "
            f"loss of those that can be chosen"
        )
    if "runs" not in left_out and len(settings.images_seen) > 1:
        notes.append("runs: at each rung; loss and accuracy are of the longest")
    if settings.proxy:
        notes.append("all are of what was trained, MACs of the real network")
    out.print("; ".join(notes))
    explain((reason for own in reasons for reason in own), out)


def _reasons(standing: Standing, candidate: Candidate, outcome: Outcome) -> list[Reason]:
    """Every reason why a candidate cannot be chosen; none for one that can."""
    is_untimed = candidate.name in outcome.untimed
    reasons = [UNTIMED] if is_untimed else excluding(candidate, outcome.settings)
    if standing.score.diverged:
        reasons.append(DIVERGED)
    elif standing.score.infeasible:
        reasons.append(INFEASIBLE)
    elif not any(standing.runs):
        reasons.append(FAILED)
    return reasons


def _print_networks(outcome: Outcome, choice: Choice, out: Console) -> None:
    """The network taken at the real budget, and the paper's constants solved to it."""
    winner = outcome.winner
    assert winner is not None
    is_choice = choice.verdict in DECIDED and not outcome.settings.tour
    labels = ["trained as", "alpha", "beta", "gamma", "phi"]
    labels += ["resolution", "dims", "depths", "MACs", "stray"]
    name = "lowest loss on the budget" if choice.probability is None else "would be taken"
    columns = [Column(""), Column("choice" if is_choice else name)]
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


def _print_comparisons(choice: Choice, out: Console) -> None:
    if not choice.comparisons:
        return
    columns = [Column("beside it"), Column("loss"), Column("90 %", 1), Column("above it")]
    rows = [
        [
            other.name,
            _median(other.loss),
            _range(other.loss),
            f"{100 * other.excess.median:+.1f} % ({100 * other.excess.low:+.1f} to "
            f"{100 * other.excess.high:+.1f})",
        ]
        for other in choice.comparisons
    ]
    out.print()
    print_table(out, columns, rows)


def _print_noise(outcome: Outcome, choice: Choice, out: Console) -> None:
    """Four uncertainties, kept apart."""
    if choice.bend:
        out.print(f"[bold]warning[/bold]: {choice.bend}")
    noise = choice.noise
    if noise is None:
        return
    seeds = ", ".join(
        f"{sigma:.3f} at {images:,}"
        for sigma, images in zip(noise.seeds, outcome.settings.images_seen, strict=True)
    )
    parts = [f"between seeds {seeds} ({noise.degrees} degrees of freedom)"]
    if noise.images is not None and noise.forecast is not None:
        parts.append(
            f"between the two most probable: {noise.images:.3f} from the validation images, "
            f"{noise.forecast:.3f} from all together at {choice.target_images:,}"
        )
    out.print(f"noise, in parts of the loss: {'; '.join(parts)}")
    if outcome.settings.proxy:
        out.print(beside_answer(outcome.twin_check, outcome.settings.trained_macs))


def _print_test(outcome: Outcome, choice: Choice, out: Console) -> None:
    """Of the network taken, by its runs of the length that the answer shows."""
    images = choice.standing.longest_images
    winner_runs = {
        row.run_id
        for row in outcome.rows
        if row.candidate == choice.taken and row.images_seen == images
    }
    accuracies = [r.accuracy for r in outcome.readings if r.run_id in winner_runs]
    if accuracies:
        out.print(
            f"test accuracy of what was trained, after {images:,} images: "
            f"{100 * sum(accuracies) / len(accuracies):.2f} % "
            f"(this search has read the test split {counted(len(outcome.readings), 'time')}, last "
            f"on {outcome.readings[-1].when}; see {TEST_READS})"
        )


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


def _median(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.median:.4f}"


def _range(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.3f}–{interval.high:.3f}"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f} %"
