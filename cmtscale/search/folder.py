"""A run folder: what its files are called, whose it is, and what can be read from it."""

import csv
import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from cmtscale.atomic import write_text_atomically
from cmtscale.data.pack import Dataset
from cmtscale.search.request import Settings, read_settings
from cmtscale.search.store import TABLE, Row
from cmtscale.spec.errors import ResultsError
from cmtscale.train.claim import holds_anything
from cmtscale.train.loop import METRICS, read_metrics
from cmtscale.train.recipe import Recipe

REQUEST, ENVIRONMENT, CHOICE, BEST, CURVES = (
    "request.toml",
    "environment.json",
    "choice.json",
    "best.toml",
    "curves.csv",
)
RUNS = "runs"
CURVE_COLUMNS = (
    *("run_id", "candidate", "seed", "step", "images", "train_loss", "val_loss_raw"),
    "val_accuracy",
)


def require_same_request(folder: Path, settings: Settings) -> None:
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder} is a file, not a folder; use another --out")
    if (folder / REQUEST).exists():
        there = read_settings(folder / REQUEST)
        differing = [
            field.name
            for field in fields(Settings)
            if getattr(there, field.name) != getattr(settings, field.name)
        ]
        if differing:
            raise ResultsError(
                f"{folder} holds another search (its {', '.join(differing)} "
                f"{'differs' if len(differing) == 1 else 'differ'}); use another --out, or leave "
                f"--out away"
            )
    elif holds_anything(folder):
        raise ResultsError(
            f"{folder} is not empty and holds no search; use another --out, or an empty folder"
        )


def require_same_images(folder: Path, dataset: Dataset) -> None:
    """Raise `ResultsError` if the folder's runs saw other images or splits."""
    described = _environment(folder)
    if described and described["data"]["hash"] != dataset.content_hash:
        raise ResultsError(f"the images have changed since the runs in {folder}; use another --out")


def require_same_precision(folder: Path, recipe: Recipe, device: str) -> None:
    """Raise `ResultsError` if the folder's runs trained in another precision than here."""
    described = _environment(folder)
    if not described:
        return
    before, now = (name.split(":")[0] for name in (described["devices"][0], device))
    if recipe.precision_on(before) != recipe.precision_on(now):
        raise ResultsError(
            f"the runs in {folder} trained in {recipe.precision_on(before)} on {before}, {now} "
            f"trains in {recipe.precision_on(now)}, which compares nothing; use --device "
            f"{before}, or another --out"
        )


def _environment(folder: Path) -> dict[str, Any]:
    """What `environment.json` says, of a search that has begun."""
    try:
        described: dict[str, Any] = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return described


def recorded_ids(folder: Path) -> set[str]:
    """Runs that `trials.csv` says have ended and will not be repeated."""
    try:
        with (folder / TABLE).open(newline="") as file:
            return {row["run_id"] for row in csv.DictReader(file) if row["status"] != "failed"}
    except FileNotFoundError:
        return set()


def export_curves(folder: Path, rows: list[Row]) -> None:
    """Gather the runs' metrics in `curves.csv`, which is small enough to keep."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CURVE_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        metrics = read_metrics(folder / RUNS / row["run_id"] / METRICS)
        if not metrics and row["status"] == "complete":
            return  # runs/ was removed: keep the curves that were exported from it
        for line in metrics:
            writer.writerow({**line, **{key: row[key] for key in ("run_id", "candidate", "seed")}})
    write_text_atomically(folder / CURVES, text.getvalue())
