"""Points of the triangle of shares, asked from Optuna's samplers a generation at a time.

The samplers see u, v in [0, 1]; log shares (1 - √u, √u·(1 - v), √u·v) are uniform on the simplex
for uniform u, v and satisfy the constraint exactly.
"""

import math
from collections.abc import Iterator

import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import create_trial

from cmtscale.search.candidates import Candidate, lattice_candidates
from cmtscale.search.request import Settings
from cmtscale.search.store import SPACE, Row, Store
from cmtscale.spec.lattice import nearest
from cmtscale.spec.scaling import Shares

GENERATION = 8  # fixed, so that a search does not depend on the number of workers
ASKS_PER_TRIAL = 5  # points that fall on a known candidate are passed over, but not for ever


def shares_of(u: float, v: float) -> Shares:
    """Log shares of a point of the unit square; they sum to 1."""
    root = math.sqrt(u)
    return Shares(depth=1 - root, width=root * (1 - v), resolution=root * v)


def point_of(shares: Shares) -> dict[str, float]:
    """The point of the unit square of these shares; none for the base, which has no shares."""
    if shares.total == 0:
        return {}
    root = min(1.0, max(0.0, 1 - shares.depth))
    rest = shares.width + shares.resolution
    v = shares.resolution / rest if rest > 0 else 0.5
    return {"u": root**2, "v": min(1.0, max(0.0, v))}


def sampled_generations(settings: Settings, store: Store) -> Iterator[list[Candidate]]:
    """Generations of new candidates until there are `settings.trials`, or no new ones turn up.

    The next generation is asked when the caller comes back, with all results so far told in
    candidate order. Generations asked before an interruption are repeated as they were.
    """
    known: list[Candidate] = []
    asked = 0
    for points in store.generations():
        asked += len(points)
        yield _new_candidates(settings, points, known)
    while len(known) < settings.trials and asked < ASKS_PER_TRIAL * settings.trials:
        points = _ask(settings, store.rows(), known, asked)
        store.add_generation(points)
        asked += len(points)
        yield _new_candidates(settings, points, known)


def _ask(
    settings: Settings, rows: list[Row], known: list[Candidate], asked: int
) -> list[list[float]]:
    """A generation of points from a fresh sampler that has seen all results, in order."""
    study = optuna.create_study(
        direction="minimize", sampler=_sampler(settings, settings.seed + asked)
    )
    shares = {candidate.name: candidate.shares for candidate in known}
    for row in rows:
        if row["status"] == "complete":
            study.add_trial(
                create_trial(
                    params=point_of(shares[row["candidate"]]),
                    distributions=dict(SPACE),
                    value=row["val_loss"],
                )
            )
    trials = [study.ask(dict(SPACE)) for _ in range(GENERATION)]
    return [[trial.params["u"], trial.params["v"]] for trial in trials]


def _sampler(settings: Settings, seed: int) -> BaseSampler:
    match settings.sampler:
        case "tpe":
            return TPESampler(seed=seed)
        case "gp":
            return GPSampler(seed=seed)
        case _:
            return RandomSampler(seed=seed)


def _new_candidates(
    settings: Settings, points: list[list[float]], known: list[Candidate]
) -> list[Candidate]:
    """The candidates of a generation that are not known yet, at most as many as are wanted."""
    lattice = lattice_candidates(settings)
    new: list[Candidate] = []
    for u, v in points:
        candidate = nearest(lattice, shares_of(u, v), excluded=known)
        if candidate is None or len(known) >= settings.trials:
            break
        known.append(candidate)
        new.append(candidate)
    return new
