"""The choice among the runs of a rung, and how sure it is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmtscale.search.store import Row

_DRAWS = 20_000

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A candidate over its complete runs; lower `loss` is better.

    `loss` is the mean temperature-fitted validation cross-entropy, `spread` its standard deviation
    over seeds (None for one seed); `may_win` is False off the budget, and where a seed diverged:
    the mean over the others would flatter.
    """

    candidate: str
    role: str
    runs: int
    loss: float
    spread: float | None
    accuracy: float
    images_per_second: float
    may_win: bool


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best candidate and how sure that is.

    `sigma` is the noise of one run, pooled over all candidates with several seeds (None if there
    are none). `probability` is that the winner's true mean is the lowest; `ties` are the
    candidates within two standard errors of the winner.
    """

    winner: str
    ranking: tuple[Score, ...]
    sigma: float | None
    degrees: int
    probability: float | None
    ties: tuple[str, ...]

    @property
    def best(self) -> Score:
        """The winner's score."""
        return next(score for score in self.ranking if score.candidate == self.winner)


def choose(rows: Sequence[Row], seed: int = 0) -> Choice | None:
    """Rank the candidates of one rung by mean loss; None if nothing on the budget is complete."""
    ranking = tuple(sorted(scores(rows), key=lambda score: (score.loss, score.candidate)))
    eligible = [score for score in ranking if score.may_win]
    if not eligible:
        return None
    sigma, degrees = pooled_sigma(rows)
    winner = eligible[0]
    probability: float | None = None
    ties: tuple[str, ...] = ()
    if sigma is not None:
        errors = np.array([sigma / math.sqrt(score.runs) for score in eligible])
        losses = np.array([score.loss for score in eligible])
        probability = _probability_that_first_is_best(losses, errors, degrees, seed)
        least = np.finfo(float).tiny  # two runs of one network may agree to the bit
        distance = (losses - losses[0]) / np.maximum(np.hypot(errors, errors[0]), least)
        ties = tuple(
            score.candidate
            for score, far in zip(eligible[1:], distance[1:], strict=True)
            if far < 2
        )
    return Choice(
        winner=winner.candidate,
        ranking=ranking,
        sigma=sigma,
        degrees=degrees,
        probability=probability,
        ties=ties,
    )


def _probability_that_first_is_best(
    losses: FloatArray, errors: FloatArray, degrees: int, seed: int
) -> float:
    """By draws of the true means given the measured ones (empirical Bayes).

    The lowest of many noisy means is low by luck too: means are drawn towards their centre by the
    share of their variance that is noise (James-Stein). The noise is itself an estimate: each draw
    takes its own from the chi-squared law of `degrees`, which makes the tails those of Student's t.
    """
    if len(losses) == 1:
        return 1.0
    noise = np.maximum(errors**2, np.finfo(float).tiny)
    between = max(np.var(losses, ddof=1) - noise.mean(), 1e-9 * noise.mean())
    kept = between / (between + noise)
    means = losses.mean() + kept * (losses - losses.mean())
    random = np.random.default_rng(seed)
    widths = np.sqrt(degrees / random.chisquare(degrees, (_DRAWS, 1)))
    draws = means + np.sqrt(kept * noise) * widths * random.standard_normal((_DRAWS, len(losses)))
    return float((draws.argmin(axis=1) == 0).mean())


def scores(rows: Sequence[Row]) -> list[Score]:
    """One score per candidate that has a complete run."""
    complete = [row for row in rows if row["status"] == "complete"]
    found = []
    for candidate in dict.fromkeys(row["candidate"] for row in complete):
        own = [row for row in complete if row["candidate"] == candidate]
        losses = [row["val_loss"] for row in own]
        diverged = any(
            row["candidate"] == candidate and row["status"] == "diverged" for row in rows
        )
        found.append(
            Score(
                candidate=candidate,
                role=own[0]["role"],
                runs=len(own),
                loss=float(np.mean(losses)),
                spread=float(np.std(losses, ddof=1)) if len(own) > 1 else None,
                accuracy=float(np.mean([row["val_accuracy"] for row in own])),
                images_per_second=float(np.mean([row["images_per_second"] for row in own])),
                may_win=bool(own[0]["on_budget"]) and not diverged,
            )
        )
    return found


def pooled_sigma(rows: Sequence[Row]) -> tuple[float | None, int]:
    """Standard deviation of the loss between seeds, pooled, and its degrees of freedom."""
    spreads = [(score.runs, score.spread) for score in scores(rows) if score.spread is not None]
    degrees = sum(runs - 1 for runs, _ in spreads)
    if not degrees:
        return None, 0
    return math.sqrt(sum((runs - 1) * s**2 for runs, s in spreads) / degrees), degrees
