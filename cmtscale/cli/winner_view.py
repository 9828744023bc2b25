"""The trained choice of a search beside other networks: cost, latency and scores, in a table."""

from pathlib import Path

from rich.console import Console

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import ResultsError
from cmtscale.cli.bench_view import milliseconds
from cmtscale.cli.console import Column, counted, duration, messages, print_table, results
from cmtscale.record.choice import DECIDED
from cmtscale.record.winner import WinnerRecord, read_winner
from cmtscale.search.outcome import Outcome


def recorded_winner(folder: Path) -> WinnerRecord | None:
    """What was trained fully of a search; None for nothing, and, with a line, if it is damaged."""
    try:
        return read_winner(folder)
    except ResultsError as error:
        messages().print(f"left out: {error}", markup=False, soft_wrap=True)
        return None


def print_winner(outcome: Outcome, record: WinnerRecord | None) -> None:
    """What was trained fully of the search; nothing where nothing was."""
    if record is None:
        return
    out = results()
    out.print()
    print_trained(record, out)
    if record.choice.network != outcome.winner_name:
        out.print(
            f"the search now takes {outcome.winner_name}; --train-winner trains that",
            markup=False,
        )


def print_trained(record: WinnerRecord, out: Console) -> None:
    """Every network of the record, the choice first, and what its numbers are."""
    networks = record.networks
    columns = {
        Column("trained fully"): [trained.network for trained in networks],
        Column("role", 1): [trained.role for trained in networks],
        Column("px", 3): [str(trained.resolution_px) for trained in networks],
        Column("MACs"): [format_macs(trained.macs) for trained in networks],
        Column("params"): [format_macs(trained.params) for trained in networks],
        Column("latency ms"): [_latency(trained.latency_seconds) for trained in networks],
        Column("p95 ms", 4): [_latency(trained.p95_seconds) for trained in networks],
        Column("accuracy"): [_percent(trained.val_accuracy) for trained in networks],
        Column("val loss"): [_loss(trained.val_loss) for trained in networks],
        Column("took", 2): [duration(trained.seconds) for trained in networks],
    }
    print_table(out, list(columns), list(zip(*columns.values(), strict=True)), bold=[0])
    for line in _notes(record):
        out.print(line, markup=False)
    for trained in networks:
        if trained.status != "complete":
            out.print(f"{trained.network} {trained.status}: {trained.cause}", markup=False)
    if record.tour:
        out.print("[bold]The choice is that of a tour: it recommends nothing.[/bold]")
    elif record.verdict not in DECIDED:
        out.print(
            f"[bold]Nothing was decided[/bold] ({record.verdict}): the most probable network was "
            f"trained, and another may be better"
        )


def _notes(record: WinnerRecord) -> list[str]:
    notes = [
        f"trained alike: recipe {record.recipe}, {counted(record.epochs, 'epoch')}, "
        f"{counted(record.steps, 'step')} of {record.batch_images} images, seed {record.seed}; one "
        f"training each: another seed gives another accuracy",
        f"accuracy and val loss (after fitting one temperature) of {record.val_images:,} "
        f"validation images" + _tested(record),
    ]
    if (timed := record.timed) is not None:
        threads = f", {counted(timed.threads, 'thread')}" if timed.device == "cpu" else ""
        notes.append(
            f"latency: a forward pass of one image, in turns, median of "
            f"{timed.rounds * timed.passes_per_round}; {timed.dtype}, {timed.device}{threads}: "
            f"{timed.hardware}"
        )
    return notes


def _tested(record: WinnerRecord) -> str:
    read = [one for one in record.networks if one.test_accuracy is not None]
    if not read:
        return "; the test split was not read (--winner-test)"
    accuracies = ", ".join(f"{one.network} {_percent(one.test_accuracy)}" for one in read)
    return f"; test accuracy of {record.test_images:,} images, read once each: {accuracies}"


def _latency(seconds: float | None) -> str:
    return "–" if seconds is None else milliseconds(seconds)


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f} %"


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
