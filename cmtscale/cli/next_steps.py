"""The commands that a user can copy when a search or a training has ended."""

import math
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cmtscale.record.winner import WinnerRecord
    from cmtscale.search.outcome import Outcome

Step = tuple[str, str]  # what a command does, and the command


def after_search(outcome: "Outcome", trained: "WinnerRecord | None") -> list[Step]:
    """After a search: more of it, its figures, and the training or the use of what it chose.

    `trained` is what is trained fully of it.
    """
    from cmtscale.arch.budget import format_duration
    from cmtscale.record.choice import DECIDED
    from cmtscale.record.folder import BEST
    from cmtscale.search.ladder import PRESETS

    settings, folder = outcome.settings, str(outcome.folder)
    figures = ("figures", _command(["plot", folder]))
    use = _use_winner(outcome, trained)
    if settings.tour:
        budget = f"{settings.budget_macs / 1e9:g}G"
        own = f"cmtscale search --budget {budget} --data folder:PATH --dry-run"
        return [("your images", own), figures, *use]
    again = ["search", "--from", folder]
    steps: list[Step] = []
    longer = [name for name, ladder in PRESETS.items() if ladder.rungs > settings.ladder.rungs]
    if longer and settings.max_seconds is None:
        words = [*again, "--ladder", longer[0]]
        if settings.ladder.spend > PRESETS[longer[0]].spend:
            words += ["--spend", f"{settings.ladder.spend:g}"]
        steps.append(("longer", _command(words)))
    is_decided = outcome.choice is not None and outcome.choice.verdict in DECIDED
    if outcome.spend_needed is not None:
        spend = math.ceil(100 * max(outcome.spend_needed, settings.ladder.spend) + 1) / 100
        steps.append(("surer", _command([*again, "--spend", f"{spend:g}"])))
    if outcome.seconds_needed is not None:
        minutes = math.ceil(max(outcome.seconds_needed, settings.max_seconds or 0) / 60)
        steps.append(("surer", _command([*again, "--max-time", format_duration(60 * minutes)])))
    steps.append(figures)
    if is_decided and not use:
        train = ["train", "--variant", str(outcome.folder / BEST), "--data", settings.data]
        if settings.split_seed:  # other splits would test on images that the choice has seen
            train += ["--split-seed", str(settings.split_seed)]
        train += ["--out", f"runs/{outcome.folder.name}", "--test"]
        steps.append(("train it", _command(train)))
    return [*steps, *use]


def _use_winner(outcome: "Outcome", trained: "WinnerRecord | None") -> list[Step]:
    """How the trained choice is used, where it is trained."""
    from cmtscale.record.model_folder import MODEL

    if trained is None or trained.choice.network != outcome.winner_name:
        return []
    if trained.choice.status != "complete":
        return []
    model = outcome.folder / trained.choice.folder / MODEL
    return [("use it", f"{_command(['predict', str(model)])} IMAGE")]


def repeated(context: typer.Context, changes: Mapping[str, Any]) -> str:
    """The command that runs now, with some of its options changed; defaults are left out."""
    words = [str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        value = changes.get(name, context.params.get(name))
        if name not in changes and value == parameter.get_default(context):
            continue
        if isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            words += [parameter.opts[0], str(value)]
    return _command(words)


def _command(words: list[str]) -> str:
    return shlex.join(["cmtscale", *words])
