"""The choice among the runs of one horizon, and how sure it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cmtscale.record.losses import Losses
from cmtscale.record.row import Row
from cmtscale.record.scores import Score, scores
from cmtscale.search.confidence import probability_of_best

Verdict = Literal["choice", "nothing learned yet", "no choice can be made"]
# Fitted temperatures beyond: the logits say next to nothing, or every validation image is right.
ALARM_TEMPERATURE = 20.0


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Always naming the commonest class: its accuracy on so many validation images."""

    accuracy: float
    val_images: int

    def beaten_by(self, accuracy: float) -> bool:
        """Whether an accuracy is better by two standard errors."""
        error = math.sqrt(self.accuracy * (1 - self.accuracy) / self.val_images)
        return accuracy > self.accuracy + 2 * error


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best candidate on the budget, how sure that is, and whether it may be called a choice.

    `ranking` holds every candidate, those without a complete run last. `sigma` is the noise of one
    run, pooled over all candidates with several seeds (None if there are none). `probability` is
    that the winner's true mean is the lowest (None: not known); `ties` are the candidates within
    two standard errors of the winner. `reason` says why a `verdict` is no choice.
    """

    winner: str
    ranking: tuple[Score, ...]
    sigma: float | None
    degrees: int
    probability: float | None
    ties: tuple[str, ...]
    verdict: Verdict
    reason: str

    @property
    def best(self) -> Score:
        """The winner's score."""
        return next(score for score in self.ranking if score.candidate == self.winner)


def rank(rows: Sequence[Row]) -> list[Score]:
    """All candidates by mean loss, those without one last."""
    return sorted(
        scores(rows),
        key=lambda score: (score.loss is None, score.loss or 0.0, score.candidate),
    )


def leader(ranking: Sequence[Score]) -> Score | None:
    """The first one that may win."""
    return next((score for score in ranking if score.may_win), None)


def choose(rows: Sequence[Row], image_losses: Mapping[str, Losses], guess: Guess) -> Choice | None:
    """Rank the candidates of one horizon by mean loss; None if nothing on the budget is complete.

    `image_losses` are those of the validation images by run id; where some of the candidates' are
    missing there is no probability, as the noise of the images is not known then.
    """
    ranking = rank(rows)
    best = leader(ranking)
    if best is None:
        return None
    eligible = [score for score in ranking if score.may_win]
    sigma, degrees = pooled_sigma(ranking)
    probability = None
    ties: tuple[str, ...] = ()
    if sigma is not None:
        probability = _probability(rows, image_losses, eligible)
        ties = tuple(score.candidate for score in eligible[1:] if _is_near(score, best, sigma))
    verdict, reason = _verdict(best, probability, len(eligible), guess)
    return Choice(
        winner=best.candidate,
        ranking=tuple(ranking),
        sigma=sigma,
        degrees=degrees,
        probability=probability,
        ties=ties,
        verdict=verdict,
        reason=reason,
    )


def pooled_sigma(ranking: Sequence[Score]) -> tuple[float | None, int]:
    """Standard deviation of the loss between seeds, pooled, and its degrees of freedom."""
    spreads = [(len(s.seeds), s.loss_sd) for s in ranking if s.loss_sd is not None]
    degrees = sum(runs - 1 for runs, _ in spreads)
    if not degrees:
        return None, 0
    return math.sqrt(sum((runs - 1) * sd**2 for runs, sd in spreads) / degrees), degrees


def _is_near(score: Score, best: Score, sigma: float) -> bool:
    """Whether two means lie within two standard errors of each other's seeds."""
    assert score.loss is not None
    assert best.loss is not None
    error = sigma * math.sqrt(1 / len(score.seeds) + 1 / len(best.seeds))
    return score.loss - best.loss < 2 * max(error, np.finfo(float).tiny)


def _probability(
    rows: Sequence[Row], image_losses: Mapping[str, Losses], eligible: Sequence[Score]
) -> float | None:
    """That the first of `eligible` has the lowest true mean; 1 if there is no other."""
    if len(eligible) == 1:
        return 1.0
    measured = []
    for score in eligible:
        runs = [r for r in rows if r.candidate == score.candidate and r.status == "complete"]
        if any(row.run_id not in image_losses for row in runs):
            return None
        images = np.stack([image_losses[row.run_id] for row in runs]).astype(float)
        losses = np.array([[row.val_loss] for row in runs], dtype=float)
        # what half precision moved the means by is taken back
        measured.append(images + losses - images.mean(axis=1, keepdims=True))
    probabilities = probability_of_best(measured, seed=0)
    return None if probabilities is None else float(probabilities[0])


def _verdict(
    best: Score, probability: float | None, eligible: int, guess: Guess
) -> tuple[Verdict, str]:
    assert best.accuracy is not None
    if not guess.beaten_by(best.accuracy):
        return "nothing learned yet", (
            f"the best candidate is no better than guessing (the commonest class alone: "
            f"{100 * guess.accuracy:.2f} %); train longer (--epochs), or on more images"
        )
    if best.temperature is not None and best.temperature > ALARM_TEMPERATURE:
        return "nothing learned yet", (
            f"the best candidate's fitted temperature is {best.temperature:.0f}: its outputs say "
            f"next to nothing; train longer (--epochs)"
        )
    if best.temperature is not None and best.temperature < 1 / ALARM_TEMPERATURE:
        return "no choice can be made", (
            "the best candidate names (nearly) every validation image right: they are too few, or "
            "too easy, to tell candidates apart"
        )
    if probability is not None and eligible > 1 and probability <= 1 / eligible:
        return "no choice can be made", (
            f"the best of {eligible} candidates is best with probability {probability:.2f}, no "
            f"better than by lot; add --seeds, or train longer (--epochs)"
        )
    return "choice", ""
