"""`show` answers from the record alone, whatever state the search is in."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from cmtscale.cli import follow_view
from cmtscale.cli.app import run
from cmtscale.record.folder import held
from cmtscale.record.holder import read_holder
from cmtscale.record.row import read_rows, to_csv
from cmtscale.search.outcome import Outcome

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(finished: Outcome, tmp_path: Path) -> Path:
    copy = tmp_path / "search"
    shutil.copytree(finished.folder, copy)
    return copy


def test_a_finished_search_is_shown_as_it_concluded(folder: Path, capsys: Capture) -> None:
    concluded = json.loads((folder / "choice.json").read_text())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(["show", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"folder": str(folder), "choice": concluded}
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_is_shown_names_runs_target_choice_and_what_comes_next(
    folder: Path, capsys: Capture
) -> None:
    assert run(["show", str(folder)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    taken = json.loads((folder / "choice.json").read_text())["taken"]
    assert "so far 8 runs of 128 images" in text
    assert "loss at 128" in text
    assert taken in text
    assert "noise, in parts of the loss: between seeds" in text
    assert f"figures: cmtscale plot {folder}" in text


def test_a_running_search_is_shown_by_what_has_ended(folder: Path, capsys: Capture) -> None:
    for name in ("choice.json", "best.toml", "forecast.csv"):
        (folder / name).unlink()
    rows = read_rows(folder / "trials.csv")
    (folder / "trials.csv").write_text(to_csv([row for row in rows if row.seed == 0]))
    assert run(["show", str(folder)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "so far 4 runs of 128 images" in text
    assert "Undecided: no two runs of one network have ended yet" in text


def test_a_search_that_another_process_holds_is_shown_without_waiting(
    folder: Path, capsys: Capture
) -> None:
    rows = read_rows(folder / "trials.csv")
    (folder / "trials.csv").write_text(to_csv([row for row in rows if row.role == "base"]))
    with FileLock(folder / ".lock"):
        assert run(["show", str(folder)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "so far 2 runs of 128 images" in text
    assert "no run on the budget is complete: there is nothing to choose from" in text


def test_losses_that_are_not_gathered_yet_are_read_where_the_runs_left_them(
    folder: Path, capsys: Capture
) -> None:
    assert run(["show", str(folder), "--json"]) == 0
    gathered = capsys.readouterr().out
    (folder / "val_losses.npz").unlink()
    assert run(["show", str(folder), "--json"]) == 0
    assert capsys.readouterr().out == gathered


def test_every_run_failed_is_an_answer_with_a_ranking(folder: Path, capsys: Capture) -> None:
    nothing = dict.fromkeys(
        ("val_loss", "val_loss_raw", "val_accuracy", "train_loss", "images_per_second")
    )
    rows = read_rows(folder / "trials.csv")
    failed = [
        replace(row, status="failed", cause="no memory", temperature=None, **nothing)
        for row in rows
    ]
    (folder / "trials.csv").write_text(to_csv(failed))
    assert run(["show", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "there is nothing to choose from" in text
    for name in {row.candidate for row in rows}:
        assert re.search(rf"^{name} .* failed *$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("gone", "message"),
    [("request.toml", "holds no search"), ("trials.csv", "has no finished run yet")],
)
def test_what_is_no_search_is_one_line(
    folder: Path, capsys: Capture, gone: str, message: str
) -> None:
    (folder / gone).unlink()
    assert run(["show", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_showing_loads_neither_torch_nor_optuna(folder: Path) -> None:
    code = (
        "import sys; from cmtscale.cli.app import run; run(['show', sys.argv[1]]);"
        "print(sorted({'torch', 'optuna', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert process.stderr.splitlines()[-1] == "[]"


def test_followed_to_its_end_a_search_is_answered(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    with contextlib.ExitStack() as search:
        search.enter_context(held(folder))

        def end_at_the_second_look(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 2:
                search.close()

        monkeypatch.setattr(follow_view.time, "sleep", end_at_the_second_look)
        assert run(["show", str(folder), "--follow"]) == 0
    assert looks == [1.0, 1.0]
    text = " ".join(capsys.readouterr().out.split())
    assert f"8/8 runs, about 0 s left; process {os.getpid()} on" in text
    assert "2 workers wait" in text
    assert "so far 8 runs of 128 images" in text


def test_into_a_pipe_a_search_is_written_once_for_each_run_that_ends(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (folder / "trials.csv").read_text()
    (folder / "trials.csv").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    looks = 0
    with contextlib.ExitStack() as search:
        search.enter_context(held(folder))

        def go_on(_: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 2:
                (folder / "trials.csv").write_text(whole)
            if looks == 4:
                search.close()

        monkeypatch.setattr(follow_view.time, "sleep", go_on)
        assert run(["show", str(folder), "--follow"]) == 0
    text = capsys.readouterr().out
    assert (looks, text.count("7/8 runs,"), text.count("8/8 runs,")) == (4, 1, 1)


def test_ctrl_c_leaves_a_search_that_is_followed_and_stops_nothing(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow_view.time, "sleep", interrupt)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with held(folder):
        assert run(["show", str(folder), "--follow"]) == 0
        assert read_holder(folder) is not None
    assert "so far 8 runs" not in capsys.readouterr().out
    del before[folder / ".lock"]
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert before.items() <= after.items()


def test_a_search_that_is_being_planned_is_waited_for(
    finished: Outcome, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, dropped, looks = tmp_path / "planned", tmp_path / "dropped", 0
    with contextlib.ExitStack() as search:
        search.enter_context(held(planned))

        def go_on(_: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 1:
                shutil.copytree(finished.folder, planned, dirs_exist_ok=True)
            else:
                search.close()

        monkeypatch.setattr(follow_view.time, "sleep", go_on)
        assert run(["show", str(planned), "--follow"]) == 0
    assert looks == 2
    assert "so far 8 runs of 128 images" in " ".join(capsys.readouterr().out.split())
    with contextlib.ExitStack() as search:
        search.enter_context(held(dropped))
        monkeypatch.setattr(follow_view.time, "sleep", lambda _: search.close())
        assert run(["show", str(dropped), "--follow"]) == 2  # it was stopped before it trained
    text = capsys.readouterr()
    assert f"the search is being planned: process {os.getpid()} on" in " ".join(text.out.split())
    assert "holds no search" in text.err


def test_what_nobody_works_at_is_answered_at_once(folder: Path, capsys: Capture) -> None:
    assert run(["show", str(folder), "--follow"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "no search is at work in" in text
    assert "so far 8 runs" in text


def test_following_prints_no_json(folder: Path, refusal: Callable[..., str]) -> None:
    assert "drop one of them" in refusal("show", str(folder), "--follow", "--json")
