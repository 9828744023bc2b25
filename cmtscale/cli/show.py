"""`cmtscale show`: what a search answers now, finished or running."""

from pathlib import Path
from typing import Annotated

import typer

from cmtscale.cli.options import Json


def show(
    folder: Annotated[Path, typer.Argument(help="The run folder of a search.")],
    as_json: Json = False,
) -> None:
    """Print the answer of a search, its evidence, and what would make it surer.

    Reads the record alone: at any time, also while the search goes on.
    """
    from cmtscale.arch.errors import ResultsError
    from cmtscale.cli.search_outcome_view import print_json, print_shown
    from cmtscale.record.folder import TRIALS
    from cmtscale.record.row import read_rows
    from cmtscale.search.answer import answer
    from cmtscale.search.settings import stored_settings

    settings = stored_settings(folder)
    if settings is None:
        raise ResultsError(f"{folder} holds no search; name a folder with a request.toml")
    try:
        rows = read_rows(folder / TRIALS)
    except FileNotFoundError:
        raise ResultsError(f"{folder} has no finished run yet; wait for the search") from None
    outcome = answer(folder, settings, rows)
    if as_json:
        print_json(outcome)
    else:
        print_shown(outcome)
