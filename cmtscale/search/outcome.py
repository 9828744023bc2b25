"""What a search leaves behind: `choice.json` and `best.toml`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cmtscale.arch.budget import format_macs
from cmtscale.arch.solve import Solution
from cmtscale.record.files import write_json, write_text_atomically
from cmtscale.record.folder import BEST, CHOICE
from cmtscale.record.reads import Reading
from cmtscale.record.row import Row
from cmtscale.record.scores import Score, current
from cmtscale.search.candidates import Candidate
from cmtscale.search.choose import Choice, rank
from cmtscale.search.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished search: its folder, candidates, all rows of its record, and the choice.

    `choice` is None where no run on the budget is complete. `readings` are all that this folder's
    log has of the test split; `paper` is the paper's constants solved to the same budget (None:
    they cannot be).
    """

    folder: Path
    settings: Settings
    candidates: tuple[Candidate, ...]
    rows: tuple[Row, ...]
    choice: Choice | None
    readings: tuple[Reading, ...]
    paper: Solution | None

    @property
    def ranking(self) -> tuple[Score, ...]:
        """Every candidate at the horizon that was asked for, those without a complete run last."""
        if self.choice is not None:
            return self.choice.ranking
        return tuple(rank(current(self.rows, self.settings.horizon)))

    @property
    def winner(self) -> Candidate | None:
        """The best candidate on the budget."""
        if self.choice is None:
            return None
        return next(c for c in self.candidates if c.name == self.choice.winner)


def save_choice(outcome: Outcome) -> None:
    """Write `best.toml`, the winner at the real budget, and `choice.json`, how sure that is."""
    choice, winner = outcome.choice, outcome.winner
    assert choice is not None
    assert winner is not None
    settings = outcome.settings
    best = replace(winner.real, name=f"{settings.base.name}-{winner.real.name}")
    if settings.tour:
        remark = "a tour on toy images: it recommends nothing"
    elif choice.verdict != "choice":
        remark = f"{choice.verdict}: {choice.reason}"
    else:
        remark = f"the best of {len(choice.ranking)} candidates; see trials.csv and choice.json"
    write_text_atomically(
        outcome.folder / BEST,
        f"# cmtscale search --budget {format_macs(settings.budget_macs)} "
        f"--data {settings.data}: {remark}\n{best.to_toml()}",
    )
    epochs, train_images = settings.horizon
    described = {
        "tour": settings.tour,
        "epochs": epochs,
        "train_images": train_images,
        **asdict(choice),
        "seeds": list(choice.best.seeds),
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
    write_json(outcome.folder / CHOICE, described)
