"""The constraint surface, conversion to and from log shares, and `scale`."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import ScalingError
from cmtscale.arch.scaling import Scaling, Shares, implied, scale, scaling_from_shares
from cmtscale.arch.variant import published_variants, variant


@st.composite
def simplex(draw):
    parts = [draw(st.floats(0.0, 1.0)) + 1e-9 for _ in range(3)]
    return Shares(
        depth=parts[0] / sum(parts), width=parts[1] / sum(parts), resolution=parts[2] / sum(parts)
    )


def test_the_papers_own_constants_are_admitted():
    step = Scaling(1.0, 1.2, 1.3, 1.15)
    assert step.product == pytest.approx(2.352, abs=5e-4)
    assert (step.shares.depth, step.shares.width, step.shares.resolution) == pytest.approx(
        (0.199, 0.429, 0.305), abs=6e-4
    )


@given(simplex(), st.floats(-5, 5))
def test_shares_and_coefficients_convert_both_ways(shares, phi):
    scaling = scaling_from_shares(phi, shares)
    assert scaling.product == pytest.approx(2.5, rel=1e-12)
    back = scaling.shares
    assert (back.depth, back.width, back.resolution) == pytest.approx(
        (shares.depth, shares.width, shares.resolution), abs=1e-9
    )


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ((1.0, 1.0, 1.0), "= 1.000; it must be 2.5"),
        ((2.0, 1.3, 1.15), "= 3.920; it must be 2.5"),
        ((0.9, 1.5, 1.2), "each must be at least 1"),
        ((-1.0, 1.5, 1.2), "each must be at least 1"),
        ((math.nan, 1.3, 1.15), "is not finite"),
        (("1.2", 1.3, 1.15), "is not a number"),
    ],
)
def test_constants_off_the_surface_are_refused(constants, message):
    with pytest.raises(ScalingError, match=message):
        Scaling(1.0, *constants)


@pytest.mark.parametrize("phi", [41.0, -1e6])
def test_phi_that_would_overflow_is_refused(phi):
    with pytest.raises(ScalingError, match="out of range; use -40 to 40"):
        Scaling(phi)


def test_the_refusal_names_legal_values():
    with pytest.raises(ScalingError) as caught:
        Scaling(1.0, 2.0, 1.3, 1.15)
    named = [float(word) for word in str(caught.value).split("legal: ")[1].split(", ")]
    assert Scaling(1.0, *named).product == pytest.approx(2.5, rel=5e-3)


@pytest.mark.parametrize("base", published_variants(), ids=lambda v: v.name)
def test_phi_zero_is_the_base(base):
    assert scale(base, Scaling(0.0)) is base


def test_scale_rounds_as_documented():
    # CMT-S one step up: 64·1.3 = 83.2 → 84; 3·1.2 = 3.6 → 4, 16·1.2 = 19.2 → 19;
    # 224·1.15 = 257.6 → 256; stem 32·84/64 = 42.
    big = scale(variant("cmt-s"), Scaling(1.0))
    assert big.dims == (84, 168, 336, 672)
    assert big.depths == (4, 4, 19, 4)
    assert (big.resolution_px, big.stem_channels) == (256, 42)
    assert [s.expansion for s in big.stages] == [4.0] * 4
    small = scale(variant("cmt-s"), Scaling(-1.0))  # 64/1.3 = 49.2 → 50; 2.5 → 3, 13.3 → 13
    assert (small.dims[0], small.depths, small.resolution_px) == (50, (3, 3, 13, 3), 192)


@given(simplex(), st.floats(0.05, 3.0))
def test_cost_never_falls_as_phi_rises(shares, phi):
    base = variant("cmt-s")
    smaller = scale(base, scaling_from_shares(phi, shares))
    larger = scale(base, scaling_from_shares(phi + 0.5, shares))
    assert cost(smaller).macs <= cost(larger).macs


def test_implied_shares_are_those_of_the_integers():
    base = variant("cmt-s")
    phi, shares = implied(base, scale(base, Scaling(1.0)))
    growth = math.log(31 / 25) + 1.5 * math.log(84 / 64) + 2 * math.log(256 / 224)
    assert phi == pytest.approx(growth / math.log(2.5))
    assert shares.depth == pytest.approx(math.log(31 / 25) / growth)
    assert shares.total == pytest.approx(1.0)
    assert implied(base, base) == (0.0, Shares(depth=0.0, width=0.0, resolution=0.0))
