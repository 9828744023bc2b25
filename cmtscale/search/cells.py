"""Runs summarised by cell (an architecture at a rung): more seeds then cost a forecast no time.

The model of the ln losses y (n,) of n runs in m cells, with q seeds (counted per rung), is

    y = C g + B h + e

C (n, m) assigns each run to its cell, and g are the values of the cells. B (n, q) assigns each run
to its seed at its rung; h is the noise that all runs of a seed at a rung share, and e is a run's
own noise. h and e are independent, each with one variance per rung.

The projection P = 1 - C C^+ subtracts each cell's mean. P y contains no g: it depends on h and e
alone, and is independent of the cells' mean own noise. The shared noise enters it through the
scatter matrix B' P B (q, q), one block per rung. In the basis of its eigenvectors (`directions`),
the components of h are independent given P y, and their posterior is a formula per component with
the eigenvalues (`scatter`) and the components of B' P y (`scores`), for any variances.

The cells' means, counts and sums of squares, and these vectors, are therefore sufficient: they are
computed once, and each set of variances then costs nothing per run.
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
    The columns of `directions` (q, q) are the eigenvectors of the scatter matrix, each of one rung,
    and `scatter` (q,) its eigenvalues. With h = directions @ z, `loadings` (m, q) @ z is what the
    shared noise adds to the cells' means, and `scores` (q,) are directions' B' P y.
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
