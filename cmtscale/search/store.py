"""An index of the record for optuna-dashboard: one study per horizon, one trial per run.

A try that failed before the run's last one has a trial, too, until the index is made again.
`trials.csv` is the record. The index is written by the driver alone, may be removed at any time,
and is made again from the table.
"""

import errno
import json
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState, create_trial
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import set_aside, write_atomically
from cmtscale.record.folder import free_bytes
from cmtscale.record.result import UNSOUND
from cmtscale.record.row import Row, horizon_name, row_object

if sys.platform != "win32":
    import resource

DATABASE = "study.db"
INDEX_BYTES = 2**16  # what the index of SQLite's write-ahead log grows by
# Fields of trials.csv shown as columns in the dashboard, which cuts long values; each costs a
# database row per run, read whenever a search goes on.
SHOWN = ("candidate", "seed", "val_accuracy", "seconds", "cause")
# Optuna's way to read them makes an object of each cell, which takes ten times as long.
_USER_ATTRIBUTES = text(
    """
    SELECT trials.trial_id, trials.state, attributes.key, attributes.value_json
    FROM studies
    JOIN trials ON trials.study_id = studies.study_id
    LEFT JOIN trial_user_attributes AS attributes ON attributes.trial_id = trials.trial_id
    WHERE studies.study_name = :study
    """
)
_LOGS = ("-wal", "-shm")  # what SQLite keeps beside it, by their endings


@contextmanager
def database_errors(folder: Path) -> Iterator[None]:
    """Turn SQLite's failures into a `ResultsError`, and that of a full disk into an `OSError`."""
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError, StorageInternalError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        code = getattr(cause, "sqlite_errorcode", None)
        if code is not None and (number := _no_room(code, folder)):
            raise OSError(number, str(cause), str(folder / DATABASE)) from error
        raise ResultsError(
            f"{folder / DATABASE}: {cause}; mend that, or remove the file (it is made again from "
            f"trials.csv), and run the same command again"
        ) from error


def _no_room(code: int, folder: Path) -> int:
    """The system's number of the error behind one of SQLite's where that is for room; else 0.

    An input/output error is all that SQLite says where the index of its write-ahead log cannot
    grow, or files are limited.
    """
    if code == sqlite3.SQLITE_FULL or free_bytes(folder) < INDEX_BYTES:
        return errno.ENOSPC
    is_limited = sys.platform != "win32" and (
        resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
    )
    return errno.EFBIG if code & 0xFF == sqlite3.SQLITE_IOERR and is_limited else 0


class Index:
    """The studies of a folder; a run's parameters are its shares of depth, width and resolution.

    `journal_mode` is SQLite's: `wal`, or what the file system allows (a network one may not). An
    index that is not `durable` is lost where its process is killed: it waits for no disk.
    """

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        database = folder / DATABASE
        connect = partial(_connect, database, durable=durable)
        self.journal_mode = _prepare_database(database) if durable else "memory"
        self._storage = RDBStorage(
            f"sqlite:///{database}",
            engine_kwargs={"creator": connect},
            skip_compatibility_check=True,  # `is_of_this_optuna` says it without a traceback
        )
        self._studies: dict[tuple[int, int], Study] = {}

    @property
    def is_of_this_optuna(self) -> bool:
        """Whether this version of Optuna made the tables."""
        version: str = self._storage.get_current_version()
        return version == self._storage.get_head_version()

    def close(self) -> None:
        """Close the file, which may then be renamed."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def update(self, rows: Iterable[Row]) -> int:
        """Bring the studies to one trial per row, as it is; returns how many were added.

        Failed tries of these runs stay beside them: Optuna removes no trial. A study with another
        trial that no row stands behind (of a run that was scored anew) is made anew.
        """
        wanted: dict[tuple[int, int], list[Row]] = {}
        for row in rows:
            wanted.setdefault(row.horizon, []).append(row)
        added = 0
        for horizon, own in wanted.items():
            by_attribute = {_attribute(_attributes(row)): row for row in own}
            trials = self._stored(horizon)
            stored = Counter(_attribute(attributes) for _, attributes in trials)
            run_ids = {row.run_id for row in own}
            failed_tries = {
                _attribute(attributes)
                for state, attributes in trials
                if state == TrialState.FAIL.name and _run_id(attributes) in run_ids
            }
            if (stored - Counter(by_attribute.keys())).keys() - failed_tries:
                optuna.delete_study(study_name=horizon_name(horizon), storage=self._storage)
                self._studies.pop(horizon, None)
                stored.clear()
            missing = [row for attribute, row in by_attribute.items() if attribute not in stored]
            for row in missing:
                self.add(row)
            added += len(missing)
        return added

    def add(self, row: Row) -> None:
        """Add a run as a finished trial with its shares (the base has none) that ends now.

        One that diverged, or does not fit into the memory, has been tried and is bad, which Optuna
        calls pruned; of one that failed nothing is known.
        """
        states = {"complete": TrialState.COMPLETE}
        states |= dict.fromkeys(UNSOUND, TrialState.PRUNED)
        shares = {} if row.shares.total == 0 else vars(row.shares)
        params = {f"{name}_share": min(1.0, max(0.0, share)) for name, share in shares.items()}
        trial = create_trial(
            state=states.get(row.status, TrialState.FAIL),
            value=row.val_loss,
            params=params,
            distributions={name: FloatDistribution(0.0, 1.0) for name in params},
            user_attrs=_attributes(row),
        )
        assert trial.datetime_complete is not None
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=row.seconds)
        self._study(row.horizon).add_trial(trial)

    def _stored(self, horizon: tuple[int, int]) -> list[tuple[str, dict[str, Any]]]:
        """State and user attributes of each trial."""
        trials: dict[int, tuple[str, dict[str, Any]]] = {}
        with self._storage.engine.connect() as connection:
            cells = connection.execute(_USER_ATTRIBUTES, {"study": horizon_name(horizon)}).all()
        for trial, state, key, value in cells:
            _, attributes = trials.setdefault(trial, (state, {}))
            if key is not None:
                attributes[key] = json.loads(value)
        return list(trials.values())

    def _study(self, horizon: tuple[int, int]) -> Study:
        if horizon not in self._studies:
            epochs, train_images = horizon
            study = optuna.create_study(
                study_name=horizon_name(horizon),
                storage=self._storage,
                direction="minimize",
                sampler=RandomSampler(seed=0),  # asks nothing: this study only records
                load_if_exists=True,
            )
            if "about" not in study.user_attrs:
                study.set_user_attr(
                    "about",
                    f"runs of {epochs} epochs of {train_images} images; the value is the "
                    f"validation cross-entropy after fitting one temperature; the whole row of "
                    f"trials.csv is in `run`",
                )
            self._studies[horizon] = study
        return self._studies[horizon]


def open_index(folder: Path, rows: Sequence[Row], note: Callable[[str], None]) -> Index:
    """The folder's index with all `rows` in it; `note` hears of what had to be done.

    A file that SQLite or this version of Optuna cannot read is kept aside, and made again.
    """
    damage = _damage(folder / DATABASE)
    if damage:
        _keep_aside(folder, damage, note)
    made = _make_anew(folder, rows)
    index = Index(folder)
    if not index.is_of_this_optuna:
        index.close()
        _keep_aside(folder, "its tables are of another version of Optuna", note)
        made = _make_anew(folder, rows)
        index = Index(folder)
    if index.journal_mode != "wal":
        note(f"no write-ahead log in {folder} (a network disk?): recording is slower")
    added = made or index.update(rows)
    if added:
        note(f"{added} of the {len(rows)} runs are entered into study.db, as trials.csv has them")
    return index


def _attributes(row: Row) -> dict[str, Any]:
    """The user attributes of a run's trial: what is shown, and the whole row as one object."""
    content = row_object(row)
    shown = {name: content[name] for name in SHOWN if content[name] not in (None, "")}
    return shown | {"run": content}


def _attribute(attributes: Mapping[str, Any]) -> str:
    return json.dumps(attributes, sort_keys=True)


def _run_id(attributes: Mapping[str, Any]) -> str:
    """Of which run a trial is; empty where it does not say so."""
    return str(attributes.get("run", {}).get("run_id", ""))


def _make_anew(folder: Path, rows: Sequence[Row]) -> int:
    """Enter all rows, where the database is missing and there are any; returns how many.

    Thousands of small writes wait for no disk: they are made elsewhere, and the file is moved here.
    """
    if not rows or (folder / DATABASE).exists():
        return 0
    for ending in _LOGS:  # of a database that was removed
        (folder / f"{DATABASE}{ending}").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="cmtscale-") as scratch:
        index = Index(Path(scratch), durable=False)
        added = index.update(rows)
        index.close()
        with (Path(scratch) / DATABASE).open("rb") as made:
            write_atomically(folder / DATABASE, lambda file: shutil.copyfileobj(made, file))
    return added


def _damage(path: Path) -> str:
    """What is wrong with the file; empty where nothing is, or where it is missing or empty."""
    if not path.exists():
        return ""
    connection = sqlite3.connect(path, timeout=60)
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        if path.stat().st_size % page_bytes:
            return "its end is missing"  # SQLite reads zeros there, perhaps inside a text
        if verdict == "ok" and names and not {"studies", "alembic_version"} <= names:
            return "it holds no studies"
        return "" if verdict == "ok" else str(verdict)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise  # it is in use, or the disk fails: the file may be whole
        return str(error)
    finally:
        connection.close()


def _keep_aside(folder: Path, reason: str, note: Callable[[str], None]) -> None:
    """Rename the database; what its write-ahead log holds goes with it."""
    kept = set_aside(folder / DATABASE)
    for ending in _LOGS:
        path = folder / f"{DATABASE}{ending}"
        if path.exists():
            path.replace(kept.with_name(f"{kept.name}{ending}"))
    note(
        f"{folder / DATABASE} cannot be read: {reason}; it is kept as {kept.name}, and made again "
        f"from trials.csv"
    )


def _prepare_database(path: Path) -> str:
    """Switch the file to write-ahead logging where that works; returns the mode in force."""
    connection = _connect(path, durable=True)
    try:
        return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
    except sqlite3.OperationalError:  # no shared memory on this file system
        return str(connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0])
    finally:
        connection.close()


def _connect(path: Path, *, durable: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, check_same_thread=False)
    if durable:
        # With WAL a power cut can cost the last trial, never the file; the row is in the table.
        connection.execute("PRAGMA synchronous=NORMAL")
    else:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")
    return connection
