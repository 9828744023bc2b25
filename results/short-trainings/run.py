"""Trains six on-budget twins at several batch sizes and lengths; see README.md beside it.

python results/short-trainings/run.py          # what short_trainings.csv lacks, on two cores
"""

import csv
import itertools
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmtscale.arch.scaling import resize
from cmtscale.arch.twins import PROXY_BASE
from cmtscale.arch.variant import Variant
from cmtscale.data.batches import DeviceSplit, device_split
from cmtscale.data.dataset import open_dataset
from cmtscale.data.sources import open_source
from cmtscale.model.cmt import CMT
from cmtscale.train import loop
from cmtscale.train.autocast import make_autocast
from cmtscale.train.batch_norm import DECAY, estimate_statistics
from cmtscale.train.evaluate import fit, predict
from cmtscale.train.memory import keep_freed_memory
from cmtscale.train.recipe import Recipe, Run

TABLE = Path(__file__).parent / "short_trainings.csv"
CPU = torch.device("cpu")
TWINS = {  # first dim, blocks, side in px: the on-budget ones of a longer training
    "d1.1.4.1-w22-r64": (22, (1, 1, 4, 1), 64),
    "d2.1.6.2-w18-r64": (18, (2, 1, 6, 2), 64),
    "d3.2.8.2-w16-r64": (16, (3, 2, 8, 2), 64),
    "d1.1.7.2-w12-r96": (12, (1, 1, 7, 2), 96),
    "d4.4.17.4-w12-r64": (12, (4, 4, 17, 4), 64),
    "d3.2.8.2-w10-r96": (10, (3, 2, 8, 2), 96),
}
PROBED = ("d1.1.4.1-w22-r64", "d1.1.7.2-w12-r96", "d3.2.8.2-w16-r64")  # at other learning rates
REPEATED = (*PROBED, "d2.1.6.2-w18-r64")  # with a second seed
KEY = ("twin", "images", "batch_size", "lr", "seed")
# Losses with PyTorch's running statistics, without their initial value, and estimated anew.
COLUMNS = (*KEY, "loss_initial", "loss", "loss_anew", "temperature", "accuracy", "cpu_seconds")


def cells() -> list[tuple[str, int, int, float, int]]:
    """Every run: one seed of all twins, another of the fast ones, and other learning rates."""
    lengths = (6_400, 3_200, 12_800)
    batches = (32, 64, 128, 16)
    runs = [
        (twin, images, batch, 2e-3, 0)
        for images, batch, twin in itertools.product(lengths, batches, TWINS)
    ]
    runs += [
        (twin, 6_400, batch, lr, 0)
        for batch, lr, twin in itertools.product((32, 64), (1e-3, 4e-3), PROBED)
    ]
    runs += [
        (twin, images, batch, 2e-3, 1)
        for images, batch, twin in itertools.product(lengths, batches, REPEATED)
    ]
    return runs


def variant(twin: str) -> Variant:
    dim1, depths, side = TWINS[twin]
    grown = resize(PROXY_BASE, name=twin, dim1=dim1, depths=depths, resolution_px=side)
    return replace(grown, num_classes=10, in_channels=1)


def carry_out(key: tuple[str, int, int, float, int]) -> list[object]:
    twin, images, batch_size, lr, seed = key
    torch.set_num_threads(1)
    keep_freed_memory()
    recipe = Recipe(
        epochs=1, train_images=images, batch_size=batch_size, lr=lr, flip=False, shift_fraction=0.0
    )
    data = open_source("fashion-mnist").pack(128).ref
    run = Run(run_id=twin, variant=variant(twin), recipe=recipe, seed=seed, data=data)
    trained: dict[str, Any] = {}

    def remember(model: CMT, split: DeviceSplit, **options: Any) -> None:
        """Keep the statistics of training, before they are estimated anew."""
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
        trained.update(model=model, norms=norms, kept=kept)
        estimate_statistics(model, split, **options)

    loop.estimate_statistics = remember
    began = time.process_time()
    result = loop.train(run, device=CPU)
    seconds = time.process_time() - began

    dataset = open_dataset(data)
    validation = device_split(dataset, dataset.splits.val, device=CPU)
    losses = []
    for left in (DECAY ** (images // batch_size), 0.0):  # of the initial mean 0 and variance 1
        for norm, (mean, var) in zip(trained["norms"], trained["kept"], strict=True):
            norm.running_mean.copy_((1 - left) * mean)
            norm.running_var.copy_((1 - left) * var + left)
        autocast = make_autocast(recipe, CPU)
        predictions = predict(trained["model"], validation, batch_size=128, autocast=autocast)
        losses.append(fit(predictions).loss)
    losses.append(result.val_loss)
    return [*key, *losses, result.temperature, result.val_accuracy, round(seconds, 2)]


def main() -> None:
    done = set()
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            done = {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}
    else:
        TABLE.write_text(",".join(COLUMNS) + "\n")
    waiting = [key for key in cells() if tuple(map(str, key)) not in done]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(carry_out, key) for key in waiting]):
            with TABLE.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(future.result())
            print(*future.result(), flush=True)


if __name__ == "__main__":
    main()
