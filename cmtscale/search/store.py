"""The record of a search: an Optuna study in SQLite, and `trials.csv` exported from it.

The driver is the only one who opens it. One study per rung, one trial per run; the run id, made of
(rung, candidate, seed), is the key, and all that is known of the run is one JSON attribute.
"""

import csv
import io
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from cmtscale.atomic import write_text_atomically
from cmtscale.spec.errors import ResultsError

Row = dict[str, Any]

DATABASE = "study.db"
TABLE = "trials.csv"
COLUMNS = (
    *("run_id", "rung", "candidate", "alpha", "beta", "gamma", "phi", "macs", "params"),
    *("proxy_macs", "resolution_px", "dims", "depths", "seed", "epochs", "val_loss"),
    *("val_loss_raw", "val_accuracy", "train_loss", "images_per_second", "seconds", "status"),
    *("cause", "role", "on_budget", "stray", "activations", "proxy_params"),
    *("proxy_resolution_px", "proxy_dims", "proxy_depths"),
)
SPACE: dict[str, BaseDistribution] = {
    "u": FloatDistribution(0.0, 1.0),
    "v": FloatDistribution(0.0, 1.0),
}


@contextmanager
def database_errors(folder: Path) -> Iterator[None]:
    """Turn SQLite's failures (a full disk, a file that is none) into a `ResultsError`."""
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError, StorageInternalError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ResultsError(
            f"{folder / DATABASE}: {cause}; mend that and run the same command again: it goes on "
            f"where it stopped"
        ) from error


class Store:
    """The study of one rung; parameters u and v in [0, 1] say where in the triangle a trial lies.

    `journal_mode` is SQLite's: `wal`, or what the file system allows (a network one may not).
    """

    def __init__(self, folder: Path, *, rung: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        self.rung = rung
        database = folder / DATABASE
        self.journal_mode = _prepare_database(database)
        storage = RDBStorage(
            f"sqlite:///{database}", engine_kwargs={"creator": lambda: _connect(database)}
        )
        # Points are asked elsewhere (search/samplers.py); this study only records them.
        self.study = optuna.create_study(
            study_name=f"rung-{rung}",
            storage=storage,
            direction="minimize",
            sampler=RandomSampler(seed=0),
            load_if_exists=True,
        )

    def close_interrupted(self) -> None:
        """Close the trials that a killed driver left open; their runs will be trials anew."""
        states = (TrialState.RUNNING, TrialState.WAITING)
        for trial in self.study.get_trials(deepcopy=False, states=states):
            if trial.state == TrialState.WAITING:
                self.study.tell(self.study.ask().number, state=TrialState.FAIL)
            else:
                self.study.tell(trial.number, state=TrialState.FAIL)

    def rows(self) -> list[Row]:
        """The latest row of every run that has ended, sorted by run id."""
        latest: dict[str, Row] = {}
        for trial in self.study.get_trials(deepcopy=False):
            if "run" in trial.user_attrs:
                row = trial.user_attrs["run"]
                latest[row["run_id"]] = row
        return [latest[run_id] for run_id in sorted(latest)]

    def start(self, params: Mapping[str, float]) -> Trial:
        """Open a trial at (u, v), or without parameters where the triangle has no place for it."""
        self.study.enqueue_trial(dict(params))
        return self.study.ask(SPACE if params else None)

    def finish(self, trial: Trial, row: Row) -> None:
        """Record how a run ended."""
        trial.set_user_attr("run", row)
        if row["status"] == "complete":
            self.study.tell(trial, row["val_loss"])
        else:
            self.study.tell(trial, state=TrialState.FAIL)
        self.export()

    def generations(self) -> list[list[list[float]]]:
        """The points (u, v) that a sampler has asked for so far, generation by generation."""
        return list(self.study.user_attrs.get("generations", []))

    def add_generation(self, points: list[list[float]]) -> None:
        """Record a generation before any of it is trained."""
        self.study.set_user_attr("generations", [*self.generations(), points])

    def export(self) -> None:
        """Write `trials.csv` atomically."""
        write_text_atomically(self.folder / TABLE, _to_csv(self.rows()))


def _to_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _prepare_database(path: Path) -> str:
    """Switch the file to write-ahead logging where that works; returns the mode in force."""
    connection = _connect(path)
    try:
        return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
    except sqlite3.OperationalError:  # no shared memory on this file system
        return str(connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0])
    finally:
        connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    # With WAL a power cut can cost the last result, never the file; the result is on disk besides.
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection
