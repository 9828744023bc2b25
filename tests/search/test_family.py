"""Smaller budgets get the shares of the network that a search has taken."""

import re
from dataclasses import replace
from typing import Any

import pytest

from cmtscale.arch.base import scaled_down
from cmtscale.arch.budget import parse_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import BudgetError
from cmtscale.arch.scaling import Shares, scaling_from_shares
from cmtscale.arch.solve import find
from cmtscale.arch.variant import variant
from cmtscale.data.dataset import Description
from cmtscale.search.candidates import CENTRE
from cmtscale.search.family import solve_family
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.settings import Settings

G = 1_000_000_000


def resolved(**changes: Any) -> Settings:
    request = SearchRequest(**{"budget_macs": 4 * G, "data": "folder:/images", **changes})
    return resolve(
        request, Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000)
    )


def test_members_are_within_two_percent_smallest_first_and_carry_the_shares() -> None:
    settings = resolved(family=(3 * G, 600_000_000))
    small, large = solve_family(settings, CENTRE)
    assert (small.budget_macs, large.budget_macs) == (600_000_000, 3 * G)
    for member in (small, large):
        assert member.solution is not None
        network = member.solution.variant
        assert abs(cost(network).macs / member.budget_macs - 1) <= 0.02
        same = find(member.base, scaling_from_shares(0.0, CENTRE), member.budget_macs)
        assert same is not None
        assert network.same_network(same.variant)
        assert network.name.startswith("d")
        assert network.num_classes == 10
    assert (small.file_name, large.file_name) == ("best-600M.toml", "best-3G.toml")


def test_a_member_grows_from_the_base_of_the_search_or_from_that_base_scaled_down() -> None:
    settings = resolved(family=(600_000_000, 2 * G))
    small, large = solve_family(settings, CENTRE)
    assert large.base == settings.base
    assert small.base == scaled_down(settings.base, 600_000_000)
    assert abs(cost(small.base).macs / 150_000_000 - 1) <= 0.02
    for member in (small, large):
        assert member.solution is not None
        assert member.solution.phi > 0


@pytest.mark.parametrize(("budget", "small"), [("20M", "0.2M"), ("50M", "1M"), ("20M", "2M")])
def test_a_member_below_64_px_is_refused_before_training_with_a_budget_that_works(
    budget: str, small: str
) -> None:
    def family(least: str) -> Settings:
        return resolved(budget_macs=parse_macs(budget), family=(parse_macs(least),))

    with pytest.raises(BudgetError, match="64 px or more") as caught:
        family(small)
    (enough,) = re.findall(r"use (\S+) or more", str(caught.value))
    asked_before = replace(family(enough), family=(parse_macs(small),))
    (member,) = solve_family(asked_before, CENTRE)
    assert (member.solution, member.reason) == (None, str(caught.value))
    (member,) = solve_family(family(enough), CENTRE)
    assert member.base.resolution_px >= 64


def test_a_member_that_the_search_takes_away_to_below_64_px_is_a_reason() -> None:
    settings = resolved(
        base=replace(variant("cmt-ti"), resolution_px=96), proxy=False, budget_macs=50_000_000
    )
    shares = Shares(depth=0.0, width=0.0, resolution=1.0)
    (member,) = solve_family(replace(settings, family=(24_600_000,)), shares)
    assert member.solution is None
    assert "at 32 px the last stage's attention has one key" in member.reason


def test_where_the_search_itself_takes_away_its_members_take_away_too() -> None:
    base = variant("cmt-b")
    settings = resolved(base=base, proxy=False, family=(2 * G,))
    (member,) = solve_family(settings, CENTRE)
    assert member.base == settings.base
    assert member.solution is not None
    assert member.solution.phi < 0


def test_a_member_that_integers_do_not_express_names_the_nearest_budget_that_works() -> None:
    settings = resolved(budget_macs=600_000_000, family=(20_000_000,))
    shares = Shares(depth=0.0, width=0.0, resolution=1.0)
    (member,) = solve_family(settings, shares)
    assert member.solution is None
    assert "the nearest budget that works is " in member.reason
    assert "\n" not in member.reason
