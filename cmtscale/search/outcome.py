"""What a search leaves behind: rows of `trials.csv`, `choice.json` and `best.toml`."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cmtscale.atomic import write_text_atomically
from cmtscale.search.candidates import Candidate
from cmtscale.search.choose import Choice
from cmtscale.search.folder import BEST, CHOICE
from cmtscale.search.request import Settings
from cmtscale.search.store import Row
from cmtscale.spec.budget import format_macs
from cmtscale.spec.cost import cost
from cmtscale.spec.errors import ResultsError
from cmtscale.spec.solve import Solution
from cmtscale.train.recipe import Run, RunResult


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished search: its folder, candidates, rows of `trials.csv`, and choice (None: no run).

    `test_accuracies` are those of the winner's runs, as far as their checkpoints are there;
    `paper` is the paper's constants solved to the same budget (None: they cannot be).
    `guess_accuracy` is that of always naming the commonest class of the `val_images`.
    """

    folder: Path
    settings: Settings
    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    choice: Choice | None
    test_accuracies: tuple[float, ...]
    paper: Solution | None
    guess_accuracy: float
    val_images: int

    @property
    def learned(self) -> bool:
        """Whether the winner beats guessing by two standard errors; else the ranking is chance."""
        if self.choice is None:
            return False
        error = math.sqrt(self.guess_accuracy * (1 - self.guess_accuracy) / self.val_images)
        return self.choice.best.accuracy > self.guess_accuracy + 2 * error

    @property
    def winner(self) -> Candidate | None:
        """The chosen candidate."""
        if self.choice is None:
            return None
        return next(c for c in self.candidates if c.name == self.choice.winner)


def make_row(candidate: Candidate, run: Run, result: RunResult, *, rung: int) -> Row:
    """The row of `trials.csv` of one run."""
    real, trained = cost(candidate.real), cost(candidate.trained)
    return {
        "run_id": run.run_id,
        "rung": rung,
        "candidate": candidate.name,
        "alpha": round(candidate.shares.alpha, 6),
        "beta": round(candidate.shares.beta, 6),
        "gamma": round(candidate.shares.gamma, 6),
        "phi": round(candidate.phi, 6),
        "macs": real.macs,
        "params": real.params,
        "proxy_macs": trained.macs,
        "resolution_px": candidate.real.resolution_px,
        "dims": _joined(candidate.real.dims),
        "depths": _joined(candidate.real.depths),
        "seed": run.seed,
        "epochs": run.recipe.epochs,
        "val_loss": result.val_loss,
        "val_loss_raw": result.val_loss_raw,
        "val_accuracy": result.val_accuracy,
        "train_loss": result.train_loss,
        "images_per_second": result.images_per_second,
        "seconds": round(result.seconds, 3),
        "status": result.status,
        "cause": result.cause,
        "role": candidate.role,
        "on_budget": candidate.on_budget,
        "stray": round(candidate.stray, 6),
        "activations": real.activations,
        "proxy_params": trained.params,
        "proxy_resolution_px": candidate.trained.resolution_px,
        "proxy_dims": _joined(candidate.trained.dims),
        "proxy_depths": _joined(candidate.trained.depths),
    }


def require_same_networks(
    folder: Path, rows: Sequence[Row], candidates: Sequence[Candidate]
) -> None:
    """Raise `ResultsError` if a recorded run trained another network than its candidate is now."""
    now = {candidate.name: candidate.trained for candidate in candidates}
    for row in rows:
        network = now.get(row["candidate"])
        if network is not None and (
            row["proxy_dims"] != _joined(network.dims)
            or row["proxy_depths"] != _joined(network.depths)
            or row["proxy_resolution_px"] != network.resolution_px
        ):
            raise ResultsError(
                f"{folder} was begun by another version of cmtscale, where {row['candidate']} was "
                f"another network; use another --out"
            )


def save_choice(outcome: Outcome) -> None:
    """Write `best.toml`, the winner at the real budget, and `choice.json`, how sure that is."""
    choice, winner = outcome.choice, outcome.winner
    assert choice is not None
    assert winner is not None
    best = replace(winner.real, name=f"{outcome.settings.base.name}-{winner.name}")
    if outcome.settings.tour:
        remark = "a tour on toy images: it recommends nothing"
    elif not outcome.learned:
        remark = "no better than guessing: the trainings were too short to choose by"
    else:
        remark = f"the best of {len(choice.ranking)} candidates; see trials.csv and choice.json"
    write_text_atomically(
        outcome.folder / BEST,
        f"# cmtscale search --budget {format_macs(outcome.settings.budget_macs)} "
        f"--data {outcome.settings.data}: {remark}\n{best.to_toml()}",
    )
    described = {
        "tour": outcome.settings.tour,
        "learned": outcome.learned,
        **asdict(choice),
        "seeds": [
            row["seed"]
            for row in outcome.rows
            if row["candidate"] == winner.name and row["status"] == "complete"
        ],
        "test_accuracies": list(outcome.test_accuracies),
        "shares": asdict(winner.shares),
        "alpha": winner.shares.alpha,
        "beta": winner.shares.beta,
        "gamma": winner.shares.gamma,
        "phi": winner.phi,
        "macs": winner.macs,
        "stray": winner.stray,
        "paper": outcome.paper
        and {
            "phi": outcome.paper.phi,
            "macs": outcome.paper.macs,
            "stray": outcome.paper.stray,
            "dims": outcome.paper.variant.dims,
            "depths": outcome.paper.variant.depths,
            "resolution_px": outcome.paper.variant.resolution_px,
        },
    }
    write_text_atomically(outcome.folder / CHOICE, json.dumps(described, indent=1) + "\n")


def read_choice(folder: Path) -> dict[str, Any]:
    """What `choice.json` says; empty if there is none."""
    try:
        read: dict[str, Any] = json.loads((folder / CHOICE).read_text())
    except (OSError, ValueError):
        return {}
    return read


def _joined(numbers: tuple[int, ...]) -> str:
    return "-".join(str(number) for number in numbers)
