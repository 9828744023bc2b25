"""`check`: what it refuses, and what its findings say, to whoever checks and in `show`."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cmtscale.cli import rate_view
from cmtscale.cli.app import run
from cmtscale.cli.check_view import print_twins
from cmtscale.cli.check_words import UNCHECKED, beside_answer
from cmtscale.cli.rate_view import print_rates
from cmtscale.record.rate_check import (
    AnchorFound,
    NoiseAlone,
    RateCheck,
    RateLine,
    Swap,
    write_rate_check,
)
from cmtscale.record.twin_check import SizeFound, Tau, TwinCheck, write_twin_check
from cmtscale.search.outcome import Outcome

Capture = pytest.CaptureFixture[str]
TAU = Tau(networks=8, tau=0.79, low=0.43, high=0.98, alone=(0.9, 0.7, 1.0), regret=0.012)


def size(macs: int, tau: Tau | None) -> SizeFound:
    return SizeFound(
        macs=macs,
        base="cmt-proxy",
        base_macs=macs // 6,
        noise=0.017,
        degrees=8,
        spread=0.05,
        tau=tau,
        verdict="not refuted" if tau else "the largest",
    )


@pytest.fixture
def found() -> TwinCheck:
    return TwinCheck(
        threshold=0.7,
        images_seen=6_000,
        seeds=2,
        own_macs=14_427_200,
        sizes=(size(14_427_200, TAU), size(29_600_000, None)),
        smallest_macs=14_427_200,
        is_above=False,
        tour=False,
    )


@pytest.fixture
def folder(finished: Outcome, tmp_path: Path) -> Path:
    copy = tmp_path / "search"
    shutil.copytree(finished.folder, copy)
    return copy


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "use --twin, --drift or --lr"),
        (["--twin", "--drift"], "use --twin, --drift or --lr"),
        (["--twin", "--drift", "--lr"], "use --twin, --drift or --lr"),
        (["--drift", "--sizes", "10M", "--dry-run"], "takes no --sizes, --dry-run"),
        (["--drift", "--accept-changes"], "--drift trains nothing and takes no --accept-changes"),
        (["--lr", "--sizes", "10M"], "--lr ranks no twins and takes no --sizes"),
        (["--lr", "--threshold", "0.7", "--sizes", "10M"], "takes no --sizes, --threshold"),
        (["--lr", "--dry-run", "--json"], "drop one"),
        (["--lr", "--seeds", "0"], "seeds 0"),
        (["--lr"], "holds no search"),
        (["--twin", "--sizes", "lots"], "--sizes 'lots' is not a number of MACs"),
        (["--twin", "--threshold", "1.5"], "threshold 1.5 is out of range"),
        (["--twin", "--dry-run", "--json"], "drop one"),
        (["--twin"], "holds no search"),
        (["--drift"], "holds no search"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    refusal: Callable[..., str], tmp_path: Path, flags: list[str], message: str
) -> None:
    assert message in refusal("check", str(tmp_path / "none"), *flags)
    assert not (tmp_path / "none").exists()


def test_a_search_with_too_few_networks_for_a_ranking_is_refused(
    refusal: Callable[..., str], folder: Path, cache_dir: Path
) -> None:
    line = refusal("check", str(folder), "--twin", "--device", "cpu", "--cache-dir", str(cache_dir))
    assert "a ranking takes 4" in line or "two sizes or more" in line
    assert not (folder / "twins").exists()


def test_findings_name_verdict_interval_and_what_a_check_cannot_do(
    found: TwinCheck, capsys: Capture, tmp_path: Path
) -> None:
    print_twins(tmp_path, found)
    text = " ".join(capsys.readouterr().out.split())
    assert "twins of 14.4M MACs against 29.6M: τ 0.79 (0.43 to 0.98) over 8 networks" in text
    assert "not refuted at 0.7, the search's own; not a hundred networks would tell" in text
    assert "The smallest twins that reach a τ of 0.7: 14.4M, but not with the whole" in text
    assert "never certifies them: where τ is 0.7 in truth, 8 networks show 0.29 to 0.93" in text


def test_noise_that_alone_hides_the_ranking_asks_for_seeds(
    found: TwinCheck, capsys: Capture, tmp_path: Path
) -> None:
    noisy = replace(TAU, tau=0.5, alone=(0.6, 0.2, 0.9))
    sizes = (size(14_427_200, noisy), found.sizes[1])
    print_twins(tmp_path, replace(found, sizes=sizes, smallest_macs=None))
    text = " ".join(capsys.readouterr().out.split())
    assert "noise alone leaves τ at 0.60: more --seeds, or a longer --rung" in text
    assert "No smaller twins reach a τ of 0.7." in text


def test_a_low_tau_that_noise_alone_explains_cannot_be_told(
    found: TwinCheck, capsys: Capture, tmp_path: Path
) -> None:
    noisy = replace(TAU, tau=0.1, low=-0.4, high=0.6, alone=(0.0, -0.6, 0.6))
    small = replace(size(14_427_200, noisy), verdict="cannot be told")
    print_twins(tmp_path, replace(found, sizes=(small, found.sizes[1]), smallest_macs=None))
    text = " ".join(capsys.readouterr().out.split())
    assert "cannot be told at 0.7, the search's own; noise alone leaves τ at 0.00: more" in text


def test_show_says_what_was_checked_of_the_twins_that_it_answers_with(
    found: TwinCheck, folder: Path, capsys: Capture
) -> None:
    assert run(["show", str(folder)]) == 0
    assert UNCHECKED in " ".join(capsys.readouterr().out.split())
    own = replace(found, own_macs=1_220_000, sizes=(size(1_220_000, TAU), found.sizes[1]))
    write_twin_check(folder, own, [])
    assert run(["show", str(folder)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "checked: twins of 1.22M MACs against 29.6M: τ 0.79 (0.43 to 0.98)" in text
    assert UNCHECKED not in text
    assert beside_answer(found, 1_220_000) == UNCHECKED  # a check of other twins


def test_a_damaged_check_is_said_in_one_line_beside_the_answer(
    printed: Callable[..., str], refusal: Callable[..., str], found: TwinCheck, folder: Path
) -> None:
    whole = printed("show", str(folder)).splitlines()
    write_twin_check(folder, found, [])
    (folder / "twins" / "check.json").write_text('{"sizes": []}')
    shown = printed("show", str(folder)).splitlines()
    (line,) = set(shown) - set(whole)
    assert "check.json is damaged" in line
    assert "remove it, and check again" in line
    assert "check.json is damaged" in refusal("plot", str(folder))


def test_drift_is_read_from_the_record_and_writes_nothing(
    folder: Path, printed: Callable[..., str]
) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    text = printed("check", str(folder), "--drift")
    assert "all runs have one length" in text
    drift = json.loads(printed("check", str(folder), "--drift", "--json"))["drift"]
    (rung,) = drift["rungs"]
    assert (rung["images_seen"], rung["networks"], rung["runs"], rung["degrees"]) == (128, 3, 6, 3)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


NAMES = {"depth": "d9.9.36.9-w8-r64", "resolution": "d1.1.4.1-w8-r160"}


def rates(changes: dict[str, tuple[float, float]], **found: Any) -> RateCheck:
    """A check at ½, 1 and 2 times 0.002 with a loss of 0.5 there; `changes` at ½ and 2, in ln."""
    lines, anchors = [], []
    for role, (half, twice) in changes.items():
        for factor, change in ((0.5, half), (1.0, 0.0), (2.0, twice)):
            lines.append(
                RateLine(
                    network=NAMES[role],
                    role=role,
                    factor=factor,
                    lr=0.002 * factor,
                    seeds=2,
                    diverged=0,
                    infeasible=0,
                    loss=0.5 * math.exp(change),
                    change=None if factor == 1 else change,
                    error=None if factor == 1 else 0.012,
                )
            )
        lowest = min(((half, 0.5), (0.0, 1.0), (twice, 2.0)))
        wants = lowest[1] if lowest[0] < -0.024 else None
        anchors.append(
            AnchorFound(network=NAMES[role], role=role, lowest=lowest[1], wants=wants, hidden=0.055)
        )
    values: dict[str, Any] = {
        "verdict": "one rate serves all",
        "lr": 0.002,
        "images_seen": 6_000,
        "seeds": 2,
        "noise": 0.012,
        "degrees": 12,
        "lines": tuple(lines),
        "anchors": tuple(anchors),
        "swaps": (),
        "regret": 0.0,
        "may_lose": 0.004,
        "alone": NoiseAlone(gain=0.007, regret=0.001, chance=0.17),
        "tolerance": 0.01,
        "tour": False,
        **found,
    }
    return RateCheck(**values)


STEADY = {"depth": (0.05, -0.01), "resolution": (0.04, 0.03)}
MOVED = {"depth": (0.05, -0.031), "resolution": (0.04, 0.03)}
SWAP = Swap(factor=2.0, first="depth", second="resolution", by_noise=False)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            rates(STEADY),
            [
                "one rate serves all: none of 2 networks is better at another than 0.002 by more "
                "than the noise, and what it hides cannot cost the choice among them more than 1 %",
                "depth, resolution: no rate is better by more than two standard errors",
                "order: the same at each rate",
                "edge: the lowest loss of depth is at the last rate tried; the true optimum may",
                "the best at ×1 loses 0.0 % (noise alone: 0.1 %), and at most 0.4 % within two",
                "would look 0.7 % better by noise alone",
                "want another rate in 17 of 100 checks",
            ],
        ),
        (
            rates(MOVED, verdict="another rate is wanted", swaps=(SWAP,), regret=0.031),
            [
                "depth: better at ×2: −3.1 % ± 1.2 %",
                "resolution: no rate is better by more than two standard errors",
                "order: at ×2 depth comes before resolution, by more than the noise",
                "the best at ×1 loses 3.1 %",
                "depth wants another rate (×2): the ranking at this rate understates it by up to "
                "5.4 %",
            ],
        ),
        (
            rates(STEADY, verdict="cannot be told", may_lose=0.042),
            ["cannot be told from noise with 2 seeds: what it hides may cost the choice 4.2 %"],
        ),
        (
            rates(STEADY, verdict="cannot be told", noise=None, may_lose=None, alone=None),
            ["cannot be told from noise: one seed does not measure it; use --seeds 2"],
        ),
    ],
)
def test_what_was_found_of_rates_is_said_in_plain_words(
    found: RateCheck, expected: list[str], capsys: Capture, tmp_path: Path
) -> None:
    print_rates(tmp_path, found)
    text = " ".join(capsys.readouterr().out.split())
    for sentence in expected:
        assert sentence in text


@pytest.mark.parametrize("width", [60, 80])
def test_the_table_of_rates_is_whole_on_a_narrow_terminal(
    width: int, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = Console(width=width, highlight=False, emoji=False)
    monkeypatch.setattr(rate_view, "results", lambda: narrow)
    print_rates(tmp_path, rates({"depth": (0.05, -0.131), "resolution": (0.04, 0.03)}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "role"
    assert lines[1].split()[-7:] == ["×2", "edge", "−12.3", "%", "±", "1.2", "%"]
    assert ("d9.9.36.9-w8-r64" in lines[1]) == (width == 80)
    assert all(len(line) <= width for line in lines)


def test_show_says_what_was_checked_of_the_learning_rate_and_nothing_before(
    folder: Path, printed: Callable[..., str]
) -> None:
    assert "learning rate" not in printed("show", str(folder))
    write_rate_check(folder, rates(STEADY))
    text = " ".join(printed("show", str(folder)).split())
    assert "learning rate: checked: one rate serves all: none of 2 networks" in text
    path = folder / "rates" / "check.json"
    path.write_text(path.read_text().replace("one rate serves all", "perhaps"))
    assert "'perhaps' is no verdict" in printed("show", str(folder))


@pytest.mark.parametrize("kind", ["--twin", "--lr"])
def test_a_search_that_other_code_trained_is_refused_until_that_is_accepted(
    kind: str, refusal: Callable[..., str], folder: Path, cache_dir: Path, printed: Any
) -> None:
    path = folder / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "code": "0123"}))
    where = ["--device", "cpu", "--cache-dir", str(cache_dir)]
    line = refusal("check", str(folder), kind, *where)
    assert "cmtscale's code 0123 is now " in line
    assert "--accept-changes" in line
    if kind == "--lr":  # these twins are too few for the other
        printed("check", str(folder), kind, *where, "--accept-changes", "--dry-run")
    printed("check", str(folder), "--drift")  # reads the record alone, as `show` does
