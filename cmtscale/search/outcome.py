"""What a search leaves behind: `choice.json` and `best.toml`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cmtscale.arch.budget import format_macs
from cmtscale.arch.solve import Solution
from cmtscale.record.choice import DECIDED
from cmtscale.record.files import write_json, write_text_atomically
from cmtscale.record.folder import BEST, CHOICE
from cmtscale.record.forecast import write_forecast
from cmtscale.record.reads import Reading
from cmtscale.record.row import Row
from cmtscale.record.twin_check import TwinCheck
from cmtscale.search.candidates import Candidate
from cmtscale.search.choose import Choice
from cmtscale.search.settings import Settings
from cmtscale.search.standings import Standing, by_first_rung, reached


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search answers: its folder, candidates, all rows of its record, and the choice.

    `choice` is None where no run on the budget is complete. `readings` are all that this folder's
    log has of the test split; `paper` is the paper's constants solved to the same budget (None:
    they cannot be). `workers` is how many runs go on at a time; `spend_needed` what the ladder's
    `spend` must be for the runs that would probably decide an undecided search (None: no such).
    `twin_check` is what a check of its twins found (None: there was none).
    """

    folder: Path
    settings: Settings
    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    choice: Choice | None
    readings: tuple[Reading, ...]
    paper: Solution | None
    workers: int
    spend_needed: float | None
    twin_check: TwinCheck | None

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Every candidate of the record, the most probable first, or the lowest at first rung."""
        if self.choice is not None:
            return self.choice.standings
        return tuple(by_first_rung(reached(self.settings, self.rows)))

    @property
    def winner(self) -> Candidate | None:
        """The candidate that is taken."""
        if self.choice is None:
            return None
        return self.candidate(self.choice.taken)

    def candidate(self, name: str) -> Candidate:
        """The candidate of this name."""
        return next(candidate for candidate in self.candidates if candidate.name == name)


def save_choice(outcome: Outcome) -> None:
    """Write `best.toml`, the network taken, `choice.json`, how sure that is, and the forecast."""
    choice, winner = outcome.choice, outcome.winner
    assert choice is not None
    assert winner is not None
    settings = outcome.settings
    best = replace(winner.real, name=f"{settings.base.name}-{winner.real.name}")
    if settings.tour:
        remark = "a tour on toy images: it recommends nothing"
    elif choice.verdict not in DECIDED:
        remark = f"{choice.verdict}: the most probable of {len(choice.standings)} candidates"
    else:
        remark = f"one of {len(choice.near)} that are as good as the best; see choice.json"
    write_text_atomically(
        outcome.folder / BEST,
        f"# cmtscale search --budget {format_macs(settings.budget_macs)} "
        f"--data {settings.data}: {remark}\n{best.to_toml()}",
    )
    write_forecast(outcome.folder, choice.curves)
    write_json(outcome.folder / CHOICE, described(outcome))


def described(outcome: Outcome) -> dict[str, Any] | None:
    """The answer as `choice.json` has it; None where nothing can be chosen."""
    choice, winner = outcome.choice, outcome.winner
    if choice is None or winner is None:
        return None
    answer = asdict(replace(choice, curves=(), standings=()))
    del answer["curves"]  # in forecast.csv
    return {
        "tour": outcome.settings.tour,
        "images_seen": outcome.settings.images_seen,
        **answer,
        "standings": _flat(choice.standings),
        "test_readings": [asdict(reading) for reading in outcome.readings],
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


def _flat(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """What is said of each candidate; what its runs reached is in `trials.csv`."""
    return [
        {
            "candidate": standing.candidate,
            "loss": standing.loss and asdict(standing.loss),
            "may_win": standing.may_win,
            "near": standing.near,
            "best": standing.best,
            "runs": standing.runs,
            "accuracy": standing.longest.accuracy,
            "accuracy_images": standing.longest_images,
        }
        for standing in standings
    ]
