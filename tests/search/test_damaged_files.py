"""A file of a run folder that is damaged, or of a newer version, is made again or refused.

Whichever it is, no row is lost, no ended run is repeated, and what could not be read is kept.
"""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmtscale.arch.errors import CmtscaleError
from cmtscale.record.reads import log_reading
from cmtscale.record.row import read_rows, to_csv
from cmtscale.search.decide import write_decisions
from cmtscale.search.driver import search
from cmtscale.search.request import SearchRequest
from cmtscale.search.runs import RungRun
from cmtscale.search.settings import stored_settings
from cmtscale.search.watch import NullWatcher

MADE_AGAIN = ("study.db", "timings.json", "val_losses.npz", "curves.csv", "choice.json")
REFUSED = (
    "request.toml",
    "environment.json",
    "decisions.json",
    "clock.json",
    "test_reads.csv",
)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) * 2 // 3],
    "cut in its last line": lambda content: content[:-2],
    "empty": lambda _: b"",
    "garbage": lambda _: bytes(range(256)) * 8,
}


@pytest.fixture(scope="module")
def ended(
    tiny_request: SearchRequest, fake_training_class: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SearchRequest]:
    """A search with an end in time and every file that a search can have; one run lacks."""
    request = replace(
        tiny_request, out=tmp_path_factory.mktemp("ended") / "search", max_seconds=7_200, seeds=1
    )
    assert request.out is not None
    search(request, executor=fake_training_class())
    settings = stored_settings(request.out)
    assert settings is not None
    *rows, last = read_rows(request.out / "trials.csv")
    (request.out / "trials.csv").write_text(to_csv(rows))  # one run is still to be trained
    shutil.rmtree(request.out / "runs" / last.run_id)
    first = rows[0]
    decided = RungRun(candidate=first.candidate, rung=0, seed=first.seed)
    write_decisions(request.out, settings, [(decided,)])
    log_reading(request.out, by="search", run_id=first.run_id, images=9, accuracy=0.5)
    connection = sqlite3.connect(request.out / "study.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else the log mends what is damaged
    connection.close()
    return request.out, request


@pytest.fixture
def folder(ended: tuple[Path, SearchRequest], tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(ended[0], tmp_path / "search", ignore=shutil.ignore_patterns("study.db-*"))
    )


class Notes(NullWatcher):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, text: str) -> None:
        self.notes.append(text)


def go_on(folder: Path, request: SearchRequest, executor: Any) -> list[str]:
    """Train the run that lacks; what the search noted. No ended run may start again."""
    before = {row.run_id: row for row in read_rows(folder / "trials.csv")}
    watcher = Notes()
    search(replace(request, out=folder), executor=executor, watcher=watcher)
    after = {row.run_id: row for row in read_rows(folder / "trials.csv")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1
    assert not before.keys() & set(executor.started)
    return watcher.notes


def aside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.damaged*"))


def test_of_whole_files_none_is_kept_aside(
    folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    for name in (*MADE_AGAIN, *REFUSED):
        assert (folder / name).exists(), name
    go_on(folder, ended[1], fake_training_class())
    assert aside(folder) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", MADE_AGAIN)
def test_what_can_be_made_again_is_and_the_damaged_file_is_kept(
    name: str,
    damage: str,
    folder: Path,
    ended: tuple[Path, SearchRequest],
    fake_training_class: Any,
) -> None:
    damaged = DAMAGES[damage]((folder / name).read_bytes())
    (folder / name).write_bytes(damaged)
    notes = go_on(folder, ended[1], fake_training_class())
    is_whole = (name, damage) in {
        ("study.db", "empty"),  # SQLite's own word for a new one
        ("study.db", "cut in its last line"),  # unused bytes of its last page
    }
    if is_whole and not aside(folder):
        return
    assert aside(folder) == [f"{name}.damaged"]
    assert (folder / f"{name}.damaged").read_bytes() == damaged
    assert any(f"kept as {name}.damaged" in note for note in notes)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_made_again_is_refused_and_nothing_changes(
    name: str,
    damage: str,
    folder: Path,
    ended: tuple[Path, SearchRequest],
    fake_training_class: Any,
) -> None:
    damaged = DAMAGES[damage]((folder / name).read_bytes())
    (folder / name).write_bytes(damaged)
    require_refused(folder, name, ended[1], fake_training_class())


def require_refused(folder: Path, name: str, request: SearchRequest, executor: Any) -> None:
    kept = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(CmtscaleError, match=name) as caught:
        search(replace(request, out=folder), executor=executor)
    assert "\n" not in str(caught.value)
    assert executor.started == []
    changed = [path.name for path, content in kept.items() if path.read_bytes() != content]
    assert changed == []
    assert aside(folder) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("has_runs", [True, False], ids=["with runs", "without runs"])
def test_a_damaged_table_is_made_again_from_its_runs_or_refused(
    damage: str,
    has_runs: bool,
    folder: Path,
    ended: tuple[Path, SearchRequest],
    fake_training_class: Any,
) -> None:
    rows = read_rows(folder / "trials.csv")
    damaged = DAMAGES[damage]((folder / "trials.csv").read_bytes())
    (folder / "trials.csv").write_bytes(damaged)
    executor = fake_training_class()
    if not has_runs:
        shutil.rmtree(folder / "runs")
        require_refused(folder, "trials.csv", ended[1], executor)
        return
    search(replace(ended[1], out=folder), executor=executor)
    assert read_rows(folder / "trials.csv")[:-1] == rows
    assert len(executor.started) == 1
    assert (folder / "trials.csv.damaged").read_bytes() == damaged


def newer(folder: Path, name: str) -> None:
    """What a later version of cmtscale might have written."""
    path = folder / name
    match name:
        case "trials.csv" | "curves.csv" | "test_reads.csv":
            header, *lines = path.read_text().splitlines()
            path.write_text("\n".join([f"{header},novelty", *(f"{x},1" for x in lines)]) + "\n")
        case "request.toml":
            path.write_text(path.read_text().replace("schema = 3", "schema = 4"))
        case "study.db":
            connection = sqlite3.connect(path)
            with connection:
                connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
            connection.close()
        case _:
            path.write_text(json.dumps({**json.loads(path.read_text()), "novelty": 1}))


@pytest.mark.parametrize(
    "name", ["trials.csv", "request.toml", "decisions.json", "clock.json", "test_reads.csv"]
)
def test_what_a_newer_version_wrote_is_refused_and_left_alone(
    name: str, folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    newer(folder, name)
    require_refused(folder, name, ended[1], fake_training_class())


@pytest.mark.parametrize("name", ["study.db", "timings.json", "curves.csv"])
def test_what_a_newer_version_wrote_and_can_be_made_again_is_kept_aside(
    name: str, folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    newer(folder, name)
    go_on(folder, ended[1], fake_training_class())
    assert aside(folder) == [f"{name}.damaged"]


def test_what_a_newer_version_says_of_an_environment_is_kept(
    folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    newer(folder, "environment.json")
    go_on(folder, ended[1], fake_training_class())
    assert json.loads((folder / "environment.json").read_text())["novelty"] == 1


def test_losses_of_runs_that_this_version_does_not_know_are_kept(
    folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    with np.load(folder / "val_losses.npz") as stored:
        losses = {name: stored[name] for name in stored.files}
    np.savez_compressed(folder / "val_losses.npz", **losses, novelty=np.ones(3, np.float16))
    go_on(folder, ended[1], fake_training_class())
    with np.load(folder / "val_losses.npz") as stored:
        assert stored["novelty"].tolist() == [1, 1, 1]
        assert set(losses) < set(stored.files)


def test_curves_of_runs_whose_logs_are_gone_survive_a_torn_line(
    folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    path = folder / "curves.csv"
    first = read_rows(folder / "trials.csv")[0].run_id
    line = f"{first},8,512,1.5,1.25,0.5"
    path.write_text(f"{path.read_text()}{line}\n{line[:-7]}")
    go_on(folder, ended[1], fake_training_class())
    assert line in path.read_text().splitlines()
    assert aside(folder) == ["curves.csv.damaged"]


@pytest.mark.parametrize(
    "content",
    [
        '{"data": []}',
        '{"resumed": 5}',
        '{"resumed": [5]}',
        '{"devices": 2}',
        '{"data": {"val": "9"}}',
    ],
)
def test_an_environment_with_other_types_is_refused(
    content: str, folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    (folder / "environment.json").write_text(content)
    require_refused(folder, "environment.json", ended[1], fake_training_class())


@pytest.mark.parametrize("seconds", ["NaN", "-1", "Infinity", '"5"', "true"])
def test_a_clock_that_no_search_writes_is_refused(
    seconds: str, folder: Path, ended: tuple[Path, SearchRequest], fake_training_class: Any
) -> None:
    (folder / "clock.json").write_text(f'{{"seconds": {seconds}}}')
    require_refused(folder, "clock.json", ended[1], fake_training_class())
