"""`cmtscale show`: what a search answers now, finished or running."""

from pathlib import Path
from typing import Annotated

import typer

from cmtscale.arch.errors import RequestError
from cmtscale.cli.options import Json


def show(
    folder: Annotated[Path, typer.Argument(help="The run folder of a search.")],
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Watch a search that goes on until it ends; Ctrl-C leaves."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the answer of a search, its evidence, and what would make it surer.

    Reads the record alone: at any time, also while the search goes on.
    """
    if follow:
        if as_json:
            raise RequestError("--follow watches and --json prints once; drop one of them")
        from cmtscale.cli.follow_view import watch

        if not watch(folder):
            return
    from cmtscale.cli.search_outcome_view import print_json, print_shown
    from cmtscale.cli.winner_view import recorded_winner
    from cmtscale.search.answer import answer
    from cmtscale.search.settings import recorded_search

    settings, rows = recorded_search(folder)
    outcome, trained = answer(folder, settings, rows), recorded_winner(folder)
    if as_json:
        print_json(outcome, trained)
    else:
        print_shown(outcome, trained)
