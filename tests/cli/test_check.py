"""`check`: what it refuses, and what its findings say, to whoever checks and in `show`."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cmtscale.cli.app import run
from cmtscale.cli.check_view import print_twins
from cmtscale.cli.check_words import UNCHECKED, beside_answer
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
        ([], "use --twin or --drift"),
        (["--twin", "--drift"], "use --twin or --drift"),
        (["--drift", "--sizes", "10M", "--dry-run"], "takes no --sizes, --dry-run"),
        (["--twin", "--sizes", "lots"], "'lots' is not a number of MACs"),
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


def test_a_damaged_check_is_one_line(
    refusal: Callable[..., str], found: TwinCheck, folder: Path
) -> None:
    write_twin_check(folder, found, [])
    (folder / "twins" / "check.json").write_text('{"sizes": []}')
    assert "check.json is damaged" in refusal("show", str(folder))


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
