"""Run folders as the search writes them, with numbers like those of a real search."""

import csv
import json
import math
import random
import sys
from pathlib import Path

import pytest
import tomli_w

COLUMNS = [
    "run_id", "rung", "candidate", "alpha", "beta", "gamma", "phi", "macs", "params",
    "proxy_macs", "resolution_px", "dims", "depths", "seed", "epochs", "val_loss",
    "val_loss_raw", "val_accuracy", "train_loss", "images_per_second", "seconds", "status",
    "cause", "role", "on_budget", "stray", "activations", "proxy_params",
    "proxy_resolution_px", "proxy_dims", "proxy_depths",
]  # fmt: skip
BASE_MACS, BUDGET_MACS, TWIN_MACS = 2_310_000, 4_000_000_000, 14_400_000
# role, twin MACs, twin resolution, shares of depth, width and resolution, mean loss
ARCHITECTURES = (
    *(
        ("compound", TWIN_MACS * (1 + stray), px, depth, 1 - depth - resolution, resolution, loss)
        for px, resolution, depth, stray, loss in (
            (64, 0.0, 1.0, 0.011, 0.452),
            (64, 0.0, 0.67, -0.008, 0.421),
            (64, 0.0, 0.33, 0.004, 0.392),
            (64, 0.0, 0.0, -0.013, 0.371),
            (96, 0.44, 0.56, 0.007, 0.430),
            (96, 0.44, 0.37, -0.004, 0.396),
            (96, 0.44, 0.19, 0.015, 0.372),
            (96, 0.44, 0.0, -0.011, 0.358),
            (128, 0.757, 0.243, 0.006, 0.441),
            (128, 0.757, 0.121, -0.015, 0.427),
            (128, 0.757, 0.0, 0.012, 0.415),
            (160, 1.0, 0.0, 0.018, 0.473),
        )
    ),
    ("paper", 14_310_000, 96, 0.215, 0.455, 0.33, 0.381),
    ("base", BASE_MACS, 64, 0.0, 0.0, 0.0, 0.446),
    ("depth", 13_900_000, 64, 1.0, 0.0, 0.0, 0.455),
    ("width", 14_900_000, 64, 0.0, 1.0, 0.0, 0.374),
    ("resolution", 15_700_000, 160, 0.0, 0.0, 1.0, 0.476),
)
CHOICE = "c07"


def write_run_folder(
    folder: Path,
    *,
    seeds: int = 2,
    rung: int = 1,
    epochs: float = 4,
    tour: bool = False,
    data: str = "fashion-mnist",
    num_classes: int = 10,
    twin_scale: float = 1.0,
    luck: int = 0,
    broken: bool = True,
    keep: int = len(ARCHITECTURES),
    choice: str | None = CHOICE,
) -> Path:
    """A run folder of `keep` candidates; with `broken` one run diverged and one failed."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = random.Random(luck)
    rows = []
    for number, architecture in enumerate(ARCHITECTURES[:keep]):
        for seed in range(seeds):
            row = _row(architecture, number, seed, noise, rung, epochs, twin_scale)
            if broken and (number, seed) in ((4, 1), (10, 0)):
                row |= dict.fromkeys(("val_loss", "val_loss_raw", "val_accuracy", "train_loss"), "")
                row |= (
                    {"status": "diverged", "cause": "loss is nan at step 31"}
                    if number == 4
                    else {"status": "failed", "cause": "worker ended, exit code -9"}
                )
            else:
                _write_metrics(folder / "runs" / row["run_id"], row, noise, epochs)
            rows.append(row)
    write_trials(folder, rows)
    request = {
        "budget_macs": BUDGET_MACS,
        "data": data,
        "sampler": "grid",
        "seeds": list(range(seeds)),
        "tour": tour,
        "proxy_macs": int(TWIN_MACS * twin_scale),
        "base": {"name": "cmt-ti"},
    }
    (folder / "request.toml").write_text(tomli_w.dumps(request))
    environment = {
        "cmtscale": "0.1.0",
        "hardware": "2 cores",
        "commit": None,
        "data": {"source": data, "hash": "0", "num_classes": num_classes, "native_px": 28},
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    if choice is not None:
        (folder / "choice.json").write_text(json.dumps({"winner": choice}))
    return folder


def write_trials(folder: Path, rows: list[dict]) -> None:
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def read_trials(folder: Path) -> list[dict]:
    with (folder / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _row(architecture, number, seed, noise, rung, epochs, twin_scale):
    role, macs, resolution_px, depth, width, resolution, mean = architecture
    loss = mean + noise.gauss(0, 0.013) - 0.05 * math.log(epochs / 4)
    if role != "base":
        macs *= twin_scale
        loss -= 0.03 * math.log(twin_scale)
    return {
        "run_id": f"r{rung}-c{number:02d}-s{seed}",
        "rung": rung,
        "candidate": f"c{number:02d}",
        "alpha": 2.5**depth,
        "beta": 2.5 ** (width / 1.5),
        "gamma": 2.5 ** (resolution / 2),
        "phi": 0.0 if role == "base" else 2.0,
        "macs": int(BUDGET_MACS * macs / TWIN_MACS / twin_scale),
        "params": 25_000_000,
        "proxy_macs": int(macs),
        "resolution_px": 224,
        "dims": "64-128-256-512",
        "depths": "3-3-16-3",
        "seed": seed,
        "epochs": epochs,
        "val_loss": loss,
        "val_loss_raw": loss + 0.02,
        "val_accuracy": 0.995 - 0.33 * loss + noise.gauss(0, 0.002),
        "train_loss": loss + 0.5,
        "images_per_second": 170.0,
        "seconds": 140.0,
        "status": "complete",
        "cause": "",
        "role": role,
        "on_budget": abs(macs / TWIN_MACS / twin_scale - 1) < 0.02,
        "stray": 0.03,
        "activations": 21_000_000,
        "proxy_params": 800_000,
        "proxy_resolution_px": resolution_px,
        "proxy_dims": "8-16-32-64",
        "proxy_depths": "1-1-4-1",
    }


def _write_metrics(folder, row, noise, epochs):
    folder.mkdir(parents=True)
    lines = []
    for step in range(20, 20 * 10 + 1, 20):
        done = step / 200
        images = int(6000 * epochs * done)
        lag = 0.9 * math.exp(-3.5 * done) - 0.9 * math.exp(-3.5) + noise.gauss(0, 0.01) * (1 - done)
        lines.append(
            {"step": step, "images": images, "train_loss": row["train_loss"] + lag, "lr": 2e-3}
        )
        lines.append(
            {
                "step": step,
                "images": images,
                "val_loss_raw": row["val_loss_raw"] + lag,
                "val_accuracy": row["val_accuracy"] - 0.33 * lag,
            }
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def run_folder(tmp_path):
    return write_run_folder(tmp_path / "fashion-mnist-cmt-ti-4G-1a2b")


@pytest.fixture
def folders():
    """This module: tests write their own run folders with it."""
    return sys.modules[__name__]
