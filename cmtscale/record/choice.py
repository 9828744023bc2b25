"""What `choice.json` calls an answer, and the answer behind a `best.toml`."""

from pathlib import Path
from typing import Literal

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, read_toml
from cmtscale.record.folder import BEST, CHOICE, REQUEST
from cmtscale.record.model_folder import ChosenBy

Verdict = Literal["clear", "tie", "undecided", "nothing learned yet"]
DECIDED: tuple[Verdict, ...] = ("clear", "tie")


def chosen_by(variant: Path) -> ChosenBy | None:
    """The search that wrote `variant`, its `best.toml`; None for any other file."""
    folder = variant.resolve().parent
    if variant.name != BEST:
        return None
    try:
        choice, request = read_json(folder / CHOICE), read_toml(folder / REQUEST)
        return ChosenBy(
            search=folder.name,
            budget_macs=float(request["budget_macs"]),
            verdict=str(choice["verdict"]),
            probability=float(choice["probability"]),
        )
    except (FileNotFoundError, ResultsError, KeyError, TypeError, ValueError):
        return None
