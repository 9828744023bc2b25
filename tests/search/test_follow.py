"""What is seen of a search from another terminal: its workers, its failures, and what is left."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cmtscale.arch.errors import ResultsError
from cmtscale.cli.follow_view import screen_of
from cmtscale.record.folder import held
from cmtscale.record.holder import HOLDER, Holder
from cmtscale.record.metrics import append_metrics
from cmtscale.record.row import Row, read_rows, to_csv
from cmtscale.record.worker import write_worker
from cmtscale.search.driver import search
from cmtscale.search.follow import Follower, Going, Planning, is_alive
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import Plan
from cmtscale.search.request import SearchRequest
from cmtscale.search.watch import NullWatcher

NOTHING = dict.fromkeys(
    ("val_loss", "val_loss_raw", "val_accuracy", "train_loss", "images_per_second", "temperature")
)


@pytest.fixture
def folder(finished: Outcome, tmp_path: Path) -> Iterator[Path]:
    """A search that goes on, of which two runs lack."""
    copy = Path(shutil.copytree(finished.folder, tmp_path / "search"))
    rows = read_rows(copy / "trials.csv")
    (copy / "trials.csv").write_text(to_csv(rows[:-2]))
    with held(copy):
        yield copy


def test_the_workers_are_seen_with_what_this_process_trains(folder: Path) -> None:
    lacking = sorted(
        set(all_runs(folder)) - {row.run_id for row in read_rows(folder / "trials.csv")}
    )
    follower = Follower(folder)
    before = follower.look()
    assert isinstance(before, Going)
    assert (before.ended, before.runs, before.workers) == (6, 8, 2)
    assert before.under_way == ()  # logs of an earlier process are older than this one
    log = folder / "runs" / lacking[0] / "metrics.jsonl"
    log.unlink()
    write_worker(log.parent, "cuda:3")
    append_metrics(log.parent, {"step": 1, "images": 64, "train_loss": 2.0, "seconds": 0.5})
    after = follower.look()
    assert isinstance(after, Going)
    (one,) = after.under_way
    assert (one.run_id, one.images_per_second) == (lacking[0], 128.0)
    assert 0 < one.part < 0.5
    assert str(one.worker) == f"{socket.gethostname()} cuda:3"
    screen = Console(width=100, file=io.StringIO())
    screen.print(screen_of(after, screen))
    assert isinstance(screen.file, io.StringIO)
    lines = [" ".join(line.split()) for line in screen.file.getvalue().splitlines()]
    assert any(line.startswith(f"{one.worker} {lacking[0]}") for line in lines)
    assert "1 worker waits" in lines
    assert before.seconds_left is not None
    assert after.seconds_left is not None
    assert 0 < after.seconds_left < before.seconds_left


def all_runs(folder: Path) -> list[str]:
    return [path.name for path in (folder / "runs").iterdir()]


def test_a_run_that_fails_is_seen_at_once_with_its_cause(folder: Path) -> None:
    follower = Follower(folder)
    first = follower.look()
    assert isinstance(first, Going)
    assert first.failures == ()
    *rows, last = read_rows(folder / "trials.csv")
    failed = replace(last, status="failed", cause="no memory", **NOTHING)
    (folder / "trials.csv").write_text(to_csv([*rows, failed]))
    second = follower.look()
    assert isinstance(second, Going)
    assert second.failures == (failed,)
    assert second.ended == first.ended - 1


def test_the_time_left_is_that_of_the_search_where_it_has_an_end(folder: Path) -> None:
    request = folder / "request.toml"
    request.write_text(request.read_text().replace("prefer =", "max_seconds = 100\nprefer ="))
    (folder / "clock.json").write_text(json.dumps({"seconds": 89.9}))
    going = Follower(folder).look()
    assert isinstance(going, Going)
    assert going.seconds_left == pytest.approx(0.1)


def test_a_search_whose_process_is_gone_is_over(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    gone = {**json.loads((folder / HOLDER).read_text()), "pid": process.pid}
    (folder / HOLDER).write_text(json.dumps(gone))
    assert Follower(folder).look() is None
    assert is_alive(Holder(host="elsewhere", pid=process.pid, since=""))  # nobody can tell
    assert not is_alive(Holder(host=socket.gethostname(), pid=10**30, since=""))


def test_a_folder_that_nobody_holds_is_not_at_work(finished: Outcome) -> None:
    assert Follower(finished.folder).look() is None


def test_a_search_that_is_being_planned_is_waited_for(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    folder = tmp_path / "new" / "search"
    follower = Follower(folder)
    seen: list[Any] = []

    class Watcher(NullWatcher):
        def planned(self, plan: Plan) -> None:  # noqa: ARG002
            seen.append(follower.look())

        def ended(self, row: Row) -> None:  # noqa: ARG002
            seen.append(follower.look())

    assert follower.look() is None
    search(replace(tiny_request, out=folder), watcher=Watcher())
    assert len(fake_training.started) == 8
    planning, *going = seen
    assert isinstance(planning, Planning)
    assert planning.holder.pid == os.getpid()
    assert [one.ended for one in going] == list(range(1, 9))
    assert follower.look() is None
    # what else holds a folder is none
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "run.json").write_text("{}")
    with held(tmp_path / "training"), pytest.raises(ResultsError, match="holds no search"):
        Follower(tmp_path / "training").look()
