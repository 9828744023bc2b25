"""Vectorised and smooth costs, compared with the costs of single variants."""

import numpy as np
import pytest

from cmtscale.arch.cost import cost
from cmtscale.arch.growth import count_many, fixed_and_block_macs, smooth_macs
from cmtscale.arch.scaling import Scaling, scale
from cmtscale.arch.variant import published_variants, variant


def test_many_costs_equal_single_ones():
    rng = np.random.default_rng(0)
    base = variant("cmt-ti")
    variants = [scale(base, Scaling(phi)) for phi in rng.uniform(-2, 4, 40)]
    many = count_many(
        base,
        dims=np.array([v.dims for v in variants]),
        depths=np.array([v.depths for v in variants]),
        stem_channels=np.array([v.stem_channels for v in variants]),
        resolution_px=np.array([v.resolution_px for v in variants]),
    )
    for row, single in enumerate(cost(v).totals for v in variants):
        assert many.macs[row] == single.macs
        assert many.fvcore_flops[row] == single.fvcore_flops
        assert (many.params[row], many.position_bias[row], many.activations[row]) == (
            single.params,
            single.position_bias,
            single.activations,
        )


@pytest.mark.parametrize("base", published_variants(), ids=lambda v: v.name)
def test_smooth_cost_meets_the_exact_one_where_nothing_is_rounded(base):
    # Only the truncation of dim·R is left, below one channel in 165.
    assert smooth_macs(base, 1.0, 1.0, 1.0) == pytest.approx(cost(base).macs, rel=0.004)


def test_exponents_of_macs_are_those_measured():
    base = variant("cmt-s")
    step = 1e-4

    def exponent(depth, width, resolution):
        grown = smooth_macs(base, *(1 + step * axis for axis in (depth, width, resolution)))
        return np.log(grown / smooth_macs(base, 1, 1, 1)) / np.log1p(step)

    assert exponent(1, 0, 0) == pytest.approx(0.91, abs=0.01)
    assert exponent(0, 1, 0) == pytest.approx(1.93, abs=0.01)
    assert exponent(0, 0, 1) == pytest.approx(2.09, abs=0.01)


def test_macs_are_fixed_ones_and_those_of_each_block():
    variants = published_variants()
    for single in variants:
        fixed, blocks = fixed_and_block_macs(
            single,
            dims=np.array([single.dims]),
            stem_channels=np.array([single.stem_channels]),
            resolution_px=np.array([single.resolution_px]),
        )
        assert fixed[0] + blocks[0] @ np.array(single.depths) == cost(single).macs
