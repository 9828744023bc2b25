"""The base for a budget: the default one, and bases too near or too far that are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmtscale.arch.base import default_base, require_distance, require_reach
from cmtscale.arch.budget import parse_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import variant

G = 10**9


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (0.6 * G, "cmt-ti-150M"),  # none is at most half
        (1.0 * G, "cmt-ti-250M"),
        (1.3 * G, "cmt-ti"),
        (3.0 * G, "cmt-ti"),
        (4.0 * G, "cmt-xs"),
        (8.0 * G, "cmt-xs"),
        (8.1 * G, "cmt-s"),
        (10.0 * G, "cmt-s"),
        (40.0 * G, "cmt-b"),
    ],
)
def test_the_default_base_is_the_largest_at_most_half_the_budget(budget: float, name: str) -> None:
    assert default_base(round(budget)).name == name


@given(st.integers(20 * 10**6, 10**13))
def test_every_budget_has_a_default_base_with_distance(budget: int) -> None:
    base = default_base(budget)
    require_distance(base, budget)
    assert budget >= 2 * cost(base).macs


@pytest.mark.parametrize("budget", ["20M", "100M", "600M", "1.2G"])
def test_below_twice_the_smallest_variant_the_base_is_that_one_scaled_down(budget: str) -> None:
    base, smallest = default_base(parse_macs(budget)), variant("cmt-ti")
    assert abs(4 * cost(base).macs / parse_macs(budget) - 1) <= 0.02
    assert base.dims[0] < smallest.dims[0]
    assert base.resolution_px <= smallest.resolution_px


def test_a_budget_of_nonsense_has_no_default_base() -> None:
    with pytest.raises(RequestError, match=r"5M is 1/128 of the base cmt-ti .*use 20M or more"):
        default_base(parse_macs("5M"))


def test_a_budget_within_a_factor_of_two_of_the_base_is_refused() -> None:
    small = variant("cmt-s")
    macs = cost(small).macs
    require_distance(small, 2 * macs)
    require_distance(small, macs / 2)
    for budget in (1.99 * macs, macs / 1.99):
        with pytest.raises(RequestError, match=r"at most half or at least twice.*leave --base"):
            require_distance(small, budget)


@pytest.mark.parametrize(("budget", "base"), [("5M", "cmt-ti"), ("1000G", "cmt-b")])
def test_a_budget_out_of_reach_names_the_nearest_one_in_reach(budget: str, base: str) -> None:
    with pytest.raises(RequestError, match=r"scaling reaches a factor of 32; use") as caught:
        require_reach(variant(base), parse_macs(budget))
    nearest = str(caught.value).split("; use ")[1].split()[0]
    require_reach(variant(base), parse_macs(nearest) * (1.01 if budget == "5M" else 0.99))
