"""The commands that a user can copy when a search or a training has ended."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmtscale.search.outcome import Outcome

Step = tuple[str, str]  # what a command does, and the command


def after_search(outcome: "Outcome") -> list[Step]:
    """After a search: more of it, its figures, and the training of the choice."""
    settings, folder = outcome.settings, outcome.folder
    if settings.tour:
        own = f"cmtscale search --budget {settings.budget_macs / 1e9:g}G --data folder:PATH"
        return [("your images", f"{own} --seeds 2 --dry-run"), ("figures", _plot(folder))]
    seeds = _command("search", "--from", str(folder), "--seeds", str(settings.seeds + 1))
    longer = _command("search", "--from", str(folder), "--epochs", str(3 * settings.horizon[0]))
    steps = [("surer", seeds), ("longer", longer), ("figures", _plot(folder))]
    if outcome.choice is None:
        return steps
    best, out = str(folder / "best.toml"), f"runs/{folder.name}"
    train = ["train", "--variant", best, "--data", settings.data, "--out", out, "--test"]
    return [*steps, ("train it", _command(*train))]


def after_training(folder: Path, data: str, epochs: int) -> list[Step]:
    """After a training: a longer one."""
    longer, out = str(2 * epochs), f"{folder}-{2 * epochs}-epochs"
    train = ["train", "--variant", str(folder / "variant.toml"), "--data", data]
    return [("longer", _command(*train, "--epochs", longer, "--out", out))]


def _plot(folder: Path) -> str:
    return _command("plot", str(folder))


def _command(*words: str) -> str:
    return shlex.join(["cmtscale", *words])
