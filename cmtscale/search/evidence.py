"""From the record to what a forecast rests on: which architectures, which runs, which noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmtscale.arch import paper
from cmtscale.arch.cost import cost
from cmtscale.arch.scaling import Scaling, Shares, implied
from cmtscale.record.losses import Losses
from cmtscale.record.result import UNSOUND
from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate, recorded_candidate
from cmtscale.search.curves import Trained
from cmtscale.search.image_noise import image_covariance
from cmtscale.search.ladder import GROWTH
from cmtscale.search.runs import ended_rows
from cmtscale.search.settings import Settings

LEAST_STEP = -0.1  # in ln loss, of a tripling of the images seen


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the record of a search says of its candidates.

    `arms` (K) are the candidates with a complete run, without the base; `eligible` says which of
    them may be chosen: on the budget, within the limits, and neither diverged nor infeasible with
    any seed. `rows` (n) are their complete runs. `trained` is what a forecast takes of them, with
    the paper's constants as one more architecture that nobody trained; None where the losses of
    single images are `missing` for a run, where no two seeds of an architecture measure the noise
    (`degrees` is 0), or where a loss is 0 (`is_perfect`).
    """

    settings: Settings
    arms: tuple[Candidate, ...]
    eligible: npt.NDArray[np.bool_]
    rows: tuple[Row, ...]
    trained: Trained | None
    degrees: int
    missing: tuple[str, ...]
    is_perfect: bool

    @property
    def eligible_curves(self) -> npt.NDArray[np.bool_]:
        """(K + 1,): who of the forecast's architectures may be chosen; the paper's come last."""
        return np.append(self.eligible, False)

    def seconds_of_curves(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(K + 1, rungs): what a run takes; infinite for what is not trained.

        That is a mixture that exceeds a limit, and the paper's constants.
        """
        trained = np.array([[arm.may_be_trained] for arm in self.arms])
        return np.vstack([np.where(trained, seconds, np.inf), np.full(len(self.times), np.inf)])

    def time(self, images: int) -> float:
        """The forecast's time: log3 of images seen over those of the first rung."""
        return _time(self.settings, images)

    @property
    def times(self) -> tuple[float, ...]:
        """The times of the rungs."""
        return tuple(self.time(images) for images in self.settings.images_seen)

    def runs_of(self, candidate: str, rung: int) -> list[Row]:
        """A candidate's complete runs at a rung."""
        horizon = self.settings.horizons[rung]
        return [r for r in self.rows if r.candidate == candidate and r.horizon == horizon]


def gather(
    settings: Settings,
    rows: Sequence[Row],
    image_losses: Mapping[str, Losses],
    latencies: Mapping[str, float],
) -> Evidence:
    """What all runs on the ladder say, whichever order they ended in.

    Where latencies are limited, `latencies` are seconds of an image by real network.
    """
    on_ladder = sorted(ended_rows(settings, rows).values(), key=lambda row: row.sort_key)
    complete = [r for r in on_ladder if r.status == "complete" and r.role != "base"]
    unsound = {r.candidate for r in on_ladder if r.status in UNSOUND}
    last_rows = {row.candidate: row for row in complete}
    arms = {name: recorded_candidate(settings, row, latencies) for name, row in last_rows.items()}
    cells = [(row.candidate, row.horizon) for row in complete]
    degrees = len(cells) - len(set(cells))
    missing = [row.run_id for row in complete if row.run_id not in image_losses]
    is_perfect = any(row.val_loss == 0 for row in complete)
    return Evidence(
        settings=settings,
        arms=tuple(arms.values()),
        eligible=np.array(
            [arm.may_be_chosen and arm.name not in unsound for arm in arms.values()], bool
        ),
        rows=tuple(complete),
        trained=None
        if missing or is_perfect or not degrees
        else _trained(settings, complete, list(arms.values()), image_losses),
        degrees=degrees,
        missing=tuple(missing),
        is_perfect=is_perfect,
    )


def bend(evidence: Evidence) -> str:
    """That more passes over the same images hardly help, as its runs show; empty where they do.

    Log loss falls along a line only while images are new. A tripling of new ones lowers the loss
    by a sixth to a third (`results/horizons`); where images repeat, and it is lowered by less than
    a tenth, the line has bent.
    """
    settings = evidence.settings
    if evidence.is_perfect:
        return ""
    for rung in range(1, settings.ladder.rungs):
        epochs, images = settings.horizons[rung]
        steps = [
            _mean_log_loss(evidence.runs_of(arm.name, rung))
            - _mean_log_loss(evidence.runs_of(arm.name, rung - 1))
            for arm in evidence.arms
            if evidence.runs_of(arm.name, rung) and evidence.runs_of(arm.name, rung - 1)
        ]
        if epochs > 1 and steps and np.mean(steps) > LEAST_STEP:
            return (
                f"{epochs} passes over the same {images:,} images change the loss by "
                f"{100 * math.expm1(float(np.mean(steps))):+.0f} % against a third of them: the "
                f"line that forecasts extend is bent; do not rely on targets beyond what is trained"
            )
    return ""


def _mean_log_loss(rows: Sequence[Row]) -> float:
    return float(np.mean([math.log(row.val_loss) for row in rows if row.val_loss is not None]))


def _time(settings: Settings, images: int) -> float:
    return math.log(images / settings.images_seen[0], GROWTH)


def _trained(
    settings: Settings,
    rows: Sequence[Row],
    arms: Sequence[Candidate],
    image_losses: Mapping[str, Losses],
) -> Trained:
    numbers = {arm.name: number for number, arm in enumerate(arms)}
    losses = np.array([row.val_loss for row in rows], dtype=float)
    images = np.stack([image_losses[row.run_id] for row in rows])
    rungs = np.array([settings.horizons.index(row.horizon) for row in rows])
    times = np.array([_time(settings, images) for images in settings.images_seen])
    numbered = np.array([numbers[row.candidate] for row in rows])
    return Trained(
        points=np.array([*(_point(settings, arm) for arm in arms), _paper_point()]),
        arms=numbered,
        times=times[rungs],
        rungs=rungs,
        seeds=np.array([row.seed for row in rows]),
        losses=np.log(losses),
        image_covariance=image_covariance(images, losses, arms=numbered, rungs=rungs),
    )


def _point(settings: Settings, arm: Candidate) -> npt.NDArray[np.float64]:
    """Log growth of depth, width and resolution, as parts of that of the cost."""
    phi, shares = implied(settings.trained_base, arm.trained)
    whole = math.log(settings.trained_macs / cost(settings.trained_base).macs)
    return _embedded(shares, phi * math.log(paper.PHI_BASE) / whole)


def _paper_point() -> npt.NDArray[np.float64]:
    return _embedded(Scaling(0.0).shares.normalised(), 1.0)


def _embedded(shares: Shares, growth: float) -> npt.NDArray[np.float64]:
    """Shares as coordinates: two corners of the triangle lie one unit apart."""
    parts = np.array([shares.depth, shares.width, shares.resolution])
    return growth / math.sqrt(2) * parts
