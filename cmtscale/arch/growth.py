"""The cost of networks grown from one base: of many at once, or of real-valued sizes.

The arithmetic of `cost.py` as it stands, for `solve` and the lattice, and for counting in bulk.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmtscale.arch import paper
from cmtscale.arch.cost import KINDS, Counts, Number, count_parts, integer_grids, is_zero
from cmtscale.arch.variant import Variant

_CHUNK = 8192  # variants counted at a time: the arrays of one chunk stay in the L2 cache


def count_many(
    like: Variant,
    *,
    dims: NDArray[np.int64],
    depths: NDArray[np.int64],
    stem_channels: NDArray[np.int64],
    resolution_px: NDArray[np.int64],
) -> Counts:
    """Exact total counts of N variants at once, each field an int64 array (N,).

    `dims` and `depths` are (N, 4), `stem_channels` and `resolution_px` (N,); heads, reductions,
    expansions, classes and input channels are those of `like`. Nothing is validated.
    """
    totals = np.empty((len(KINDS), len(dims)), dtype=np.int64)
    for start in range(0, len(dims), _CHUNK):
        some = slice(start, start + _CHUNK)
        columns = list(np.ascontiguousarray(dims[some].T))
        side = resolution_px[some]
        grids = integer_grids(like, side, side)
        parts = count_parts(
            grids=grids,
            bias_grids=grids,
            stem_channels=stem_channels[some],
            dims=columns,
            hiddens=_hiddens(like, columns),
            depths=list(np.ascontiguousarray(depths[some].T)),
            like=like,
        )
        counts = [part.counts for part in parts]
        for row, kind in enumerate(KINDS):
            column = totals[row, some]
            column[:] = 0
            for part_counts in counts:
                if not is_zero(value := getattr(part_counts, kind)):
                    column += value
    return Counts(**dict(zip(KINDS, totals, strict=True)))


def smooth_macs(base: Variant, depth: Number, width: Number, resolution: Number) -> Number:
    """MACs of `base` grown by real-valued factors, nothing rounded; factors may be arrays."""
    dims = [d * width for d in base.dims]
    side = base.resolution_px * resolution
    tokens = [(side / stride) ** 2 for stride in paper.STAGE_STRIDES]
    grids = [(n, n / s.reduction**2) for n, s in zip(tokens, base.stages, strict=True)]
    parts = count_parts(
        grids=grids,
        bias_grids=grids,
        stem_channels=base.stem_channels * width,
        dims=dims,
        hiddens=[d * s.expansion for d, s in zip(dims, base.stages, strict=True)],
        depths=[d * depth for d in base.depths],
        like=base,
    )
    return sum(part.counts.macs for part in parts)


def fixed_and_block_macs(
    like: Variant,
    *,
    dims: NDArray[np.int64],
    stem_channels: NDArray[np.int64],
    resolution_px: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """MACs outside the blocks (N,), and of one block of each stage (N, 4).

    The total is linear in the depths: fixed + blocks @ depths.
    """
    columns = list(dims.T)
    grids = integer_grids(like, resolution_px, resolution_px)
    parts = count_parts(
        grids=grids,
        bias_grids=grids,
        stem_channels=stem_channels,
        dims=columns,
        hiddens=_hiddens(like, columns),
        depths=[1] * len(like.stages),
        like=like,
    )
    fixed = np.zeros(len(dims), dtype=np.int64)
    blocks = np.zeros(dims.shape, dtype=np.int64)
    for part in parts:
        if part.is_in_blocks:
            assert part.stage is not None
            blocks[:, part.stage - 1] += part.counts.macs
        else:
            fixed += part.counts.macs
    return fixed, blocks


def _hiddens(like: Variant, dims: Sequence[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """The FFN's hidden widths, truncated as in `Stage.hidden`."""
    return [(d * s.expansion).astype(np.int64) for d, s in zip(dims, like.stages, strict=True)]
