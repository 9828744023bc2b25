"""What stands beside an answer: other ways to take a network, its noise, forecasts by horizon."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmtscale.record.forecast import Expected
from cmtscale.search.curves import FloatArray
from cmtscale.search.evidence import Evidence
from cmtscale.search.forecast import Forecast
from cmtscale.search.ladder import LONGEST_TARGET
from cmtscale.search.runs import CORNERS
from cmtscale.search.standings import Interval, interval

DRAWS = 4000  # of all candidates, that probabilities are counted from
CURVE_POINTS = 16  # horizons of a drawn forecast


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Another way to take a network: its loss at the target, and in parts above the one taken."""

    name: str
    loss: Interval
    excess: Interval


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What makes an answer uncertain, in ln loss.

    `seeds` is one run's at each rung; `images` that of the validation images, and `forecast` all
    together at the target, both of the difference between the two most probable candidates (None
    for one candidate).
    """

    seeds: tuple[float, ...]
    degrees: int
    images: float | None
    forecast: float | None


def comparisons(evidence: Evidence, draws: FloatArray, taken: int) -> tuple[Comparison, ...]:
    """The paper's constants, each axis alone, and a candidate drawn by lot."""
    roles = [arm.role for arm in evidence.arms]
    paper = roles.index("paper") if "paper" in roles else len(roles)
    columns = {"the paper's constants": draws[:, paper]}
    columns |= {f"{role} only": draws[:, roles.index(role)] for role in CORNERS if role in roles}
    lot = np.random.default_rng(evidence.settings.seed)
    drawn = lot.choice(np.flatnonzero(evidence.eligible), size=len(draws))
    columns["a candidate drawn by lot"] = draws[np.arange(len(draws)), drawn]
    return tuple(
        Comparison(
            name=name,
            loss=interval(np.exp(column)),
            excess=interval(np.exp(column - draws[:, taken]) - 1),
        )
        for name, column in columns.items()
    )


def noise_of(
    evidence: Evidence, known: Forecast, draws: FloatArray, leading: Sequence[int]
) -> Noise:
    trained = evidence.trained
    assert trained is not None
    images = together = None
    if len(leading) == 2:
        one, other = leading
        together = float((draws[:, one] - draws[:, other]).std())
        cells = [np.flatnonzero(trained.cells.arms == arm)[-1] for arm in leading]  # their longest
        covariance = trained.image_covariance[np.ix_(cells, cells)]
        images = math.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
    return Noise(
        seeds=tuple(known.sigma(rung) for rung in range(evidence.settings.ladder.rungs)),
        degrees=evidence.degrees,
        images=images,
        forecast=together,
    )


def expected_curves(evidence: Evidence, known: Forecast) -> tuple[Expected, ...]:
    """The forecast of each candidate, from the first rung as far as targets may lie.

    None where all runs have one length: the slopes would be those of the prior.
    """
    settings = evidence.settings
    if len(settings.horizons) == 1:
        return ()
    furthest = LONGEST_TARGET * settings.images_seen[-1]
    horizons = np.geomspace(settings.images_seen[0], furthest, CURVE_POINTS).round().astype(int)
    curves = []
    for images in map(int, horizons):
        draws = known.draws(evidence.time(images), count=DRAWS, seed=settings.seed)
        for number, arm in enumerate(evidence.arms):
            loss = interval(np.exp(draws[:, number]))
            values = {"loss": loss.median, "low": loss.low, "high": loss.high}
            curves.append(Expected(candidate=arm.name, images=images, **values))
    return tuple(curves)
