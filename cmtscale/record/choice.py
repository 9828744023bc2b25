"""What `choice.json` calls an answer, and the answer behind a `best.toml`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmtscale.arch.errors import ResultsError
from cmtscale.arch.variant import Variant, variant
from cmtscale.record.files import read_json, read_toml
from cmtscale.record.folder import BEST, CHOICE, REQUEST
from cmtscale.record.model_folder import ChosenBy

Verdict = Literal["clear", "tie", "undecided", "nothing learned yet"]
DECIDED: tuple[Verdict, ...] = ("clear", "tie")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a search chose, for which images, and how sure it was."""

    network: Variant
    data: str
    split_seed: int
    budget_macs: int
    verdict: str
    tour: bool


def answered(folder: Path) -> Answered:
    """The answer that a search has written; raises `ResultsError` where there is none."""
    try:
        choice, request = read_json(folder / CHOICE), read_toml(folder / REQUEST)
        return Answered(
            network=variant(folder / BEST),
            data=str(request["data"]),
            split_seed=int(request["split_seed"]),
            budget_macs=int(request["budget_macs"]),
            verdict=str(choice["verdict"]),
            tour=bool(choice["tour"]),
        )
    except FileNotFoundError:
        raise ResultsError(
            f"{folder} holds no answer of a search; let the search come to one first"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"the answer in {folder} is damaged: {error}; the search writes it anew"
        ) from error


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
