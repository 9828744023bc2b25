"""A check of horizons: how the ranking of a search's record moves with the length of training."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmtscale.record.losses import current_losses
from cmtscale.search.agreement import Agreement, agreement, noise_of, spread_of
from cmtscale.search.beside import DRAWS
from cmtscale.search.evidence import Evidence, gather
from cmtscale.search.forecast import forecast
from cmtscale.search.settings import recorded_search
from cmtscale.search.timings import read_timings


@dataclass(frozen=True, kw_only=True)
class RungFound:
    """A rung: its networks, their noise between seeds and their spread, in ln loss.

    `best` is the probability, by the forecast, that the best network at this rung is the best at
    the target; `regret` is how much it is expected to lose there, in parts of the loss. Both None
    where there is no forecast.
    """

    images_seen: int
    networks: int
    runs: int
    noise: float | None
    degrees: int
    spread: float | None
    best: float | None
    regret: float | None


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What the record says of its rungs, and of each two of them (None: fewer than four networks).

    `may_be_chosen` is how many networks may be; of fewer than two there is no forecast.
    `forecast_missing` says whether there is none, for that, or because no noise is measured, or the
    losses of single images are missing.
    """

    target_images: int
    rungs: tuple[RungFound, ...]
    pairs: tuple[tuple[int, int, Agreement | None], ...]
    may_be_chosen: int
    forecast_missing: bool
    tour: bool


def check_drift(folder: Path) -> Drift:
    """How the ranking moves, from the record alone; raises `ResultsError` where there is none.

    Of all networks but the base; the forecast is asked of those that may be chosen.
    """
    settings, rows = recorded_search(folder)
    losses = current_losses(folder, [row.run_id for row in rows])
    evidence = gather(settings, rows, losses, read_timings(folder).latency_seconds)
    cells = [
        [
            np.log([row.val_loss for row in evidence.runs_of(arm.name, rung) if row.val_loss])
            for arm in evidence.arms
        ]
        for rung in range(settings.ladder.rungs)
    ]
    outlook = _outlook(evidence)
    rungs = []
    for rung, own in enumerate(cells):
        noise, degrees = noise_of(own)
        trained = sum(bool(len(cell)) for cell in own)
        rungs.append(
            RungFound(
                images_seen=settings.images_seen[rung],
                networks=trained,
                runs=sum(map(len, own)),
                noise=noise if degrees else None,
                degrees=degrees,
                spread=spread_of(own)[0] if trained > 1 else None,
                best=outlook[rung][0] if outlook else None,
                regret=outlook[rung][1] if outlook else None,
            )
        )
    return Drift(
        target_images=settings.target_images,
        rungs=tuple(rungs),
        pairs=tuple(
            (first, second, agreement(cells[first], cells[second]))
            for first, second in itertools.combinations(range(len(cells)), 2)
        ),
        may_be_chosen=int(evidence.eligible.sum()),
        forecast_missing=not outlook,
        tour=settings.tour,
    )


def _outlook(evidence: Evidence) -> list[tuple[float, float]]:
    """For each rung, what its best network is at the target; empty where there is no forecast."""
    settings = evidence.settings
    if evidence.trained is None or evidence.eligible.sum() < 2:
        return []
    posterior = forecast(evidence.trained, seed=settings.seed)
    eligible = evidence.eligible_curves
    target = posterior.draws(
        evidence.time(settings.target_images), count=DRAWS, seed=settings.seed
    )[:, eligible]
    outlook = []
    for time in evidence.times:
        mean = posterior.moments(time)[0].mean(axis=0)[eligible]
        best = int(mean.argmin())
        lowest = target.min(axis=1)
        outlook.append(
            (
                float((target.argmin(axis=1) == best).mean()),
                float(np.expm1(target[:, best] - lowest).mean()),
            )
        )
    return outlook
