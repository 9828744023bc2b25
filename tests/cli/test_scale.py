"""`cmtscale scale`: from which base, to which variant."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cmtscale.arch.base import default_base
from cmtscale.arch.budget import parse_macs
from cmtscale.arch.cost import cost
from cmtscale.arch.scaling import Scaling, scale
from cmtscale.arch.solve import solve
from cmtscale.arch.variant import variant, variant_from_table


@pytest.mark.parametrize(
    ("budget", "base", "rule"),
    [
        ("8.0G", "cmt-xs (1.55G MACs)", "the largest at most half the budget"),
        ("600M", "cmt-ti-150M (150M MACs)", "the smallest, scaled down"),
        ("18.5G", "cmt-s (4.03G MACs)", "the largest at most half the budget"),
    ],
)
def test_a_budget_without_a_base_is_reached_from_the_one_a_search_would_take(
    printed: Callable[..., str], budget: str, base: str, rule: str
) -> None:
    first, *rest = printed("scale", "--budget", budget).splitlines()
    assert first == f"base {base}: of the published variants {rule}"
    name = default_base(parse_macs(budget)).name
    assert base.startswith(f"{name} ")
    assert any(f" x {name})" in line for line in rest)


def test_a_given_base_is_taken_however_near_it_is(printed: Callable[..., str]) -> None:
    text = printed("scale", "--budget", "4.5G", "--base", "cmt-s")
    assert not text.startswith("base ")
    assert "(1.11 x cmt-s)" in text


def test_without_a_budget_the_base_is_cmt_s(printed: Callable[..., str], tmp_path: Path) -> None:
    text = printed("scale", "--phi", "0", "--save", str(tmp_path / "s.toml"))
    assert variant(tmp_path / "s.toml").same_network(variant("cmt-s"))
    assert text.startswith("s: 224 px, ")


def test_the_json_of_a_budget_holds_the_point_and_its_integers(
    printed: Callable[..., str],
) -> None:
    content = json.loads(printed("scale", "--budget", "8G", "--json"))
    solution = solve(variant("cmt-xs"), budget_macs=8e9)
    network = variant_from_table(content.pop("variant"), source="variant")
    assert network == solution.variant
    shares = solution.shares
    assert content == {
        "base": "cmt-xs",
        "base_macs": cost(variant("cmt-xs")).macs,
        "budget_macs": 8_000_000_000,
        "phi": solution.scaling.phi,
        "alpha": 1.2,
        "beta": 1.3,
        "gamma": 1.15,
        "implied_phi": solution.phi,
        "shares": {"depth": shares.depth, "width": shares.width, "resolution": shares.resolution},
        "stray": solution.stray,
        "macs": solution.macs,
        "params": cost(solution.variant).params,
    }


def test_the_json_of_phi_has_no_budget_and_the_variant_as_it_is_saved(
    printed: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    content = json.loads(printed("scale", "--phi", "1", "--json", "--save", str(path)))
    network = variant_from_table(content["variant"], source="variant")
    assert network == variant(path)
    assert network.same_network(scale(variant("cmt-s"), Scaling(1.0)))
    assert (content["base"], content["phi"]) == ("cmt-s", 1.0)
    assert content["macs"] == cost(network).macs
    assert content["budget_macs"] is content["stray"] is None


def test_what_has_not_grown_has_no_shares(printed: Callable[..., str]) -> None:
    content = json.loads(printed("scale", "--phi", "0", "--json"))
    assert content["implied_phi"] == 0
    assert set(content["shares"].values()) == {0}
