"""The ladder of twin bases: which way it shrinks, how far, and that its networks are legal."""

from itertools import pairwise

import pytest

from cmtscale.arch.base import default_base
from cmtscale.arch.cost import cost
from cmtscale.arch.network import fit_to_data
from cmtscale.arch.twins import LEAST_PROXY_PX, PROXY_BASE, twin_bases
from cmtscale.arch.variant import Variant, published_variants

BASES = [*published_variants(), default_base(20e6, 10, 1), fit_to_data(PROXY_BASE, 10, 1)]


@pytest.mark.parametrize("base", BASES, ids=lambda base: f"{base.name}-{base.num_classes}")
def test_each_base_costs_less_and_is_no_larger_on_any_axis(base: Variant) -> None:
    bases = twin_bases(base)
    macs = [cost(network).macs for network in bases]
    assert macs == sorted(set(macs), reverse=True)
    for larger, smaller in pairwise(bases):
        assert smaller.dims[0] <= larger.dims[0]
        assert smaller.resolution_px <= larger.resolution_px
        assert sum(smaller.depths) <= sum(larger.depths)
        assert (smaller.num_classes, smaller.in_channels) == (base.num_classes, base.in_channels)
    assert min(network.resolution_px for network in bases) >= LEAST_PROXY_PX


@pytest.mark.parametrize("base", published_variants(), ids=lambda base: base.name)
def test_width_shrinks_first_then_resolution_and_depth_last(base: Variant) -> None:
    axes = []
    *bases, last = twin_bases(base)
    for larger, smaller in pairwise(bases):
        changed = [
            name
            for name, differs in (
                ("width", smaller.dims != larger.dims),
                ("resolution", smaller.resolution_px != larger.resolution_px),
                ("depth", smaller.depths != larger.depths),
            )
            if differs
        ]
        axes += changed
        assert len(changed) == 1
    order = ["width", "resolution", "depth"]
    assert axes == sorted(axes, key=order.index)
    assert set(axes) == set(order)
    assert bases[0] == base
    assert last == fit_to_data(PROXY_BASE, base.num_classes, base.in_channels)


@pytest.mark.parametrize("base", published_variants(), ids=lambda base: base.name)
def test_bases_keep_the_ratios_heads_and_reductions_of_a_cmt(base: Variant) -> None:
    for network in twin_bases(base):
        assert [dim / network.dims[0] for dim in network.dims] == [1, 2, 4, 8]
        assert [stage.heads for stage in network.stages] == [s.heads for s in base.stages]
        assert [stage.reduction for stage in network.stages] == [s.reduction for s in base.stages]


def test_a_base_that_is_no_larger_than_the_smallest_has_that_alone() -> None:
    assert twin_bases(PROXY_BASE) == (PROXY_BASE,)
