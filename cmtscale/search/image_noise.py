"""What the choice of the validation images does to the losses that are compared."""

import numpy as np
from scipy.linalg import helmert
from sklearn.covariance import ledoit_wolf

from cmtscale.search.curves import FloatArray, IntArray


def image_covariance(image_losses: FloatArray, *, arms: IntArray, rungs: IntArray) -> FloatArray:
    """(n, n): covariance of the runs' ln mean losses over draws of the validation images.

    `image_losses` (n, images) are those of n runs, `arms` (n,) and `rungs` (n,) say of which
    architecture at which rung: seeds of the same share their image noise entirely. What a seed
    does to single images differs between seeds, so it is in their noise already and is taken out;
    where nothing has two seeds it is not known and stays in. A few hard images make most of the
    differences: those are shrunk by as much as they leave uncertain (Ledoit and Wolf 2004).
    """
    images = image_losses.shape[1]
    relative = image_losses / image_losses.mean(axis=1, keepdims=True)  # of ln mean, to first order
    _, cells = np.unique(np.stack([arms, rungs]), axis=1, return_inverse=True)
    seeds = np.bincount(cells)
    if len(seeds) == 1:
        return np.full((len(arms), len(arms)), relative.mean(axis=0).var() / images)
    member = (cells == np.arange(len(seeds))[:, None]) / seeds[:, None]  # (cells, n)
    means = member @ relative
    rotation = helmert(len(seeds), full=True)  # first row: what all share; others: differences
    rotated = (rotation @ means).T  # (images, cells)
    covariance = np.cov(rotated.T)
    covariance -= rotation * (_churn(relative, means, cells, seeds) / seeds) @ rotation.T
    _, shrinkage = ledoit_wolf(rotated[:, 1:])
    between = covariance[1:, 1:]
    alike = np.trace(between) / len(between) * np.eye(len(between))
    covariance[1:, 1:] = (1 - shrinkage) * between + shrinkage * alike
    covariance[0, 1:] *= 1 - shrinkage
    covariance[1:, 0] *= 1 - shrinkage
    values, vectors = np.linalg.eigh(covariance)
    root = member.T * seeds @ rotation.T @ vectors * np.sqrt(np.maximum(values, 0) / images)
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
