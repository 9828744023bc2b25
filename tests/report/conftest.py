"""Run folders as the search writes them, with numbers like those of a real search."""

import math
import random
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from cmtscale.arch.scaling import Shares
from cmtscale.record.files import write_json
from cmtscale.record.folder import CHOICE, ENVIRONMENT, REQUEST, RUNS, TRIALS
from cmtscale.record.forecast import Expected, write_forecast
from cmtscale.record.metrics import append_metrics
from cmtscale.record.result import SCORING
from cmtscale.record.row import Row, read_rows, to_csv

BASE_MACS, BUDGET_MACS, TWIN_MACS = 2_310_000, 4_000_000_000, 14_400_000
# name, role, twin MACs, twin resolution, shares of depth, width and resolution, mean loss
ARCHITECTURES = (
    *(
        (f"{name}-r{px}", "compound", TWIN_MACS * (1 + stray), px, depth, 1 - depth - resolution,
         resolution, loss)
        for name, px, resolution, depth, stray, loss in (
            ("d6.6.25.6-w8", 64, 0.0, 1.0, 0.011, 0.452),
            ("d3.3.14.3-w12", 64, 0.0, 0.67, -0.008, 0.421),
            ("d2.2.7.2-w18", 64, 0.0, 0.33, 0.004, 0.392),
            ("d1.1.4.1-w26", 64, 0.0, 0.0, -0.013, 0.371),
            ("d3.3.11.3-w8", 96, 0.44, 0.56, 0.007, 0.430),
            ("d2.2.8.2-w10", 96, 0.44, 0.37, -0.004, 0.396),
            ("d1.1.6.1-w12", 96, 0.44, 0.19, 0.015, 0.372),
            ("d1.1.4.1-w16", 96, 0.44, 0.0, -0.011, 0.358),
            ("d2.2.6.2-w8", 128, 0.757, 0.243, 0.006, 0.441),
            ("d1.1.5.1-w10", 128, 0.757, 0.121, -0.015, 0.427),
            ("d1.1.4.1-w12", 128, 0.757, 0.0, 0.012, 0.415),
            ("d1.1.3.1-w8", 160, 1.0, 0.0, 0.018, 0.473),
        )
    ),
    ("d1.1.5.1-w14-r96", "paper", 14_310_000, 96, 0.215, 0.455, 0.33, 0.381),
    ("d1.1.4.1-w8-r64", "base", BASE_MACS, 64, 0.0, 0.0, 0.0, 0.446),
    ("d6.6.24.6-w8-r64", "depth", 13_900_000, 64, 1.0, 0.0, 0.0, 0.455),
    ("d1.1.4.1-w28-r64", "width", 14_900_000, 64, 0.0, 1.0, 0.0, 0.374),
    ("d1.1.4.1-w8-r160", "resolution", 15_700_000, 160, 0.0, 0.0, 1.0, 0.476),
)  # fmt: skip
BEST, HALF_DIVERGED, BASE = (ARCHITECTURES[number][0] for number in (7, 4, 13))
BROKEN = {(4, 1): ("diverged", "loss is nan at step 31"), (10, 0): ("failed", "exit code -9")}


def write_run_folder(
    folder: Path,
    *,
    seeds: int = 2,
    epochs: int = 4,
    train_images: int = 6000,
    tour: bool = False,
    data: str = "fashion-mnist",
    num_classes: int = 10,
    twin_scale: float = 1.0,
    luck: int = 0,
    broken: bool = True,
    keep: int = len(ARCHITECTURES),
    winner: str | None = BEST,
    verdict: str = "clear",
) -> Path:
    """A run folder of `keep` candidates; with `broken` one run diverged and one failed."""
    noise = random.Random(luck)
    rows = []
    for number in range(keep):
        for seed in range(seeds):
            row = _row(number, seed, noise, epochs, train_images, twin_scale)
            if broken and (number, seed) in BROKEN:
                row = without_metrics(row, *BROKEN[number, seed])
            else:
                _write_metrics(folder / RUNS / row.run_id, row, noise)
            rows.append(row)
    write_trials(folder, rows)
    request = {
        "schema": 3,
        "budget_macs": BUDGET_MACS,
        "data": data,
        "sampler": "grid",
        "seeds": seeds,
        "tour": tour,
        "proxy_macs": int(TWIN_MACS * twin_scale),
        "base": {"name": "cmt-ti"},
        "target_images": epochs * train_images,
    }
    (folder / REQUEST).write_text(tomli_w.dumps(request))
    environment = {
        "cmtscale": "0.2.0",
        "hardware": "2 cores",
        "commit": None,
        "data": {"source": data, "hash": "0", "num_classes": num_classes, "native_px": 28},
    }
    write_json(folder / ENVIRONMENT, environment)
    if winner is not None:
        choice = {"taken": winner, "verdict": verdict, "target_images": epochs * train_images}
        write_json(folder / CHOICE, {**choice, "standings": _standings(rows)})
    return folder


def _standings(rows):
    """What a search would say of each candidate, most probable first; nothing of the base."""
    losses: dict[str, list[float]] = {}
    for row in rows:
        if row.val_loss is not None:
            losses.setdefault(row.candidate, []).append(row.val_loss)
    means = {name: sum(values) / len(values) for name, values in losses.items()}
    lowest = min(means.values())
    may_win = {row.candidate for row in rows if row.on_budget and row.candidate != HALF_DIVERGED}
    return [
        {
            "candidate": name,
            "loss": None
            if name == BASE
            else {"median": mean, "low": 0.97 * mean, "high": 1.04 * mean},
            "near": None if name == BASE else math.exp(-60 * (mean - lowest)),
            "best": None if name == BASE else 0.1,
            "may_win": name in may_win,
        }
        for name, mean in sorted(means.items(), key=lambda item: item[1])
    ]


def write_expected(folder: Path, longest: int) -> None:
    """A `forecast.csv` from 6,000 images to `longest`, of all candidates in `trials.csv`."""
    expected = []
    for row in {row.candidate: row for row in read_trials(folder)}.values():
        for images in (6_000, 18_000, longest):
            loss = (row.val_loss or 0.5) * (24_000 / images) ** 0.2
            values = {"loss": loss, "low": 0.9 * loss, "high": 1.1 * loss}
            expected.append(Expected(candidate=row.candidate, images=images, **values))
    write_forecast(folder, expected)


def add_horizon(folder: Path, other: Path) -> Path:
    """Put the runs of `other`, a folder of another horizon, into `folder`."""
    write_trials(folder, [*read_trials(folder), *read_trials(other)])
    for run in (other / RUNS).iterdir():
        run.rename(folder / RUNS / run.name)
    return folder


def write_trials(folder: Path, rows: Iterable[Row]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRIALS).write_text(to_csv(rows))


def read_trials(folder: Path) -> list[Row]:
    return read_rows(folder / TRIALS)


def without_metrics(row: Row, status: str, cause: str) -> Row:
    """The row of a run that ended without a result."""
    names = ("val_loss", "val_loss_raw", "val_accuracy", "train_loss", "images_per_second")
    nothing = dict.fromkeys((*names, "temperature"))
    return replace(row, status=status, cause=cause, **nothing)


def _row(number, seed, noise, epochs, train_images, twin_scale):
    name, role, macs, resolution_px, depth, width, resolution, mean = ARCHITECTURES[number]
    loss = mean + noise.gauss(0, 0.013) - 0.05 * math.log(epochs * train_images / 24_000)
    if role != "base":
        macs *= twin_scale
        loss -= 0.03 * math.log(twin_scale)
    shares = Shares(depth=depth, width=width, resolution=resolution)
    return Row(
        run_id=f"{name}-{epochs}x{train_images}-s{seed}",
        candidate=name,
        alpha=shares.alpha,
        beta=shares.beta,
        gamma=shares.gamma,
        phi=0.0 if role == "base" else 2.0,
        macs=int(BUDGET_MACS * macs / TWIN_MACS / twin_scale),
        params=25_000_000,
        proxy_macs=int(macs),
        resolution_px=224,
        dims=(64, 128, 256, 512),
        depths=(3, 3, 16, 3),
        seed=seed,
        epochs=epochs,
        train_images=train_images,
        val_loss=loss,
        val_loss_raw=loss + 0.02,
        val_accuracy=0.995 - 0.33 * loss + noise.gauss(0, 0.002),
        train_loss=loss + 0.5,
        images_per_second=170.0,
        seconds=140.0,
        status="complete",
        cause="",
        role=role,
        on_budget=abs(macs / TWIN_MACS / twin_scale - 1) < 0.02,
        stray=0.03,
        activations=21_000_000,
        proxy_params=800_000,
        proxy_resolution_px=resolution_px,
        proxy_dims=(8, 16, 32, 64),
        proxy_depths=(1, 1, 4, 1),
        temperature=1.1,
        asked=number,
        asked_after=0,
        asked_by="grid",
        scoring=SCORING,
        identity=f"{number:08x}{seed:08x}",
    )


def _write_metrics(folder, row, noise):
    folder.mkdir(parents=True)
    for step in range(20, 20 * 10 + 1, 20):
        done = step / 200
        lag = 0.9 * math.exp(-3.5 * done) - 0.9 * math.exp(-3.5) + noise.gauss(0, 0.01) * (1 - done)
        logged = {"step": step, "images": int(row.images_seen * done)}
        append_metrics(folder, {**logged, "train_loss": row.train_loss + lag, "lr": 2e-3})
        append_metrics(
            folder,
            {
                **logged,
                "val_loss_raw": row.val_loss_raw + lag,
                "val_accuracy": row.val_accuracy - 0.33 * lag,
            },
        )


@pytest.fixture
def run_folder(tmp_path):
    return write_run_folder(tmp_path / "fashion-mnist-cmt-ti-4G-1a2b")


@pytest.fixture
def folders():
    """This module: tests write their own run folders with it."""
    return sys.modules[__name__]
