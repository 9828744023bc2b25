"""What runs say of their cells (an architecture at a rung), however many runs a cell has.

Runs y of cells are y = C g + B h + e, where C says which cell a run is of, and B which seed it has
at its rung. A seed does h to all runs of its rung alike, and e to each run alone; both have one
variance a rung. Nothing else sets runs of a cell apart, so their differences y - C mean(y) tell of
h alone, by its scatter within cells B' (1 - C C^+) B. Along the eigenvectors of that matrix they
tell of one number each, whatever the variances. So all that a forecast needs of n runs is here,
and is reckoned once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import block_diag

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """What n runs say of m cells, sorted by rung, then architecture, and of q seeds, by rung.

    `of_runs` (n,) is the cell of each run; `arms`, `rungs`, `counts`, `means` and `squares` (m,)
    are a cell's architecture, rung, number of runs, their mean, and the sum of their squared
    distances from it. `seeds` and `seed_rungs` (q,) are each seed at its rung.
    What seeds do alike is `directions` (q, q) @ z, where each z is of the rung of the seed in its
    place and independent of the others; it adds `loadings` (m, q) @ z to the means. `scatter` (q,)
    is that of each z within cells, and `scores` (q,) its product with the runs' differences there.
    """

    of_runs: IntArray
    arms: IntArray
    rungs: IntArray
    counts: IntArray
    means: FloatArray
    squares: FloatArray
    seeds: IntArray
    seed_rungs: IntArray
    directions: FloatArray
    loadings: FloatArray
    scatter: FloatArray
    scores: FloatArray


def numbered(rungs: IntArray, labels: IntArray) -> tuple[IntArray, IntArray]:
    """The different pairs (2, m), sorted, and which of them each one is (n,)."""
    pairs, numbers = np.unique(np.stack([rungs, labels]), axis=1, return_inverse=True)
    return pairs, numbers


def cells_of(arms: IntArray, rungs: IntArray, seeds: IntArray, losses: FloatArray) -> Cells:
    """The cells of n runs, each argument (n,)."""
    (cell_rungs, cell_arms), cells = numbered(rungs, arms)
    (seed_rungs, different_seeds), which_seed = numbered(rungs, seeds)
    counts = np.bincount(cells)
    means = np.bincount(cells, losses) / counts
    within = losses - means[cells]
    shape = len(counts), len(seed_rungs)
    runs = np.bincount(np.ravel_multi_index((cells, which_seed), shape), minlength=np.prod(shape))
    runs = runs.reshape(shape)  # of each cell with each seed
    scatter = np.diag(runs.sum(axis=0)) - runs.T / counts @ runs
    of_rungs = [seed_rungs == rung for rung in np.unique(rungs)]
    values, vectors = zip(*(np.linalg.eigh(scatter[own][:, own]) for own in of_rungs), strict=True)
    directions = block_diag(*vectors)
    return Cells(
        of_runs=cells,
        arms=cell_arms,
        rungs=cell_rungs,
        counts=counts,
        means=means,
        squares=np.bincount(cells, within**2).astype(np.float64),
        seeds=different_seeds,
        seed_rungs=seed_rungs,
        directions=directions,
        loadings=(runs / counts[:, None]) @ directions,
        scatter=np.maximum(np.concatenate(values), 0.0),
        scores=np.bincount(which_seed, within) @ directions,
    )
