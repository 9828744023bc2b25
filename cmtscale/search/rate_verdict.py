"""What the runs of a check of the learning rate say: who wants another rate, and what that costs.

The best of three rates looks better than it is: what is said to be better is so by two standard
errors, and beside it stands what noise alone would show.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from cmtscale.record.rate_check import (
    AnchorFound,
    NoiseAlone,
    RateCheck,
    RateLine,
    RateVerdict,
    Swap,
)
from cmtscale.record.result import UNSOUND, Status
from cmtscale.record.row import Row
from cmtscale.search.agreement import RESAMPLES, noise_of
from cmtscale.search.candidates import Candidate
from cmtscale.search.check_side import asked_rows, losses_of
from cmtscale.search.curves import FloatArray, IntArray
from cmtscale.search.settings import Settings

FACTORS = (0.5, 1.0, 2.0)  # of the search's peak rate
OWN = FACTORS.index(1.0)
BEYOND_NOISE = 2.0  # standard errors


@np.errstate(divide="ignore", invalid="ignore")  # of what is missing or not sound
def judge(
    own: Settings,
    networks: Sequence[Candidate],
    sides: Mapping[float, Settings],
    rows: Sequence[Sequence[Row]],
    *,
    rung: int,
    seeds: int,
) -> RateCheck:
    """The check of these networks, from the rows of the folder of each rate, by its factor.

    Standard errors take runs of one seed at two rates for independent, which errs on the safe side.
    """
    asked = [
        asked_rows(side, own_rows, rung, seeds)
        for side, own_rows in zip(sides.values(), rows, strict=True)
    ]
    cells = [losses_of(side, networks) for side in asked]
    noise, degrees = noise_of([cell for side in cells for cell in side])
    counts = np.array([[len(cell) for cell in side] for side in cells]).T
    unsound = {status: _counts(asked, networks, status) for status in UNSOUND}
    means = np.array([[cell.mean() if len(cell) else math.nan for cell in c] for c in cells]).T
    means[sum(unsound.values()) > 0] = math.inf
    variances = noise**2 / counts
    changes = means - means[:, [OWN]]
    errors = np.sqrt(variances + variances[:, [OWN]])
    error = math.sqrt(variances[np.isfinite(variances)].mean()) if degrees else math.nan
    anchors = tuple(
        _anchor(network, *values)
        for network, *values in zip(networks, means, changes, errors, strict=True)
    )
    lines = tuple(
        RateLine(
            network=network.name,
            role=network.role,
            factor=factor,
            lr=side.recipe.lr,
            seeds=int(counts[number, rate]),
            diverged=int(unsound["diverged"][number, rate]),
            infeasible=int(unsound["infeasible"][number, rate]),
            loss=_finite(np.exp(means[number, rate])),
            change=None if rate == OWN else _finite(changes[number, rate]),
            error=None if rate == OWN else _finite(errors[number, rate]),
        )
        for number, network in enumerate(networks)
        for rate, (factor, side) in enumerate(sides.items())
    )
    may_lose = _may_lose(means[:, OWN], [anchor.hidden for anchor in anchors])
    return RateCheck(
        lr=own.recipe.lr,
        images_seen=own.images_seen[rung],
        seeds=seeds,
        noise=_finite(noise),
        degrees=degrees,
        lines=lines,
        anchors=anchors,
        swaps=_swaps(networks, means, variances),
        regret=_finite(_regret(means)),
        may_lose=may_lose,
        alone=noise_alone(means[:, OWN], error, degrees),
        tolerance=own.tolerance,
        verdict=_verdict(anchors, may_lose, own.tolerance),
        tour=own.tour,
    )


def noise_alone(
    means: FloatArray, error: float, degrees: int, *, seed: int = 0
) -> NoiseAlone | None:
    """What a check finds on average of networks that have the same mean at every rate.

    `means` are those of ln loss, inf for a network that is not sound; `error` is the standard error
    of one, estimated with so many `degrees` of freedom. None where a mean or the error is missing.
    """
    if not (np.isfinite(error) and np.isfinite(means).any()) or np.isnan(means).any():
        return None
    random = np.random.default_rng(seed)
    noise = error * random.standard_normal((10 * RESAMPLES, len(means), len(FACTORS)))
    changes = noise.min(axis=2) - noise[:, :, OWN]
    estimated = error * np.sqrt(random.chisquare(degrees, len(noise)) / degrees)
    is_wanted = (changes < -BEYOND_NOISE * math.sqrt(2) * estimated[:, None]).any(axis=1)
    losses = means[:, None] + noise
    lowest = losses.min(axis=2)
    taken = lowest[np.arange(len(lowest)), losses[:, :, OWN].argmin(axis=1)]
    return NoiseAlone(
        gain=float(-np.expm1(changes).mean()),
        regret=float(np.expm1(taken - lowest.min(axis=1)).mean()),
        chance=float(is_wanted.mean()),
    )


def _counts(
    sides: Sequence[Sequence[Row]], networks: Sequence[Candidate], status: Status
) -> IntArray:
    """(networks, rates): how many runs ended so."""
    ends = [Counter(row.candidate for row in side if row.status == status) for side in sides]
    return np.array([[own[network.name] for own in ends] for network in networks])


def _anchor(
    network: Candidate, means: FloatArray, changes: FloatArray, errors: FloatArray
) -> AnchorFound:
    """What a network makes of the rates, from ln losses: nan where missing, inf where not sound."""
    lowest = int(np.nanargmin(means)) if np.isfinite(means).any() else None
    wants = lowest is not None and (
        np.isposinf(means[OWN]) or bool(changes[lowest] < -BEYOND_NOISE * errors[lowest])
    )
    # of a rate that is not sound nothing is hidden: it is worse
    possible = np.where(np.isposinf(means), 0.0, BEYOND_NOISE * errors - changes)
    possible[OWN] = 0.0
    is_known = np.isfinite(means[OWN]) and np.isfinite(possible).all()
    return AnchorFound(
        network=network.name,
        role=network.role,
        lowest=None if lowest is None else FACTORS[lowest],
        wants=FACTORS[lowest] if lowest is not None and wants else None,
        hidden=max(0.0, float(possible.max())) if is_known else None,
    )


def _swaps(
    networks: Sequence[Candidate], means: FloatArray, variances: FloatArray
) -> tuple[Swap, ...]:
    """Each two networks that another rate ranks the other way round."""
    swaps = []
    for rate, factor in enumerate(FACTORS):
        for first, second in permutations(range(len(networks)), 2):
            lead = means[second] - means[first]
            if lead[OWN] < 0 < lead[rate]:
                rates = [OWN, rate]
                error = math.sqrt(variances[[first, second]][:, rates].sum())
                swaps.append(
                    Swap(
                        factor=factor,
                        first=networks[first].role,
                        second=networks[second].role,
                        by_noise=not lead[rate] - lead[OWN] > BEYOND_NOISE * error,
                    )
                )
    return tuple(swaps)


def _regret(means: FloatArray) -> float:
    """What the best at the search's rate loses to the best where each has its own best rate."""
    best = means.min(axis=1)
    if np.isnan(best).any() or not np.isfinite(means[:, OWN]).any():
        return math.nan
    return float(np.expm1(best[means[:, OWN].argmin()] - best.min()))


def _may_lose(means: FloatArray, hidden: Sequence[float | None]) -> float | None:
    """The most that the choice may lose, if one other network is understated as far as may be."""
    known = [value for value in hidden if value is not None]
    if len(known) < len(hidden):
        return None
    leads = np.array(known) - (means - means.min())
    leads[means.argmin()] = 0.0  # what is chosen loses nothing by being better still
    return float(np.expm1(max(0.0, leads.max())))


def _verdict(
    anchors: Sequence[AnchorFound], may_lose: float | None, tolerance: float
) -> RateVerdict:
    if any(anchor.wants is not None for anchor in anchors):
        return "another rate is wanted"
    if may_lose is not None and may_lose <= tolerance:
        return "one rate serves all"
    return "cannot be told"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
