"""The record of a search: what is told survives, and trials.csv is whole at all times."""

import csv
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from cmtscale import atomic
from cmtscale.search.store import DATABASE, TABLE, Store, database_errors
from cmtscale.spec.errors import ResultsError

PROMISED = [
    *("run_id", "rung", "candidate", "alpha", "beta", "gamma", "phi", "macs", "params"),
    *("proxy_macs", "resolution_px", "dims", "depths", "seed", "epochs", "val_loss"),
    *("val_loss_raw", "val_accuracy", "train_loss", "images_per_second", "seconds", "status"),
    "cause",
]
POINT = {"u": 0.25, "v": 0.5}


def row(run_id: str, status: str = "complete", **values: Any) -> dict[str, Any]:
    loss = 0.5 if status == "complete" else None
    return {"run_id": run_id, "status": status, "val_loss": loss, "cause": "", **values}


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(newline="") as file:
        return list(csv.DictReader(file))


def states(store: Store) -> list[TrialState]:
    return [trial.state for trial in store.study.get_trials(deepcopy=False)]


def test_rows_survive_reopening_bit_by_bit(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    told = row("r1-c01-s0", val_loss=0.1 + 0.2, seconds=1.234, cause='größer, "or" not\nhere')
    store.finish(store.start(POINT), told)
    (trial,) = store.study.get_trials(deepcopy=False)
    assert (trial.state, trial.value, trial.params) == (TrialState.COMPLETE, 0.1 + 0.2, POINT)
    assert Store(tmp_path, rung=1).rows() == [told]


def test_a_run_without_a_place_in_the_triangle_is_recorded_too(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    store.finish(store.start({}), row("r1-c00-s0"))
    assert store.rows() == [row("r1-c00-s0")]
    assert states(store) == [TrialState.COMPLETE]


def test_diverged_and_failed_runs_are_rows_with_their_cause_and_no_value(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    store.finish(store.start(POINT), row("r1-c00-s0", "diverged", cause="loss not finite"))
    store.finish(store.start(POINT), row("r1-c01-s0", "failed", cause="killed"))
    assert states(store) == [TrialState.FAIL, TrialState.FAIL]
    assert [(r["status"], r["cause"], r["val_loss"]) for r in table(tmp_path)] == [
        ("diverged", "loss not finite", ""),
        ("failed", "killed", ""),
    ]


def test_a_repeated_run_replaces_its_failed_row(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    store.finish(store.start(POINT), row("r1-c00-s0", "failed", cause="killed"))
    store.finish(store.start(POINT), row("r1-c00-s0"))
    assert [(r["run_id"], r["status"]) for r in table(tmp_path)] == [("r1-c00-s0", "complete")]


def test_trials_csv_has_the_promised_columns_and_is_sorted_by_run_id(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    for run_id in ("r1-c02-s0", "r1-c00-s1", "r1-c10-s0", "r1-c00-s0"):
        store.finish(store.start(POINT), row(run_id))
    header = (tmp_path / TABLE).read_text().splitlines()[0].split(",")
    assert header[: len(PROMISED)] == PROMISED
    assert [r["run_id"] for r in table(tmp_path)] == [
        *("r1-c00-s0", "r1-c00-s1", "r1-c02-s0", "r1-c10-s0")
    ]


def test_trials_of_a_killed_driver_are_closed_wherever_it_was_killed(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    store.start(POINT)  # killed while it ran
    store.start({}).set_user_attr("run", row("r1-c01-s0"))  # killed between record and close
    store.study.enqueue_trial(POINT)  # killed between announcing and opening
    assert sorted(states(store)) == [TrialState.RUNNING, TrialState.RUNNING, TrialState.WAITING]
    again = Store(tmp_path, rung=1)
    again.close_interrupted()
    assert states(again) == [TrialState.FAIL] * 3
    assert again.rows() == [row("r1-c01-s0")]
    again.finish(again.start(POINT), row("r1-c00-s0"))
    assert [r["run_id"] for r in table(tmp_path)] == ["r1-c00-s0", "r1-c01-s0"]


def test_generations_are_kept_in_order_to_the_last_digit(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    assert store.generations() == []
    first, second = [[0.1, 1 / 3], [0.7, 2 / 3]], [[1e-17, 1.0]]
    store.add_generation(first)
    store.add_generation(second)
    assert Store(tmp_path, rung=1).generations() == [first, second]


def test_a_disk_that_fills_up_leaves_the_old_table_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, rung=1)
    store.finish(store.start(POINT), row("r1-c00-s0"))
    before, files = (tmp_path / TABLE).read_bytes(), sorted(tmp_path.iterdir())
    trial = store.start(POINT)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.finish(trial, row("r1-c01-s0"))
    assert (tmp_path / TABLE).read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
    store.export()  # the run was recorded: only the export failed
    assert [r["run_id"] for r in table(tmp_path)] == ["r1-c00-s0", "r1-c01-s0"]


def test_the_database_writes_ahead(tmp_path: Path) -> None:
    store = Store(tmp_path, rung=1)
    assert store.journal_mode == "wal"
    connection = sqlite3.connect(tmp_path / DATABASE)
    try:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        connection.close()


def test_a_database_that_is_none_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database" * 1000)
    with (
        pytest.raises(ResultsError, match=r"study\.db: file is not a database") as caught,
        database_errors(tmp_path),
    ):
        Store(tmp_path, rung=1)
    assert "\n" not in str(caught.value)
