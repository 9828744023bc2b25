"""Trains anchors of the twin lattice at half, once and twice the learning rate; see README.md.

python results/learning-rate/run.py    # goes on where it was stopped
"""

import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cmtscale.data.sources import open_source
from cmtscale.search.candidates import Candidate, grid
from cmtscale.search.executors.base import Failure, carry_out_all
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.jobs import TrainRun
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.train.devices import device_slots
from cmtscale.train.recipe import Run

HERE = Path(__file__).parent
TABLE = HERE / "learning_rate.csv"
KEY = ("candidate", "lr", "seed")
COLUMNS = (*KEY, "val_loss", "val_accuracy", "temperature", "status", "seconds")
LENGTH = {"epochs": 1, "train_images": 6_000}
FACTORS = (0.5, 1.0, 2.0, 4.0)
SEEDS = (0, 1)


def main() -> None:
    request = SearchRequest(budget_macs=4_000_000_000, data="fashion-mnist", trials=1, **LENGTH)
    source = open_source(request.data)
    settings = resolve(request, source.describe())
    data = source.pack(160).ref
    done = set()
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            done = {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}
    else:
        TABLE.write_text(",".join(COLUMNS) + "\n")

    def job(candidate: Candidate, lr: float, seed: int) -> TrainRun:
        name = f"{candidate.name}-lr{lr:g}-s{seed}"
        recipe = replace(settings.run_recipe(0), lr=lr)
        run = Run(run_id=name, variant=candidate.trained, recipe=recipe, seed=seed, data=data)
        return TrainRun(run=run, folder=HERE / "runs" / name, candidate=candidate.name)

    def jobs() -> Iterator[TrainRun]:
        # the corners of the triangle and its centre; the base cannot be chosen
        anchors = [candidate for candidate in grid(settings) if candidate.role != "base"]
        for seed in SEEDS:
            for factor in FACTORS:
                for anchor in anchors:
                    lr = factor * settings.recipe.lr
                    if (anchor.name, str(lr), str(seed)) not in done:
                        yield job(anchor, lr, seed)

    with LocalExecutor(device_slots("cpu")) as executor:
        for ended, result in carry_out_all(executor, jobs()):
            assert isinstance(ended, TrainRun)
            if isinstance(result, Failure):
                sys.exit(f"{ended.run.run_id}: {result.cause}")
            key = (ended.candidate, ended.run.recipe.lr, ended.run.seed)
            metrics = (result.val_loss, result.val_accuracy, result.temperature)
            row = (*key, *metrics, result.status, round(result.seconds, 1))
            with TABLE.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(row)
            print(*row, flush=True)


if __name__ == "__main__":
    main()
