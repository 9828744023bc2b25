"""Run folders to pandas frames: one row per run, one row per candidate, learning curves.

The record is read by `cmtscale.record`; here it becomes tables. Runs of one horizon are a `rung`,
numbered by how many images they have seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmtscale.arch import paper
from cmtscale.arch.errors import ResultsError
from cmtscale.record.choice import DECIDED
from cmtscale.record.files import read_json, read_toml
from cmtscale.record.folder import CHOICE, CURVES, ENVIRONMENT, REQUEST, RUNS, TRIALS
from cmtscale.record.forecast import read_forecast
from cmtscale.record.metrics import CURVE_COLUMNS, read_curves, read_metrics
from cmtscale.record.row import COLUMNS, Row, read_rows
from cmtscale.record.scores import current, rankings, scores

# None unless the run is complete.
_METRICS = (
    "val_loss", "val_loss_raw", "val_accuracy", "train_loss", "images_per_second", "temperature",
)  # fmt: skip
# Differs between the runs of a candidate, so it has no column in a table of candidates.
_RUN_COLUMNS = {"run_id", "seed", "seconds", "status", "cause", "identity", *_METRICS}
_MEANS = ("val_loss", "val_loss_sd", "val_accuracy", "val_accuracy_sd", "images_per_second")


def load_results(path: str | Path) -> pd.DataFrame:
    """Every run of a run folder, or of all run folders directly under `path`; one row per run.

    The columns of `trials.csv`, `rung` (1 for the fewest images seen), and of each folder: `run`
    (its name), `rungs` (how many it has), `budget_macs`, `data`, `tour`, `num_classes`,
    `native_px`, `finished` (did the search conclude for the target it was last asked for),
    `chosen` (is this the candidate that the search decided for). Raises `ResultsError`.
    """
    folders = [_read_folder(folder) for folder in run_folders(path)]
    rows = [folder.columns(row) for folder in folders for row in folder.rows]
    if not rows:
        raise ResultsError(f"{path} has no finished run yet; wait for the search or start it again")
    return pd.DataFrame(rows).astype(dict.fromkeys(_METRICS, float))


def load_candidates(path: str | Path) -> pd.DataFrame:
    """One row per (run folder, rung, candidate): the columns of `load_results` that its runs share.

    `val_loss`, `val_accuracy` and `images_per_second` are means over the complete runs, with
    `val_loss_sd` and `val_accuracy_sd` between seeds (NaN for one seed); `seeds` counts complete
    runs, `diverged`, `infeasible` and `failed` the others, all at that rung; `is_sound` says that
    no run diverged or was infeasible at any rung, `may_win` that it could be chosen, within the
    limits too where the search has concluded; runs that an older version scored do not count.
    `depth`, `width`, `resolution` are the log shares. Raises `ResultsError`.
    """
    table = []
    for folder in map(_read_folder, run_folders(path)):
        standings = () if folder.choice is None else folder.choice.standings
        out = {standing["candidate"] for standing in standings if not standing["may_win"]}
        at_any_rung = chain.from_iterable(rankings(folder.rows, folder.horizons))
        is_sound = {score.candidate: score.is_sound for score in at_any_rung}
        out |= {name for name in is_sound if not is_sound[name]}
        for horizon in folder.horizons:
            rows = current(folder.rows, horizon)
            for score in scores(rows):
                first = next(row for row in rows if row.candidate == score.candidate)
                columns = folder.columns(first)
                table.append(
                    {name: value for name, value in columns.items() if name not in _RUN_COLUMNS}
                    | {
                        "seeds": len(score.seeds),
                        "diverged": score.diverged,
                        "infeasible": score.infeasible,
                        "failed": score.failed,
                        "is_sound": is_sound[score.candidate],
                        "may_win": score.may_win and score.candidate not in out,
                        "val_loss": score.loss,
                        "val_loss_sd": score.loss_sd,
                        "val_accuracy": score.accuracy,
                        "val_accuracy_sd": score.accuracy_sd,
                        "images_per_second": score.images_per_second,
                        "depth": first.shares.depth,
                        "width": first.shares.width,
                        "resolution": first.shares.resolution,
                    }
                )
    if not table:
        raise ResultsError(
            f"{path} has no finished run yet that this version scored; "
            "wait for the search or start it again"
        )
    return pd.DataFrame(table).astype(dict.fromkeys(_MEANS, float))


def run_folders(path: str | Path) -> list[Path]:
    """`path` itself if it has a `trials.csv`, else its sub-folders that do; or `ResultsError`."""
    path = Path(path)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise ResultsError(f"{path} {what}; name a run folder, or a folder of run folders")
    if (path / TRIALS).exists():
        return [path]
    folders = sorted(table.parent for table in path.glob(f"*/{TRIALS}"))
    if not folders:
        raise ResultsError(
            f"{path} has no trials.csv, nor has any folder in it; "
            "run `cmtscale search` first, or name a run folder"
        )
    return folders


def complete(candidates: pd.DataFrame) -> pd.DataFrame:
    """The candidates with at least one complete run; `ResultsError` if there is none."""
    completed = candidates[candidates["seeds"] > 0]
    if completed.empty:
        raise ResultsError("no run is complete; the column cause in trials.csv says why")
    return completed


def pareto_front(macs: NDArray[np.float64], accuracy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other beats: none is at least as good in both and better in one."""
    cheaper = macs[None, :] <= macs[:, None]
    better = accuracy[None, :] >= accuracy[:, None]
    better_in_one = (macs[None, :] < macs[:, None]) | (accuracy[None, :] > accuracy[:, None])
    return np.logical_not((cheaper & better & better_in_one).any(axis=1))


def load_curves(run_folder: str | Path) -> pd.DataFrame:
    """Learning curves of a run folder: one row per logged line.

    Columns run, rung, candidate, seed, status, then run_id, step, images, train_loss (training
    lines) and val_loss_raw, val_accuracy (evaluation lines). A run whose log was not kept has the
    curve that was exported. Empty where no curve was kept, and without the runs that an older
    version scored. Raises `ResultsError`.
    """
    folder = _read_folder(Path(run_folder))
    exported: dict[str, list[dict[str, Any]]] = {}
    for line in read_curves(folder.path):
        exported.setdefault(line["run_id"], []).append(dict(line))
    names = ["run", "rung", "candidate", "seed", "status"]
    lines: list[dict[str, Any]] = []
    for row in (row for horizon in folder.horizons for row in current(folder.rows, horizon)):
        columns = folder.columns(row)
        shared = {name: columns[name] for name in names}
        logged = read_metrics(folder.path / RUNS / row.run_id) or exported.get(row.run_id, [])
        lines += [{**line, **shared, "run_id": row.run_id} for line in logged]
    curves = pd.DataFrame(lines, columns=[*names, *CURVE_COLUMNS])
    numbers = list(CURVE_COLUMNS[1:])
    try:
        curves[numbers] = curves[numbers].apply(pd.to_numeric)
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{folder.path / CURVES} is damaged: {error}; remove it") from error
    # a run that was resumed logged some steps twice: the later line counts
    curves["evaluation"] = curves["val_accuracy"].notna()
    curves = curves.drop_duplicates(["run_id", "step", "evaluation"], keep="last")
    curves = curves.drop(columns="evaluation")
    return curves.sort_values(["run_id", "step"], kind="stable", ignore_index=True)


def load_standings(path: str | Path) -> pd.DataFrame:
    """What searches expect of their candidates at their targets; one row per (run, candidate).

    The columns of the candidate's first rung in `load_candidates`, and `target_images`, `loss` with
    its 90 % interval `low` and `high`, `may_win`, `near` (the probability of being within the
    tolerance of the best) and `best`. Empty where no search made a forecast. Raises `ResultsError`.
    """
    candidates = load_candidates(path)
    keys = ["run", "candidate"]
    first = candidates.sort_values("rung").drop_duplicates(keys)
    rows = [
        {
            "run": folder.shared["run"],
            "candidate": standing["candidate"],
            "target_images": folder.choice.target_images,
            "loss": standing["loss"]["median"],
            "low": standing["loss"]["low"],
            "high": standing["loss"]["high"],
            "may_win": standing["may_win"],
            "near": standing["near"],
            "best": standing["best"],
        }
        for folder in map(_read_folder, run_folders(path))
        if folder.choice is not None
        for standing in folder.choice.standings
        if standing["loss"] is not None
    ]
    names = ["run", "candidate", "target_images", "loss", "low", "high", "may_win", "near", "best"]
    return pd.DataFrame(rows, columns=names).merge(first.drop(columns="may_win"), on=keys)


def load_forecast(path: str | Path) -> pd.DataFrame:
    """Forecasts over horizons: run, candidate, images (seen), loss, low, high (90 %)."""
    rows = [
        {"run": folder.resolve().name, **vars(expected)}
        for folder in run_folders(path)
        for expected in read_forecast(folder)
    ]
    return pd.DataFrame(rows, columns=["run", "candidate", "images", "loss", "low", "high"])


def load_literature() -> pd.DataFrame:
    """Published ImageNet-1K models: family, model, params_m, gflops (10⁹ MACs), top1, source.

    The CMT rows are the paper's; the others are torchvision's, from `literature.csv`.
    """
    table = pd.read_csv(Path(__file__).with_name("literature.csv"))
    table.insert(0, "family", table["model"].str.rsplit("-", n=1).str[0])
    rows = [
        {
            "family": "CMT",
            "model": name,
            "params_m": row.params_m,
            "gflops": row.flops_g,
            "top1": row.top1,
            "source": "arXiv 2107.06263, Table 1",
        }
        for name, row in paper.VARIANTS.items()
    ]
    return pd.concat([pd.DataFrame(rows), table], ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What a search concluded for a target: whom it took (None: nothing is decided)."""

    candidate: str | None
    target_images: int
    standings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """One run folder: its rows, the horizons by images seen, and what all rows share."""

    path: Path
    rows: tuple[Row, ...]
    horizons: tuple[tuple[int, int], ...]
    shared: Mapping[str, Any]
    choice: _Choice | None

    def columns(self, row: Row) -> dict[str, Any]:
        """The row's columns with its rung and what its folder says."""
        own = {name: getattr(row, name) for name in COLUMNS}
        rung = 1 + self.horizons.index(row.horizon)
        chosen = self.choice is not None and row.candidate == self.choice.candidate
        return own | {"rung": rung} | dict(self.shared) | {"chosen": chosen}


def _read_folder(path: Path) -> _Folder:
    try:
        rows = read_rows(path / TRIALS)
        request = read_toml(path / REQUEST)
        environment = read_json(path / ENVIRONMENT)
    except FileNotFoundError as error:
        raise ResultsError(f"{error.filename} is missing; is it from `cmtscale search`?") from error
    images_seen = {row.horizon: row.images_seen for row in rows}
    data = _value(path / ENVIRONMENT, environment, "data", dict)
    target_images = _value(path / REQUEST, request, "target_images", int)
    choice = _read_choice(path / CHOICE)
    shared = {
        "run": path.resolve().name,
        "rungs": len(images_seen),
        "budget_macs": float(_value(path / REQUEST, request, "budget_macs", int, float)),
        "data": _value(path / REQUEST, request, "data", str),
        "tour": _value(path / REQUEST, request, "tour", bool),
        "num_classes": float(_value(path / ENVIRONMENT, data, "num_classes", int)),
        "native_px": float(_value(path / ENVIRONMENT, data, "native_px", int, float)),
        "finished": choice is not None and choice.target_images == target_images,
    }
    return _Folder(
        path=path,
        rows=tuple(rows),
        horizons=tuple(sorted(images_seen, key=lambda horizon: (images_seen[horizon], horizon))),
        shared=shared,
        choice=choice,
    )


def _read_choice(path: Path) -> _Choice | None:
    """What the search concluded; None before it did."""
    try:
        choice = read_json(path)
    except FileNotFoundError:
        return None
    taken, verdict = (_value(path, choice, name, str) for name in ("taken", "verdict"))
    return _Choice(
        candidate=taken if verdict in DECIDED else None,
        target_images=_value(path, choice, "target_images", int),
        standings=tuple(_value(path, choice, "standings", list)),
    )


def _value(path: Path, table: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """`table[name]`, of one of the types; or `ResultsError` that names the file."""
    if name not in table:
        raise ResultsError(f"{path} is damaged: it lacks {name!r}; restore it")
    if not isinstance(table[name], kinds):
        raise ResultsError(f"{path} is damaged: {name} is {table[name]!r}; restore it")
    return table[name]
