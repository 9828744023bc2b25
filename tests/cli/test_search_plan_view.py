"""How the plan of a search looks: on a narrow terminal too, what decides is there."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cmtscale.arch.scaling import Shares
from cmtscale.cli.search_plan_view import print_plan
from cmtscale.cli.search_words import share_cell
from cmtscale.data.sources import open_source
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import Plan
from cmtscale.search.samplers import Asked


@pytest.fixture
def plan(finished: Outcome, cache_dir: Path) -> Plan:
    """The plan of the finished search, as if nothing had been trained."""
    count = len(finished.candidates)
    return Plan(
        settings=finished.settings,
        folder=finished.folder,
        dataset=open_source("digits", cache_dir=cache_dir).pack(64),
        devices=("cpu",),
        asked=tuple(
            Asked(candidate=candidate, number=number, after=0, by="grid")
            for number, candidate in enumerate(finished.candidates)
        ),
        run_seconds=tuple(65.0 + number for number in range(count)),
        runs=2 * count,
        runs_done=0,
        total_seconds=600.0,
        paper=finished.paper,
    )


def printed_plan(plan: Plan, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False, emoji=False)
    print_plan(plan, console)
    return console.file.getvalue()


def table(text: str) -> list[str]:
    """The header and the lines of the candidates."""
    lines = text.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith("candidate ")]
    end = next(n for n, line in enumerate(lines[start:], start) if line.startswith("candidate:"))
    return [line.rstrip() for line in lines[start:end] if not line.startswith("(")]


def with_long_values(plan: Plan) -> Plan:
    """The plan with a name, shares and a stray as long as they come."""
    shares = Shares(depth=0.3, width=0.45, resolution=0.25)
    *others, last = plan.asked
    name = "d14.14.146.14-w104-r320"
    long = replace(last.candidate, name=name, shares=shares, stray=0.123)
    return replace(plan, asked=(*others, replace(last, candidate=long)))


def test_at_80_columns_the_plan_shows_what_decides(plan: Plan) -> None:
    plan = with_long_values(plan)
    text = printed_plan(plan, 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    header, *lines = table(text)
    assert re.split(" {2,}", header) == [
        "candidate", "d/w/r", "MACs", "stray", "a run", "excluded",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == [c.name for c in plan.candidates]
    for line, candidate in zip(lines, plan.candidates, strict=True):
        assert f" {share_cell(candidate)} " in line
        assert f" {100 * candidate.stray:.1f} %" in line
        assert "1 min 0" in line


def test_at_60_columns_no_cell_is_cut(plan: Plan) -> None:
    text = printed_plan(with_long_values(plan), 60)
    assert "…" not in text
    header = table(text)[0]
    assert re.split(" +", header) == ["candidate", "MACs", "stray", "a", "run", "excluded"]
    assert "d/w/r:" not in text


def test_stray_shares_and_each_reason_are_explained_below_the_table(plan: Plan) -> None:
    text = printed_plan(plan, 160)
    assert text.count("stray: the part of the cost that rounding moved") == 1
    assert text.count("d/w/r: what depth, width and resolution take of the growth") == 1
    (explained,) = re.findall(r"excluded, cannot be chosen: .*", text)
    assert "base (what the others grow from)" in explained
    assert "diverged" not in explained
    lines = table(text)[1:]
    for line, candidate in zip(lines, plan.candidates, strict=True):
        (tag,) = re.findall(r" s(?: +(.*))?$", line)
        assert bool(tag) != candidate.on_budget
        assert (tag == "base") == (candidate.role == "base")
        assert not tag or f"{tag} (" in explained


def test_a_plan_without_twins_has_neither_stray_nor_twins(plan: Plan) -> None:
    text = printed_plan(replace(plan, settings=replace(plan.settings, proxy=False)), 160)
    header = table(text)[0]
    assert re.split(" {2,}", header)[:4] == ["candidate", "role", "d/w/r", "MACs"]
    assert "stray" not in text
    assert "twin" not in header


@pytest.mark.parametrize(
    ("shares", "cell"),
    [
        ((1.0, 0.0, 0.0), "1/0/0"),
        ((0.3, 0.45, 0.25), ".30/.45/.25"),
        ((0.999, 0.001, 0.0), "1/0/0"),
        ((0.0, 0.06, 0.94), "0/.06/.94"),
    ],
)
def test_shares_are_short(plan: Plan, shares: tuple[float, float, float], cell: str) -> None:
    depth, width, resolution = shares
    grown = replace(
        plan.candidates[-1], shares=Shares(depth=depth, width=width, resolution=resolution)
    )
    assert share_cell(grown) == cell
    assert share_cell(replace(grown, role="base")) == "–"
