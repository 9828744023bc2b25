"""optuna-dashboard opens `study.db` as it is, and what it shows says what the runs were."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from cmtscale.record.row import Row, read_rows
from cmtscale.search.outcome import Outcome
from cmtscale.search.store import DATABASE, Index

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
START_SECONDS = 60.0


@pytest.fixture(scope="module")
def failed_row(make_row: Callable[..., Row]) -> Row:
    return make_row(status="failed", cause="OSError: " + 2000 * "x", candidate="d9", seed=7)


@pytest.fixture(scope="module")
def get(
    finished: Outcome, failed_row: Row, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Any]]:
    """Asks the dashboard of a real search, to which a run that failed is added."""
    database = tmp_path_factory.mktemp("dashboard") / DATABASE
    for path in finished.folder.glob(f"{DATABASE}*"):  # with its write-ahead log
        shutil.copy(path, database.parent)
    Index(database.parent).add(failed_row)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), f"sqlite:///{database}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def ask(path: str) -> Any:
            until = time.monotonic() + START_SECONDS
            while True:
                try:
                    with urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=20) as answer:
                        return json.load(answer)
                except URLError:
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.2)

        try:
            yield ask
        finally:
            process.terminate()


def attributes(entry: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in entry["user_attrs"]}


def trials(get: Callable[[str], Any]) -> dict[str, list[dict[str, Any]]]:
    return {
        study["study_name"]: get(f"studies/{study['study_id']}")["trials"]
        for study in get("studies")["study_summaries"]
    }


def test_each_study_says_what_its_runs_and_their_value_are(
    get: Callable[[str], Any],
) -> None:
    studies = {study["study_name"]: study for study in get("studies")["study_summaries"]}
    assert set(studies) == {"2x64", "2x1000"}
    about = attributes(studies["2x64"])["about"]
    assert about.startswith("runs of 2 epochs of 64 images; the value is the validation cross-")


def test_a_trial_shows_the_network_its_shares_and_what_it_came_to(
    get: Callable[[str], Any], finished: Outcome
) -> None:
    rows = read_rows(finished.folder / "trials.csv")
    shown = {
        (attributes(trial)["candidate"], attributes(trial)["seed"]): trial
        for trial in trials(get)["2x64"]
    }
    assert len(shown) == len(rows)
    for row in rows:
        trial = shown[row.candidate, str(row.seed)]
        assert (trial["state"], trial["values"]) == ("Complete", [row.val_loss])
        named = attributes(trial)
        assert float(named["val_accuracy"]) == row.val_accuracy
        assert float(named["seconds"]) == row.seconds
        params = {one["name"]: float(one["param_external_value"]) for one in trial["params"]}
        if row.role != "base":
            assert sum(params.values()) == pytest.approx(row.shares.total, abs=1e-6)
            assert params["depth_share"] == pytest.approx(row.shares.depth, abs=1e-6)


def test_a_run_that_failed_is_a_failed_trial_with_its_cause(
    get: Callable[[str], Any], failed_row: Row
) -> None:
    (trial,) = trials(get)["2x1000"]
    assert trial["state"] == "Fail"
    assert "values" not in trial
    assert attributes(trial)["cause"] == failed_row.cause  # uncut
