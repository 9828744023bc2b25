"""The flags that limit the real network and ask for a family: mistakes, the plan, `show`."""

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cmtscale.arch.variant import network_name, variant
from cmtscale.cli import search_outcome_view
from cmtscale.cli.app import run
from cmtscale.cli.search import _request
from cmtscale.cli.search_family_view import print_family
from cmtscale.search.family import solve_family
from cmtscale.search.outcome import Outcome
from cmtscale.search.settings import read_settings

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--budget 4G --max-params 20", "--max-params '20' has no unit; did you mean 20M?"),
        ("--budget 4G --max-params five", "--max-params 'five' is not a count; write 5M"),
        ("--budget 4G --max-activations 0", "--max-activations '0' is not a count; write 5M"),
        ("--budget 4G --max-latency 8", "--max-latency '8' has no unit; did you mean 8ms?"),
        ("--budget 4G --max-latency -8ms", "--max-latency '-8ms' is not a time; write 8ms or"),
        ("--budget 4G --max-params 1M", "the tightest is --max-params 1M, which excludes"),
        ("--budget 4G,4000M", "budget 4G is given twice; give it once"),
        ("--budget 4G,,1G", "budget '' is not a number of MACs; write 4.0G, 600M or 4e9"),
        ("--budget 4G,1.5", "budget '1.5' is a number of single multiply-adds; did you mean"),
        ("--budget 20M,4G", "budget 20M is 1/77 of the base cmt-xs (1.54G)"),
    ],
)
def test_a_limit_or_family_that_cannot_be_is_one_line_and_writes_nothing(
    refusal: Callable[..., str],
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ["--device", "cpu", "--workers", "1", "--cache-dir", str(cache_dir)]
    line = refusal("search", *arguments.split(), *where)
    assert words in line
    assert list(tmp_path.iterdir()) == []


def test_another_family_or_limit_overrides_that_of_the_folder_and_none_lifts_it(
    finished: Outcome, tmp_path: Path
) -> None:
    limited = replace(
        finished.settings, max_params=30_000_000, max_latency_seconds=0.5, family=(600_000_000,)
    )
    limited.save(tmp_path / "request.toml")
    assert read_settings(tmp_path / "request.toml") == limited
    same = _request(tmp_path, {})
    assert (same.max_params, same.max_latency_seconds) == (30_000_000, 0.5)
    assert same.family == (600_000_000,)
    changed = _request(tmp_path, {"max_params": None, "max_latency_seconds": 0.1, "family": ()})
    assert (changed.max_params, changed.max_latency_seconds) == (None, 0.1)
    assert changed.family == ()


@pytest.fixture
def family_folder(finished: Outcome, tmp_path: Path) -> Path:
    """A copy of the finished search that was last asked for a family within limits."""
    folder = tmp_path / "search"
    shutil.copytree(finished.folder, folder)
    asked = {"family": (600_000_000, 2_000_000_000), "max_activations": 40_000_000}
    replace(finished.settings, **asked).save(folder / "request.toml")
    return folder


def test_show_prints_the_family_as_a_table_with_the_searched_budget_last(
    family_folder: Path, capsys: Capture
) -> None:
    assert run(["show", str(family_folder)]) == 0
    text = capsys.readouterr().out
    assert "budget 4G MACs, --max-activations 40M, data" in " ".join(text.split())
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("family "))
    assert re.split(" {2,}", lines[start].strip()) == [
        "family", "network", "grown from", "MACs", "params", "stray",
    ]  # fmt: skip
    rows = [re.split(" {2,}", line.strip()) for line in lines[start + 1 : start + 4]]
    assert [row[0] for row in rows] == ["600M", "2G", "4G"]
    assert [row[2] for row in rows] == ["cmt-xs-150M", "cmt-xs", "cmt-xs"]
    assert run(["show", str(family_folder), "--json"]) == 0
    choice = json.loads(capsys.readouterr().out)["choice"]
    assert [member["network"] for member in choice["family"]] == [row[1] for row in rows[:2]]
    assert rows[2][1] == network_name(variant(str(family_folder / "best.toml")))


def test_at_80_columns_the_family_is_whole_and_a_lacking_member_says_why(
    finished: Outcome,
) -> None:
    settings = replace(finished.settings, family=(600_000_000, 2_000_000_000))
    assert finished.winner is not None
    lacking, member = solve_family(settings, finished.winner.shares)
    reason = "no variant of cmt-xs-150M at 600M MACs; the nearest budget that works is 588M"
    lacking = replace(lacking, solution=None, reason=reason)
    console = Console(width=80, file=io.StringIO(), highlight=False, emoji=False)
    outcome = replace(finished, settings=settings, family=(lacking, member))
    print_family(outcome, console)
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert f"600M: {reason}" in " ".join(text.split())
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["2G", "4G"]


def test_without_a_family_nothing_is_said_of_one(finished: Outcome, capsys: Capture) -> None:
    search_outcome_view.print_outcome(finished)
    assert "family" not in capsys.readouterr().out
