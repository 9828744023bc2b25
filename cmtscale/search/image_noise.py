"""What the choice of the validation images does to the losses that are compared."""

import numpy as np
import numpy.typing as npt
from scipy.linalg import block_diag, helmert
from sklearn.covariance import ledoit_wolf

from cmtscale.search.cells import FloatArray, IntArray, numbered


def image_covariance(
    image_losses: npt.NDArray[np.floating], losses: FloatArray, *, arms: IntArray, rungs: IntArray
) -> FloatArray:
    """(m, m): covariance of the cells' ln mean losses over draws of the validation images.

    `image_losses` (n, images) are those of n runs, `losses` (n,) their means before they were
    stored in half precision; `arms` (n,) and `rungs` (n,) are the architecture and rung of each.
    Runs of a cell share their image noise entirely. Two parts are taken out, one is shrunk:

    - What images do to all cells of a rung alike. It moves no difference, and a forecast is of the
      loss on images like these. Left in, it would explain true differences away, as better
      networks have the larger relative noise: forecasts lay 3 % above what was measured, and no
      other half of the images bore that out.
    - What a seed does to single images. It differs between seeds, so it is in their noise already.
      Where no cell has two seeds it is not known, and stays in.
    - A few hard images make most of the differences, which are therefore shrunk by as much as they
      leave uncertain (Ledoit and Wolf 2004).
    """
    images = image_losses.shape[1]
    (cell_rungs, _), cells = numbered(rungs, arms)
    _, sizes = np.unique(cell_rungs, return_counts=True)
    # orthonormal differences between the architectures of a rung, (cells - rungs, cells)
    contrasts = block_diag(*(helmert(size) if size > 1 else np.zeros((0, 1)) for size in sizes))
    if len(contrasts) == 0:
        return np.zeros((len(cell_rungs), len(cell_rungs)))
    seeds = np.bincount(cells)
    means = np.empty((len(seeds), images))
    alone = np.empty(len(seeds))  # sum of the variances about the mean
    for cell in range(len(seeds)):  # one after the other: all runs at once may be gigabytes
        own = cells == cell
        stored = image_losses[own].astype(float)
        exact = stored + (losses[own] - stored.mean(axis=1))[:, None]
        relative = exact / losses[own, None]  # of ln mean, to first order
        means[cell] = relative.mean(axis=0)
        alone[cell] = (relative - means[cell]).var(axis=1).sum()
    differences = (contrasts @ means).T  # (images, cells - rungs)
    covariance = np.atleast_2d(np.cov(differences.T))
    covariance -= contrasts * (_churn(means, alone, seeds) / seeds) @ contrasts.T
    _, shrinkage = ledoit_wolf(differences)
    alike = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    covariance = (1 - shrinkage) * covariance + shrinkage * alike
    values, vectors = np.linalg.eigh(covariance)
    root = contrasts.T @ vectors * np.sqrt(np.maximum(values, 0) / images)
    product: FloatArray = root @ root.T
    return product


def _churn(means: FloatArray, alone: FloatArray, seeds: IntArray) -> FloatArray:
    """(cells,): variance over images of what one seed alone does to them.

    Measured where there are two seeds; elsewhere it is the same share of what sets a run apart.
    """
    if seeds.max() == 1:
        return np.zeros(len(seeds))
    apart = alone / seeds + (means - means.mean(axis=0)).var(axis=1)
    measured = seeds > 1
    total = apart[measured].sum()  # 0 where runs agree to the bit
    share = (alone[measured] / (seeds[measured] - 1)).sum() / total if total > 0 else 0.0
    churn: FloatArray = min(share, 1.0) * apart
    return churn
