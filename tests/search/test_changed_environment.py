"""A folder that moved goes on; one that other code trained is refused, or that is accepted."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.record.environment import changes
from cmtscale.record.row import read_rows, to_csv
from cmtscale.search.driver import search
from cmtscale.search.outcome import Outcome
from cmtscale.search.request import SearchRequest
from cmtscale.search.watch import NullWatcher


@pytest.fixture
def unfinished(finished: Outcome, tmp_path: Path) -> Path:
    """A copy, elsewhere, that lacks a run."""
    folder = Path(shutil.copytree(finished.folder, tmp_path / "moved" / "here"))
    *rows, last = read_rows(folder / "trials.csv")
    (folder / "trials.csv").write_text(to_csv(rows))
    shutil.rmtree(folder / "runs" / last.run_id)
    return folder


def change(folder: Path, **described: Any) -> dict[str, Any]:
    path = folder / "environment.json"
    environment: dict[str, Any] = {**json.loads(path.read_text()), **described}
    path.write_text(json.dumps(environment))
    return environment


def environment(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / "environment.json").read_text())
    return described


def test_a_copied_folder_goes_on_where_it_is(
    unfinished: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    search(replace(tiny_request, out=unfinished))
    assert len(fake_training.started) == 1
    assert "resumed" not in environment(unfinished)


@pytest.mark.parametrize(
    ("described", "difference"),
    [
        ({"versions": {"torch": "1.0"}}, "torch 1.0 is now "),
        ({"code": "0123"}, "cmtscale's code 0123 is now "),
        ({"cmtscale": "0.0.9"}, "cmtscale 0.0.9 is now "),
    ],
    ids=["torch", "code", "version"],
)
def test_other_code_is_refused_with_the_difference_or_accepted_and_recorded(
    described: dict[str, Any],
    difference: str,
    unfinished: Path,
    tiny_request: SearchRequest,
    fake_training: Any,
) -> None:
    before = change(unfinished, **described)
    request = replace(tiny_request, out=unfinished)
    with pytest.raises(ResultsError, match=difference) as caught:
        search(request)
    assert "--accept-changes" in str(caught.value)
    assert fake_training.started == []
    assert environment(unfinished) == before

    search(replace(request, accept_changes=True))
    assert len(fake_training.started) == 1
    (resumed,) = environment(unfinished)["resumed"]
    (accepted,) = resumed["accepted"]
    assert accepted.startswith(difference)
    search(request)  # it is recorded: nobody is asked again


def test_what_an_earlier_version_did_not_say_is_no_change(
    unfinished: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    described = environment(unfinished)
    del described["code"]
    (unfinished / "environment.json").write_text(json.dumps(described))
    search(replace(tiny_request, out=unfinished))
    assert len(fake_training.started) == 1


def test_any_environment_that_was_accepted_may_go_on() -> None:
    first, second = ({"cmtscale": "1", "versions": {"torch": torch}} for torch in ("2.6", "2.7"))
    assert changes([], first) == ()
    assert changes([first], second) == ("torch 2.6 is now 2.7",)
    assert changes([first, second], first) == ()


def test_builds_of_one_torch_are_the_same_torch() -> None:
    here, there, newer = ({"versions": {"torch": f"2.{text}"}} for text in ("9", "9+cu126", "10"))
    assert changes([here], there) == changes([there], here) == ()
    assert changes([there], newer) == ("torch 2.9 is now 2.10",)


def test_a_wall_clock_that_goes_back_takes_no_time_away_and_gives_none(
    unfinished: Path,
    tiny_request: SearchRequest,
    fake_training: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fake_training.started == []
    (unfinished / "clock.json").write_text('{"seconds": 100.0}')
    now = 2e9

    def falling() -> float:
        nonlocal now
        now -= 3600
        return now

    monkeypatch.setattr("time.time", falling)
    left: list[float] = []

    class Watcher(NullWatcher):
        def progressed(self, progress: Any) -> None:
            left.append(progress.seconds_left)

    search(replace(tiny_request, out=unfinished, max_seconds=7_200), watcher=Watcher())
    taken = json.loads((unfinished / "clock.json").read_text())["seconds"]
    assert 100 < taken < 200
    assert left
    assert all(0 <= seconds < 7_200 for seconds in left)
