"""`cmtscale scale`: from which base, to which variant."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cmtscale.arch.base import default_base
from cmtscale.arch.budget import parse_macs
from cmtscale.arch.variant import variant


@pytest.mark.parametrize(
    ("budget", "base", "rule"),
    [
        ("8.0G", "cmt-xs (1.55G MACs)", "largest at most half"),
        ("600M", "cmt-xs (1.55G MACs)", "smallest at least twice"),
        ("18.5G", "cmt-s (4.03G MACs)", "largest at most half"),
    ],
)
def test_a_budget_without_a_base_is_reached_from_the_one_a_search_would_take(
    printed: Callable[..., str], budget: str, base: str, rule: str
) -> None:
    first, *rest = printed("scale", "--budget", budget).splitlines()
    assert first == f"base {base}: of the published variants the {rule} the budget"
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
