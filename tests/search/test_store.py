"""The Optuna index: one trial per row, rebuilt from the table whenever it is missing."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from cmtscale.arch.errors import ResultsError
from cmtscale.record.row import Row, row_object
from cmtscale.search.store import DATABASE, Index, database_errors, open_index

MakeRow = Callable[..., Row]


def trials(folder: Path) -> dict[str, list[FrozenTrial]]:
    url = f"sqlite:///{folder / DATABASE}"
    return {
        name: optuna.load_study(study_name=name, storage=url).trials
        for name in optuna.get_all_study_names(url)
    }


def test_a_run_is_a_trial_at_its_shares_with_its_whole_row(
    tmp_path: Path, make_row: MakeRow
) -> None:
    row = make_row(alpha=2.5, beta=1.0, gamma=1.0, val_loss=0.1 + 0.2, cause='größer, "or" not')
    Index(tmp_path).add(row)
    ((trial,),) = trials(tmp_path).values()
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.1 + 0.2)
    assert trial.params == pytest.approx(
        {"depth_share": 1.0, "width_share": 0.0, "resolution_share": 0.0}
    )
    assert trial.duration == timedelta(seconds=row.seconds)
    assert trial.user_attrs["run"] == row_object(row)


def test_the_base_has_no_place_in_the_triangle_and_is_recorded_too(
    tmp_path: Path, make_row: MakeRow
) -> None:
    Index(tmp_path).add(make_row(alpha=1.0, beta=1.0, gamma=1.0, role="base"))
    ((trial,),) = trials(tmp_path).values()
    assert (trial.state, trial.params) == (TrialState.COMPLETE, {})


def test_a_diverged_run_is_a_trial_that_was_bad_and_a_failed_one_says_nothing(
    tmp_path: Path, make_row: MakeRow
) -> None:
    index = Index(tmp_path)
    for seed, status in enumerate(("diverged", "failed")):
        index.add(make_row(seed=seed, status=status, cause="killed"))
    (study_trials,) = trials(tmp_path).values()
    assert [(trial.state, trial.value) for trial in study_trials] == [
        (TrialState.PRUNED, None),
        (TrialState.FAIL, None),
    ]


def test_each_horizon_is_a_study(tmp_path: Path, make_row: MakeRow) -> None:
    index = Index(tmp_path)
    for epochs in (1, 2, 1):
        index.add(make_row(epochs=epochs, train_images=500))
    assert {name: len(study_trials) for name, study_trials in trials(tmp_path).items()} == {
        "1x500": 2,
        "2x500": 1,
    }


def test_only_what_is_missing_is_entered_and_a_study_with_a_repeated_run_is_made_anew(
    tmp_path: Path, make_row: MakeRow
) -> None:
    rows = [make_row(seed=seed, epochs=1 + seed % 2) for seed in range(4)]
    assert Index(tmp_path).update(rows) == 4
    assert Index(tmp_path).update(rows) == 0
    repeated = [*rows[:3], make_row(seed=3, epochs=2, val_loss=0.7)]
    index = Index(tmp_path)
    index.add(repeated[3])  # a second trial of the same run
    assert Index(tmp_path).update(repeated) == 2  # both trials of that study
    stored = [trial for study_trials in trials(tmp_path).values() for trial in study_trials]
    assert sorted(trial.value for trial in stored) == [0.5, 0.5, 0.5, 0.7]
    (tmp_path / DATABASE).unlink()
    assert Index(tmp_path).update(rows) == 4


def test_failed_tries_of_a_run_stay_beside_its_trial(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [make_row(seed=seed) for seed in range(3)]
    tries = [
        replace(rows[0], status="failed", cause="killed", val_loss=None),
        replace(rows[0], status="failed", cause="killed", val_loss=None),  # to the bit
        rows[0],
        replace(rows[1], status="failed", cause="no memory", val_loss=None),
    ]
    index = Index(tmp_path)
    for row in tries:
        index.add(row)
    assert Index(tmp_path).update(rows) == 2  # what is missing alone
    (stored,) = trials(tmp_path).values()
    assert [trial.user_attrs["run"] for trial in stored] == [*map(row_object, [*tries, *rows[1:]])]
    failed = [rows[0], tries[3], rows[2]]  # as it stood a while ago: a result goes with its row
    assert Index(tmp_path).update(failed) == 3
    (stored,) = trials(tmp_path).values()
    assert [trial.user_attrs["run"] for trial in stored] == [*map(row_object, failed)]


def test_a_study_of_an_earlier_version_is_made_anew(tmp_path: Path, make_row: MakeRow) -> None:
    row = make_row()
    study = Index(tmp_path)._study(row.horizon)
    study.add_trial(create_trial(value=row.val_loss, user_attrs={"run": row_object(row)}))
    assert Index(tmp_path).update([row]) == 1
    ((trial,),) = trials(tmp_path).values()
    assert trial.user_attrs["candidate"] == row.candidate


def test_a_database_that_is_missing_is_made_as_a_whole(
    tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_row(seed=seed) for seed in range(4)]
    (tmp_path / f"{DATABASE}-wal").write_bytes(b"of a database that was removed")
    notes: list[str] = []
    with monkeypatch.context() as patch:
        add = Index.add

        def killed_at_the_third(index: Index, row: Row) -> None:
            if row.seed == 2:
                raise KeyboardInterrupt
            add(index, row)

        patch.setattr(Index, "add", killed_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            open_index(tmp_path, rows, notes.append)
    assert list(tmp_path.iterdir()) == []
    index = open_index(tmp_path, rows, notes.append)
    assert index.journal_mode == "wal"
    assert [len(study_trials) for study_trials in trials(tmp_path).values()] == [4]
    assert notes == ["4 of the 4 runs are entered into study.db, as trials.csv has them"]


def test_the_database_writes_ahead(tmp_path: Path) -> None:
    assert Index(tmp_path).journal_mode == "wal"
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
        Index(tmp_path)
    assert "\n" not in str(caught.value)
