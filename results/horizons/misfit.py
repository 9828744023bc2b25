"""What the forecast's model leaves out, judged by how probable it makes the measured losses."""

from dataclasses import replace

import numpy as np
from deciding import up_to
from scipy.special import logsumexp
from scipy.stats import norm, qmc
from truth import TARGET, TruthTable

from cmtscale.record.row import Row
from cmtscale.search.curves import NUMBER_OF_SCALES, FloatArray, Trained, bend, log_likelihood

PRIOR_DRAWS = 2048
LENGTH = 0.87  # of the smooth curvature: that of level and slope, by all runs
SHARED = (0.0, 0.02, 0.03)  # sd of what a seed does to all twins alike, in ln loss
CURVATURES = (0.0, 0.03, 0.06, 0.1)  # sd of a curvature that is smooth over the shares


def log_evidence(trained: Trained) -> float:
    """Log of the mean likelihood over the prior of the scales, less a constant."""
    uniform = qmc.Sobol(NUMBER_OF_SCALES, rng=0).random(PRIOR_DRAWS)
    normal: FloatArray = norm.ppf(np.clip(uniform, 1e-9, 1 - 1e-9))
    return float(logsumexp(log_likelihood(normal, trained)) - np.log(PRIOR_DRAWS))


def extended(table: TruthTable, rows: list[Row], shared: float, curvature: float) -> Trained:
    """The runs, with a noise that runs of one rung and seed share, and a smooth curvature."""
    evidence = table.evidence(rows)
    trained = evidence.trained
    assert trained is not None
    seeds = np.array([row.seed for row in evidence.rows])  # no two rungs have one in common
    points = trained.points[trained.arms]
    distance = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    scaled = 5**0.5 * distance / LENGTH
    smooth = (1 + scaled + scaled**2 / 3) * np.exp(-scaled)  # Matern 5/2, as the level is
    bends = bend(trained.times)
    return replace(
        trained,
        image_covariance=trained.image_covariance
        + shared**2 * (seeds[:, None] == seeds)
        + curvature**2 * smooth * bends[:, None] * bends,
    )


def print_misfit(table: TruthTable) -> None:
    """Log evidence of all runs up to 9T, and of those at 9T given the others."""
    print("## Log evidence of all runs up to 9T (of those at 9T, given the others)\n")
    print("| shared by a seed | " + " | ".join(f"curvature {c:g}" for c in CURVATURES) + " |")
    print("|---|" + "---|" * len(CURVATURES))
    for shared in SHARED:
        cells = []
        for curvature in CURVATURES:
            whole, early = (
                log_evidence(extended(table, up_to(table, last), shared, curvature))
                for last in (TARGET, TARGET - 1)
            )
            cells.append(f"{whole:.1f} ({whole - early:.1f})")
        print(f"| {shared:g} | " + " | ".join(cells) + " |")
    print()
