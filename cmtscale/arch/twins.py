"""What twins grow from: ever smaller networks, from a base down to one that a laptop can train.

Width shrinks first, then resolution, never below 64 px, depth last: fewer channels distort rankings
less than fewer pixels (EcoNAS, arXiv 2001.01233).
"""

from collections.abc import Iterator
from dataclasses import replace

from cmtscale.arch import paper
from cmtscale.arch.cost import cost
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.scaling import dim_step, resize
from cmtscale.arch.variant import Stage, Variant, network_name

LEAST_PROXY_PX = 64  # below, stage 4 has one key and its attention no gradient
# The smallest: fit for a laptop, and at 64 px still a CMT (2.3 M MACs at 10 classes).
PROXY_BASE = Variant(
    name="cmt-proxy",
    resolution_px=LEAST_PROXY_PX,
    stem_channels=4,
    stages=(
        Stage(dim=8, depth=1, heads=1, reduction=8, expansion=4.0),
        Stage(dim=16, depth=1, heads=2, reduction=4, expansion=4.0),
        Stage(dim=32, depth=4, heads=4, reduction=2, expansion=4.0),
        Stage(dim=64, depth=1, heads=8, reduction=1, expansion=4.0),
    ),
)


def twin_bases(base: Variant, smallest: Variant = PROXY_BASE) -> tuple[Variant, ...]:
    """`base`, and what is left of it step by step: each costs less than the one before.

    Heads, reductions and expansions stay those of `base`. The last one is `smallest`, with the
    classes and channels of `base`; it is the only one where nothing between the two is cheaper.
    """
    smallest = fit_to_data(smallest, base.num_classes, base.in_channels)
    least_macs = cost(smallest).macs
    bases: list[Variant] = []
    for network in _shrunk(base, smallest):
        macs = cost(network).macs
        if macs > least_macs and (not bases or macs < cost(bases[-1]).macs):
            bases.append(network)
    return (*bases, smallest)


def _shrunk(base: Variant, smallest: Variant) -> Iterator[Variant]:
    if base.resolution_px >= LEAST_PROXY_PX:
        yield base
    least_px = max(LEAST_PROXY_PX, base.least_resolution_px)
    side = max(base.resolution_px, least_px)
    step, stride = dim_step(base.stages[0].heads, 2), paper.STAGE_STRIDES[-1]
    dims = _down(base.dims[0], smallest.dims[0], step)
    for dim1 in dims:
        yield _resized(base, smallest, dim1, side, base.depths)
    dim1 = min([base.dims[0], *dims])
    sides = _down(side, least_px, stride)
    for smaller_px in sides:
        yield _resized(base, smallest, dim1, smaller_px, base.depths)
    side = min([side, *sides])
    deepest = max(base.depths)
    for blocks in range(deepest - 1, 0, -1):
        depths = tuple(max(1, int(depth * blocks / deepest + 0.5)) for depth in base.depths)
        if sum(depths) >= sum(smallest.depths):
            yield _resized(base, smallest, dim1, side, depths)


def _down(start: int, end: int, step: int) -> range:
    """Multiples of `step` below `start`, the largest first, to the last that is `end` or more."""
    return range((start - 1) // step * step, end - 1, -step)


def _resized(
    base: Variant, smallest: Variant, dim1: int, side: int, depths: tuple[int, ...]
) -> Variant:
    network = resize(base, name="x", dim1=dim1, depths=depths, resolution_px=side)
    stem = max(network.stem_channels, min(smallest.stem_channels, base.stem_channels))
    return replace(network, name=network_name(network), stem_channels=stem)
