"""The part of `cmtscale search` that trains its choice: what it is told, and what it prints."""

from typing import TYPE_CHECKING

import typer

from cmtscale.arch.errors import RequestError

if TYPE_CHECKING:
    from cmtscale.deploy.winner_request import PreparedWinner, WinnerRequest
    from cmtscale.record.winner import WinnerRecord
    from cmtscale.search.outcome import Outcome
    from cmtscale.search.request import SearchRequest


WINNER_OPTIONS = (
    "beside", "winner_recipe", "winner_epochs", "winner_batch_size", "winner_accumulate",
    "winner_test",
)  # fmt: skip


def refuse_options(context: typer.Context) -> None:
    """Raise `RequestError` for an option that means nothing without --train-winner."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        is_given = source is not None and source.name == "COMMANDLINE"
        if parameter.name in WINNER_OPTIONS and is_given:
            raise RequestError(
                f"{parameter.opts[0]} is about training the choice; add --train-winner"
            )


def prepared_winner(request: "SearchRequest", winner: "WinnerRequest") -> "PreparedWinner":
    """What is trained after the search, checked before it."""
    from cmtscale.deploy.winner_request import prepare_winner

    return prepare_winner(
        winner,
        data=request.data,
        split_seed=request.split_seed,
        budget_macs=request.budget_macs,
        folder=request.out,
    )


def conclude(outcome: "Outcome", prepared: "PreparedWinner | None", as_json: bool) -> None:
    """Print the answer; train the choice where that is asked for, and print what came of it.

    The exit code is 1 where nothing can be chosen, or a training did not come to its end.
    """
    from cmtscale.cli.search_outcome_view import print_json, print_outcome, print_steps
    from cmtscale.cli.winner_view import print_winner, recorded_winner

    if not as_json:
        print_outcome(outcome)
    is_trained = True
    if prepared is None or outcome.choice is None:
        record = recorded_winner(outcome.folder)
    else:
        from cmtscale.deploy.winner import all_trained

        record = _trained(outcome, prepared)
        is_trained = all_trained(record, prepared)
    if as_json:
        print_json(outcome, record)
    else:
        print_winner(outcome, record)
        print_steps(outcome, record)
    if outcome.choice is None or not is_trained:
        raise typer.Exit(1)


def _trained(outcome: "Outcome", prepared: "PreparedWinner") -> "WinnerRecord":
    """The choice of the outcome, and those beside it, trained."""
    from cmtscale.cli.bars import make_bars
    from cmtscale.cli.winner_training_view import WinnerView
    from cmtscale.deploy.winner import train_winner
    from cmtscale.record.choice import DECIDED

    choice = outcome.choice
    assert choice is not None
    with make_bars() as bars:
        if choice.verdict not in DECIDED and not outcome.settings.tour:
            bars.print(
                f"nothing is decided ({choice.verdict}): the most probable network is trained"
            )
        return train_winner(outcome.folder, prepared, watcher=WinnerView(bars))
