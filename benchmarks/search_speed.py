"""How fast does a search train, beside the script that an engineer would write instead?

    python benchmarks/search_speed.py [--train-images 3200] [--trials 8] [--out FOLDER]
    python benchmarks/search_speed.py --quick    # digits, a minute or two: checks that it runs

Runs `cmtscale search`, then `textbook_training.py` on the networks that it trained, then the same
search again in a new folder, so that a slow phase of the machine hits both. Both sides train one
epoch on as many images in the same batches and validate on the same split, on two cores: the search
with two workers of one thread each, the script with two threads, beside two loader processes.

Three rates, in training images per second, of all workers together:
- `epochs`: the training epochs alone, without validation;
- `trainings`: from the first run's start to the last one's end, with validation;
- `command`: the whole command with its imports, and for a search with the plan, the choice and the
  winner's test. Images are packed before.

Run it on idle cores: the two threads of the script wait for each other in every operator, so that
other work on the cores slows the script several times more than the search.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cmtscale.data.sources import open_source
from cmtscale.record.folder import ENVIRONMENT, REQUEST, RUNS, TRIALS
from cmtscale.record.row import read_rows

WORKERS = 2
POLL_SECONDS = 0.05
IDLE_LOAD = 0.3
SCRIPT = Path(__file__).with_name("textbook_training.py")
RATES = ("epochs", "trainings", "command")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One process: what it trained, and the seconds that count for each rate."""

    side: str
    threads: int  # in all workers
    networks: int
    images: int
    epochs_s: float
    trainings_s: float
    command_s: float
    load_average: float

    def images_per_second(self, rate: str) -> float:
        return self.images / float(getattr(self, f"{rate}_s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train-images", type=int, default=3200)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="of the script")
    parser.add_argument("--quick", action="store_true", help="digits: whether it runs")
    parser.add_argument("--out", type=Path, help="folder to write search_speed.csv into")
    args = parser.parse_args()
    data, train_images, trials = "fashion-mnist", args.train_images, args.trials
    if args.quick:
        data, train_images, trials = "digits", 128, 6
    if os.getloadavg()[0] > IDLE_LOAD:
        print(f"the load average is {os.getloadavg()[0]:.1f}: other work favours the search")
    open_source(data).pack(64)  # unless the cache has it
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        measured = [
            measure_search(first, data, train_images, trials),
            measure_script(first, args.threads),
            measure_search(second, data, train_images, trials),
        ]
        request = tomllib.loads((first / REQUEST).read_text(encoding="utf-8"))
        environment = json.loads((first / ENVIRONMENT).read_text(encoding="utf-8"))
    print_ratios(measured)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        rows = [table_row(one, request, environment) for one in measured]
        pd.DataFrame(rows).to_csv(args.out / "search_speed.csv", index=False)


def measure_search(folder: Path, data: str, train_images: int, trials: int) -> Measurement:
    """Run the search; its runs' folders and its table say when it trained."""
    command = [
        str(Path(sys.executable).with_name("cmtscale")),
        "search",
        "--budget=4.0G",
        f"--data={data}",
        "--epochs=1",
        "--ladder=flat",
        f"--train-images={train_images}",
        f"--trials={trials}",
        "--device=cpu",
        f"--workers={WORKERS}",
        f"--out={folder}",
    ]
    load_average = os.getloadavg()[0]
    started = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (folder / RUNS).exists():
        time.sleep(POLL_SECONDS)
    training_started = time.time()
    if process.wait() != 0:
        raise SystemExit(f"the search ended with exit code {process.returncode}")
    ended = time.time()
    rows = read_rows(folder / TRIALS)
    assert all(row.status == "complete" for row in rows)
    recipe = tomllib.loads((folder / REQUEST).read_text(encoding="utf-8"))["recipe"]
    batch_size = recipe["batch_size"]
    images = {  # in whole batches
        row.run_id: row.epochs * (row.train_images // batch_size) * batch_size for row in rows
    }
    return Measurement(
        side="search",
        threads=WORKERS,
        networks=len({row.candidate for row in rows}),
        images=sum(images.values()),
        epochs_s=sum(images[row.run_id] / (row.images_per_second or 0) for row in rows) / WORKERS,
        trainings_s=(folder / TRIALS).stat().st_mtime - training_started,
        command_s=ended - started,
        load_average=load_average,
    )


def measure_script(folder: Path, threads: int) -> Measurement:
    """Train what the search in `folder` trained with the engineer's script."""
    load_average = os.getloadavg()[0]
    started = time.time()
    command = [sys.executable, str(SCRIPT), str(folder), f"--threads={threads}"]
    script = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    ended = time.time()
    timing = json.loads(script.stdout)
    return Measurement(
        side="script",
        threads=threads,
        networks=timing["networks"],
        images=timing["images"],
        epochs_s=timing["epoch_seconds"],
        trainings_s=timing["training_seconds"],
        command_s=ended - started,
        load_average=load_average,
    )


def print_ratios(measured: list[Measurement]) -> None:
    """Images per second of each process, and each search as a multiple of the script."""
    (script,) = [one for one in measured if one.side == "script"]
    searches = [one for one in measured if one.side == "search"]
    print(f"{script.networks} networks, {script.images} training images")
    for rate in RATES:
        own = [one.images_per_second(rate) for one in searches]
        textbook = script.images_per_second(rate)
        images = sum(one.images for one in searches)
        pooled = images / sum(one.images / speed for one, speed in zip(searches, own, strict=True))
        print(
            f"{rate}: search {' and '.join(f'{speed:.0f}' for speed in own)} images/s, script "
            f"{textbook:.0f} images/s: {pooled / textbook:.2f} times "
            f"({' and '.join(f'{speed / textbook:.2f}' for speed in own)})"
        )


def table_row(
    measured: Measurement, request: dict[str, Any], environment: dict[str, Any]
) -> dict[str, object]:
    return {
        "side": measured.side,
        "threads": measured.threads,
        "data": request["data"],
        "networks": measured.networks,
        "train_images": request["recipe"]["train_images"],
        "batch_size": request["recipe"]["batch_size"],
        "images": measured.images,
        **{f"{rate}_s": round(getattr(measured, f"{rate}_s"), 2) for rate in RATES},
        **{f"{rate}_images_per_s": round(measured.images_per_second(rate), 1) for rate in RATES},
        "load_average": round(measured.load_average, 2),
        "hardware": environment["hardware"],
        "torch": environment["versions"]["torch"],
        "torchvision": environment["versions"]["torchvision"],
        "python": environment["python"],
        "commit": environment["commit"],
        "date": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    main()
