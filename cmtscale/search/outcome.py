"""What a search leaves behind: rows of `trials.csv`, `choice.json` and `best.toml`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cmtscale.arch.budget import format_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.solve import Solution
from cmtscale.record.files import write_json, write_text_atomically
from cmtscale.record.folder import BEST, CHOICE
from cmtscale.record.reads import Reading
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row
from cmtscale.record.scores import Score, current
from cmtscale.search.candidates import Candidate
from cmtscale.search.choose import Choice, rank
from cmtscale.search.request import Settings
from cmtscale.search.samplers import Asked
from cmtscale.train.recipe import Run


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


def make_row(asked: Asked, run: Run, result: RunResult) -> Row:
    """The row of `trials.csv` of one run."""
    candidate = asked.candidate
    real, trained = cost(candidate.real), cost(candidate.trained)
    return Row(
        run_id=run.run_id,
        candidate=candidate.name,
        alpha=candidate.shares.alpha,
        beta=candidate.shares.beta,
        gamma=candidate.shares.gamma,
        phi=candidate.phi,
        macs=real.macs,
        params=real.params,
        proxy_macs=trained.macs,
        resolution_px=candidate.real.resolution_px,
        dims=candidate.real.dims,
        depths=candidate.real.depths,
        seed=run.seed,
        epochs=run.recipe.epochs,
        train_images=run.recipe.train_images,
        val_loss=result.val_loss,
        val_loss_raw=result.val_loss_raw,
        val_accuracy=result.val_accuracy,
        train_loss=result.train_loss,
        images_per_second=result.images_per_second,
        seconds=round(result.seconds, 3),
        status=result.status,
        cause=result.cause,
        role=candidate.role,
        on_budget=candidate.on_budget,
        stray=candidate.stray,
        activations=real.activations,
        proxy_params=trained.params,
        proxy_resolution_px=candidate.trained.resolution_px,
        proxy_dims=candidate.trained.dims,
        proxy_depths=candidate.trained.depths,
        temperature=result.temperature,
        asked=asked.number,
        asked_after=asked.after,
        asked_by=asked.by,
        scoring=result.scoring,
        identity=run.identity,
    )


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
