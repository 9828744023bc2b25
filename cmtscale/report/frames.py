"""Run folders to pandas frames: one row per run, one row per candidate, learning curves.

A run folder holds `trials.csv`, `request.toml`, `environment.json`, once it has chosen
`choice.json`, and curves: `runs/*/metrics.jsonl`, or `curves.csv` where the runs were not kept.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmtscale.spec import paper
from cmtscale.spec.errors import ResultsError

_TEXTS = [
    "run_id", "candidate", "dims", "depths", "status", "cause", "role", "on_budget",
    "proxy_dims", "proxy_depths",
]  # fmt: skip
_NUMBERS = [
    "rung", "alpha", "beta", "gamma", "phi", "macs", "params", "proxy_macs",
    "resolution_px", "seed", "epochs", "val_loss", "val_loss_raw", "val_accuracy",
    "train_loss", "images_per_second", "seconds", "stray", "activations", "proxy_params",
    "proxy_resolution_px",
]  # fmt: skip
_CURVES = ["run_id", "step", "images", "train_loss", "val_loss_raw", "val_accuracy"]
_KEY = ["run", "rung", "candidate"]
# The same for every run of a candidate.
_CONSTANT = [
    "data", "tour", "num_classes", "native_px", "budget_macs", "chosen", "role",
    "on_budget", "alpha", "beta", "gamma", "phi", "stray", "epochs", "macs", "params",
    "activations", "resolution_px", "dims", "depths", "proxy_macs", "proxy_params",
    "proxy_resolution_px", "proxy_dims", "proxy_depths",
]  # fmt: skip


def load_results(path: str | Path) -> pd.DataFrame:
    """Every run of a run folder, or of all run folders directly under `path`; one row per run.

    The columns of `trials.csv` (`on_budget` as bool) and of each folder: `run` (its name),
    `budget_macs`, `data`, `tour`, `num_classes`, `native_px`, `chosen` (is this the candidate
    that the search chose). Raises `ResultsError`.
    """
    frames = [_load_folder(folder) for folder in run_folders(path)]
    started = [frame for frame in frames if len(frame)]
    if not started:
        raise ResultsError(f"{path} has no finished run yet; wait for the search or start it again")
    return pd.concat(started, ignore_index=True)


def run_folders(path: str | Path) -> list[Path]:
    """`path` itself if it has a `trials.csv`, else its sub-folders that do; or `ResultsError`."""
    path = Path(path)
    if not path.is_dir():
        what = "is not a folder" if path.exists() else "does not exist"
        raise ResultsError(f"{path} {what}; name a run folder, or a folder of run folders")
    if (path / "trials.csv").exists():
        return [path]
    folders = sorted(table.parent for table in path.glob("*/trials.csv"))
    if not folders:
        raise ResultsError(
            f"{path} has no trials.csv, nor has any folder in it; run `cmtscale search` first"
        )
    return folders


def candidates(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per (run, rung, candidate) of a `load_results` frame.

    `val_loss`, `val_accuracy` and `images_per_second` are means over the complete runs, with
    `val_loss_sd` and `val_accuracy_sd` between seeds (NaN for one seed); `seeds` counts complete
    runs, `failed` the others. `depth`, `width`, `resolution` are the log shares.
    """
    groups = frame.groupby(_KEY, sort=True)
    table = groups[_CONSTANT].first()
    done = frame[frame["status"] == "complete"].groupby(_KEY)
    table["seeds"] = done.size().reindex(table.index, fill_value=0)
    table["failed"] = groups.size() - table["seeds"]
    for name in ("val_loss", "val_accuracy"):
        table[name] = done[name].mean()
        table[f"{name}_sd"] = done[name].std(ddof=1)
    table["images_per_second"] = done["images_per_second"].mean()
    base = np.log(paper.PHI_BASE)
    table["depth"] = np.log(table["alpha"]) / base
    table["width"] = paper.WIDTH_EXPONENT * np.log(table["beta"]) / base
    table["resolution"] = paper.RESOLUTION_EXPONENT * np.log(table["gamma"]) / base
    return table.reset_index()


def complete(candidates: pd.DataFrame) -> pd.DataFrame:
    """The candidates with at least one complete run; `ResultsError` if there is none."""
    done = candidates[candidates["seeds"] > 0]
    if done.empty:
        raise ResultsError("every run diverged or failed; the column cause in trials.csv says why")
    return done


def pareto_front(macs: NDArray[np.float64], accuracy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other beats: none is at least as good in both and better in one."""
    cheaper = macs[None, :] <= macs[:, None]
    better = accuracy[None, :] >= accuracy[:, None]
    strictly = (macs[None, :] < macs[:, None]) | (accuracy[None, :] > accuracy[:, None])
    return np.logical_not((cheaper & better & strictly).any(axis=1))


def load_curves(run_folder: str | Path) -> pd.DataFrame:
    """Learning curves of a run folder: one row per logged line.

    Columns run, rung, candidate, seed, status, then run_id, step, images, train_loss (training
    lines) and val_loss_raw, val_accuracy (evaluation lines). Empty where no curve was kept.
    """
    folder = Path(run_folder)
    trials = _read_trials(folder)[["run_id", "rung", "candidate", "seed", "status"]]
    exported = folder / "curves.csv"
    curves = (
        _read_curves(exported)
        if exported.exists()
        else pd.DataFrame(_logged(folder, trials["run_id"]), columns=_CURVES)
    )
    # a run that was resumed logged some steps twice: the later line counts
    curves["evaluation"] = curves["val_accuracy"].notna()
    curves = curves.drop_duplicates(["run_id", "step", "evaluation"], keep="last")
    curves = curves.drop(columns="evaluation").merge(trials, on="run_id", how="inner")
    curves.insert(0, "run", folder.resolve().name)
    return curves.sort_values(["run_id", "step"], kind="stable", ignore_index=True)


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


def _load_folder(folder: Path) -> pd.DataFrame:
    frame = _read_trials(folder)
    request = _read_toml(folder / "request.toml")
    environment = _read_json(folder / "environment.json")
    choice = folder / "choice.json"
    try:
        frame["run"] = folder.resolve().name
        frame["budget_macs"] = float(request["budget_macs"])
        frame["data"] = str(request["data"])
        frame["tour"] = bool(request["tour"])
        frame["num_classes"] = float(environment["data"]["num_classes"])
        frame["native_px"] = float(environment["data"]["native_px"])
        chosen = _read_json(choice)["winner"] if choice.exists() else None
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{folder}: request.toml, environment.json or choice.json lacks {error}; "
            "run the search again, it fills what is missing"
        ) from error
    frame["chosen"] = frame["candidate"] == chosen
    return frame


def _read_trials(folder: Path) -> pd.DataFrame:
    path = folder / "trials.csv"
    table = _read_table(path, [*_TEXTS, *_NUMBERS])
    for name in _NUMBERS:
        try:
            table[name] = pd.to_numeric(table[name]).astype(float)
        except (ValueError, TypeError) as error:
            raise ResultsError(f"{path}: {name} is not a number: {_line(error)}") from error
    table["on_budget"] = table["on_budget"] == "True"
    return table.astype({"rung": int, "seed": int})


def _read_curves(path: Path) -> pd.DataFrame:
    table = _read_table(path, _CURVES)[_CURVES]
    numbers = _CURVES[1:]
    try:
        table[numbers] = table[numbers].apply(pd.to_numeric)
    except (ValueError, TypeError) as error:
        raise ResultsError(f"{path}: not a number: {_line(error)}") from error
    return table


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV file as text, empty cells as empty strings; `ResultsError` if it lacks a column."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read as a table: {_line(error)}") from error
    if missing := [name for name in columns if name not in table.columns]:
        raise ResultsError(f"{path} lacks {', '.join(missing)}; is it from `cmtscale search`?")
    return table


def _logged(folder: Path, run_ids: "pd.Series[str]") -> Iterator[dict[str, Any]]:
    for run_id in run_ids:
        path = folder / "runs" / run_id / "metrics.jsonl"
        if not path.exists():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield {"run_id": run_id, **json.loads(line)}
            except ValueError:  # a killed run leaves its last line torn
                continue


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {_line(error)}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read: {_line(error)}") from error
    if not isinstance(content, dict):
        raise ResultsError(f"{path} cannot be read: it holds no object")
    return content


def _line(error: BaseException) -> str:
    """The first line of an error's text; of an OSError the reason alone."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
