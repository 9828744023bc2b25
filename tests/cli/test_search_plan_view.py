"""How the plan of a search looks: on a narrow terminal too, what decides is there."""

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cmtscale.arch.scaling import Shares
from cmtscale.cli import search_plan_view
from cmtscale.cli.search_plan_view import print_plan
from cmtscale.cli.search_words import share_cell
from cmtscale.data.sources import open_source
from cmtscale.search.ladder import PRESETS, Ladder
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import Plan
from cmtscale.search.samplers import Asked
from cmtscale.search.timings import Sharing, Timings


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
        batches=(),
        # runs of 2 epochs of 64 images take 65 s and more; see tests/search/test_timings.py
        timings=Timings(
            seconds_per_image={
                candidate.name: (65.0 + number) / (2 * (64 + (270 + 64) / 3))
                for number, candidate in enumerate(finished.candidates)
            }
        ),
        runs=2 * count,
        runs_done=0,
        total_seconds=600.0,
        decides=False,
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
    times = {**plan.timings.seconds_per_image}
    times[name] = times[last.candidate.name]
    timings = replace(plan.timings, seconds_per_image=times)
    return replace(plan, asked=(*others, replace(last, candidate=long)), timings=timings)


def test_at_80_columns_the_plan_shows_what_decides(plan: Plan) -> None:
    plan = with_long_values(plan)
    text = printed_plan(plan, 80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    header, *lines = table(text)
    assert re.split(" {2,}", header) == [
        "candidate", "d/w/r", "MACs", "stray", "run of 128", "excluded",
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
    assert re.split(" +", header) == ["candidate", "MACs", "stray", "run", "of", "128", "excluded"]
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
        assert not tag or f"{tag.split()[0]} (" in explained
        if tag.startswith("MACs"):
            assert tag == f"MACs {100 * (candidate.macs / 4_000_000_000 - 1):+.1f} %"


def test_a_plan_without_twins_has_neither_stray_nor_twins(plan: Plan) -> None:
    text = printed_plan(replace(plan, settings=replace(plan.settings, proxy=False)), 160)
    header = table(text)[0]
    assert re.split(" {2,}", header)[:4] == ["candidate", "role", "d/w/r", "MACs"]
    assert "stray" not in text
    assert "twin" not in header


def with_ladder(plan: Plan, ladder: Ladder, **changes: Any) -> Plan:
    settings = replace(plan.settings, ladder=ladder, **changes)
    return replace(plan, settings=settings, decides=ladder.spend > 0)


def test_a_ladder_that_spends_too_little_to_decide_anything_says_so(plan: Plan) -> None:
    text = printed_plan(replace(with_ladder(plan, PRESETS["quick"]), decides=False), 160)
    assert "these cost more than the ladder spends (0.5): the forecast asks for no more" in text
    assert "then what the forecast asks for" not in text


def test_each_rung_has_its_time_where_there_is_room(plan: Plan) -> None:
    climbing = with_ladder(plan, PRESETS["standard"])  # 2, 6, 18 epochs of 64 images
    header, first, *_ = table(printed_plan(climbing, 160))
    assert re.split(" {2,}", header)[-4:] == [
        "run of 128",
        "run of 384",
        "run of 1,152",
        "excluded",
    ]
    assert re.split(" {2,}", first)[-4:-1] == ["1 min 05 s", "3 min 15 s", "9 min 45 s"]
    narrow = printed_plan(climbing, 80)
    assert "…" not in narrow
    assert "run of 1,152" not in table(narrow)[0]
    assert re.search(r"wider terminal also shows: .*run of 1,152", " ".join(narrow.split()))


def test_the_plan_says_what_is_certain_and_what_the_answer_is_for(plan: Plan) -> None:
    changes: dict[str, Any] = {"target_images": 3_000, "tolerance": 0.02, "prefer": "latency"}
    climbing = with_ladder(replace(plan, runs_done=3), PRESETS["standard"], **changes, seeds=1)
    text = " ".join(printed_plan(climbing, 160).split())
    assert "runs of 2 x 64 / 6 x 64 / 18 x 64 images in batches of 64" in text
    assert "every candidate once at 128, the corners and the centre at all" in text
    assert "8 runs, 3 of them done already, then what the forecast asks for, on 1 x cpu" in text
    assert "at most 10 min 00 s from now" in text
    assert "a training of 3,000 images seen: what lies within 2 % of the lowest loss" in text
    assert "the network with the lowest latency" in text


def test_a_flat_plan_promises_no_decisions(plan: Plan) -> None:
    text = printed_plan(plan, 160)
    assert "every candidate 2 times at 128\n" in text
    assert "corners and the centre" not in text
    assert "forecast asks" not in text
    assert "8 runs, on 1 x cpu; about 10 min 00 s from now" in text
    done = printed_plan(replace(plan, runs_done=8, total_seconds=0.0), 160)
    assert "8 runs, 8 of them done already, on 1 x cpu; nothing is left to train" in done
    more = printed_plan(with_ladder(replace(plan, runs_done=8), PRESETS["quick"]), 160)
    assert "nothing is left" not in more  # the forecast may ask for runs


def sharing_line(plan: Plan, devices: tuple[str, ...], speeds: tuple[float, ...]) -> str:
    """What the plan says of runs that share a GPU."""
    sharing = Sharing(card="H100", card_bytes=80, run_bytes=1, images_per_second=speeds)
    timings = replace(plan.timings, device="cuda", sharing=sharing)
    text = printed_plan(replace(plan, devices=devices, timings=timings), 160)
    return "".join(line for line in text.splitlines() if "each GPU" in line)


def test_the_plan_says_how_many_runs_share_a_gpu_and_what_that_is_by(plan: Plan) -> None:
    four = ("cuda:0", "cuda:1") * 4
    assert sharing_line(plan, four, (1_800.4, 3_400.0, 5_100.0)) == (
        "4 runs share each GPU: 5,100 images/s together, 1,800 alone (measured)"
    )
    assert sharing_line(plan, ("cuda:0",), (1_800.0, 1_900.0)) == (
        "one run at a time on each GPU: two together gain too little, 1,900 images/s for 1,800 "
        "alone (measured)"
    )


@pytest.mark.parametrize(
    ("devices", "speeds"),
    [
        (("cpu",) * 2, ()),
        (("cuda:0",), (1_800.0, 3_400.0)),  # as the user wants it
        (("cuda:0",) * 3, (1_800.0, 3_400.0)),
        (("cuda:0", "cuda:1", "cuda:0"), (1_800.0, 1_900.0)),
        (("cuda:0",), (1_800.0,)),
    ],
)
def test_what_was_not_measured_is_not_said(
    plan: Plan, devices: tuple[str, ...], speeds: tuple[float, ...]
) -> None:
    assert sharing_line(plan, devices, speeds) == ""


@pytest.mark.parametrize("width", [60, 80, 160])
def test_no_line_of_a_plan_with_a_ladder_is_wider_than_the_terminal(plan: Plan, width: int) -> None:
    text = printed_plan(with_ladder(with_long_values(plan), PRESETS["thorough"]), width)
    assert "…" not in text
    path = str(plan.folder)
    assert max(len(line) for line in text.splitlines() if path[-20:] not in line) <= width


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


def test_the_plan_says_what_of_the_disk_it_needs_and_warns_where_less_is_free(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def free(folder: Path) -> int:
        folders.append(folder)
        return 12_000_000_000

    monkeypatch.setattr(search_plan_view, "free_bytes", free)
    assert "disk" not in printed_plan(plan, 160)  # nothing is left to train
    text = printed_plan(replace(plan, disk_bytes=340_000_000), 160)
    assert "disk: about 340.0 MB from now, 12.0 GB free\n" in text
    assert "too small" not in text
    assert folders == [plan.folder]
    text = " ".join(printed_plan(replace(plan, disk_bytes=13_500_000_000), 160).split())
    assert "warning: the disk is too small by about 1.5 GB: the search will stop when" in text
    assert "go on with the same command; free some space, or use another --out" in text
