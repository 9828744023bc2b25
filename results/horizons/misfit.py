"""What bent curves and common seeds gain: how probable the model makes the measured losses."""

from collections.abc import Sequence

import numpy as np
from deciding import up_to
from scipy.special import logsumexp
from scipy.stats import norm, qmc
from truth import TARGET, TruthTable

from cmtscale.search.curves import FloatArray, Trained, log_likelihood
from cmtscale.search.scales import NUMBER_OF_SCALES, scales_of

PRIOR_DRAWS = 4096
NOTHING = -12.0  # prior standard deviations: a scale of a thousandth of its median, or less


def log_evidence(trained: Trained, without: Sequence[str] = ()) -> float:
    """Log of the mean likelihood over the prior of the scales but these, less a constant."""
    uniform = qmc.Sobol(NUMBER_OF_SCALES, rng=0).random(PRIOR_DRAWS)
    normal: FloatArray = norm.ppf(np.clip(uniform, 1e-9, 1 - 1e-9))
    names = list(vars(scales_of(normal[:1])))
    normal[:, [names.index(name) for name in without]] = NOTHING
    return float(logsumexp(log_likelihood(normal, trained)) - np.log(PRIOR_DRAWS))


def print_misfit(table: TruthTable) -> None:
    """Log evidence of all runs up to 9T, and of those at 9T given the others."""
    print("## Log evidence of all runs up to 9T (of those at 9T, given the others)\n")
    print("| | lines, bent alike | curvature smooth over the shares |\n|---|---|---|")
    for name, seeds in {"seeds independent": ("common_noise",), "a part in common": ()}.items():
        cells = []
        for bends in (("curvature",), ()):
            whole, early = (
                log_evidence(known, (*seeds, *bends))
                for known in (
                    table.evidence(up_to(table, last)).trained for last in (TARGET, TARGET - 1)
                )
                if known is not None
            )
            cells.append(f"{whole:.1f} ({whole - early:.1f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()
