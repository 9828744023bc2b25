"""What the choice of the validation images does to the losses that are compared."""

import numpy as np
from scipy.linalg import block_diag, helmert
from sklearn.covariance import ledoit_wolf

from cmtscale.search.curves import FloatArray, IntArray


def image_covariance(image_losses: FloatArray, *, arms: IntArray, rungs: IntArray) -> FloatArray:
    """(n, n): covariance of the runs' ln mean losses over draws of the validation images.

    `image_losses` (n, images) are those of n runs, `arms` (n,) and `rungs` (n,) say of which
    architecture at which rung: seeds of the same share their image noise entirely. What images do
    to all of a rung alike is taken out: it moves no difference, and a forecast is of the loss on
    such images as these. (Left in, it explains a part of true differences away, as the better
    networks have the larger relative noise: forecasts lay 3 % above what was measured, and no
    other half of the images bore that out.) What a seed does to single images differs between
    seeds, so it is in their noise already and is taken out, too; where nothing has two seeds it is
    not known and stays in. A few hard images make most of the differences: those are shrunk by as
    much as they leave uncertain (Ledoit and Wolf 2004).
    """
    images = image_losses.shape[1]
    relative = image_losses / image_losses.mean(axis=1, keepdims=True)  # of ln mean, to first order
    cell_keys, cells = np.unique(np.stack([rungs, arms]), axis=1, return_inverse=True)
    seeds = np.bincount(cells)
    member = (cells == np.arange(len(seeds))[:, None]) / seeds[:, None]  # (cells, n)
    _, sizes = np.unique(cell_keys[0], return_counts=True)
    # orthonormal differences between the architectures of a rung, (cells - rungs, cells)
    contrasts = block_diag(*(helmert(size) if size > 1 else np.zeros((0, 1)) for size in sizes))
    if len(contrasts) == 0:
        return np.zeros((len(arms), len(arms)))
    means = member @ relative
    differences = (contrasts @ means).T  # (images, cells - rungs)
    covariance = np.atleast_2d(np.cov(differences.T))
    covariance -= contrasts * (_churn(relative, means, cells, seeds) / seeds) @ contrasts.T
    _, shrinkage = ledoit_wolf(differences)
    alike = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    covariance = (1 - shrinkage) * covariance + shrinkage * alike
    values, vectors = np.linalg.eigh(covariance)
    root = member.T * seeds @ contrasts.T @ vectors * np.sqrt(np.maximum(values, 0) / images)
    product: FloatArray = root @ root.T
    return product


def _churn(relative: FloatArray, means: FloatArray, cells: IntArray, seeds: IntArray) -> FloatArray:
    """(cells,): variance over images of what one seed alone does to them.

    Measured where there are two seeds; elsewhere it is the same share of what sets a run apart.
    """
    if seeds.max() == 1:
        return np.zeros(len(seeds))
    common = means.mean(axis=0)
    apart = np.bincount(cells, np.var(relative - common, axis=1)) / seeds
    alone = np.bincount(cells, np.var(relative - means[cells], axis=1, ddof=0))
    measured = seeds > 1
    total = apart[measured].sum()  # 0 where runs agree to the bit
    share = (alone[measured] / (seeds[measured] - 1)).sum() / total if total > 0 else 0.0
    churn: FloatArray = min(share, 1.0) * apart
    return churn
