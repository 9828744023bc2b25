"""Trains six on-budget twins at several batch sizes and lengths; see README.md beside it.

python results/short-trainings/run.py          # what short_trainings.csv lacks, on two cores
"""

import csv
import itertools
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from fvcore.nn.precise_bn import update_bn_stats
from torch import nn

from cmtscale.data.batches import device_split, epoch_batches
from cmtscale.model.cmt import build
from cmtscale.search.request import PROXY_BASE
from cmtscale.spec.scaling import resize
from cmtscale.spec.variant import Variant
from cmtscale.train.batch_norm import DECAY
from cmtscale.train.checkpoint import load_checkpoint
from cmtscale.train.devices import keep_freed_memory
from cmtscale.train.evaluate import evaluate
from cmtscale.train.loop import make_autocast, open_data, train, training_indices
from cmtscale.train.recipe import DataRef, Recipe, Run

TABLE = Path(__file__).parent / "short_trainings.csv"
DATA = DataRef(source="fashion-mnist", resolution_px=128)
CPU = torch.device("cpu")
TWINS = {  # first dim, blocks, side in px: the on-budget ones of a longer training
    "d1.1.4.1-w22-r64": (22, (1, 1, 4, 1), 64),
    "d2.1.6.2-w18-r64": (18, (2, 1, 6, 2), 64),
    "d3.2.8.2-w16-r64": (16, (3, 2, 8, 2), 64),
    "d1.1.7.2-w12-r96": (12, (1, 1, 7, 2), 96),
    "d4.4.17.4-w12-r64": (12, (4, 4, 17, 4), 64),
    "d3.2.8.2-w10-r96": (10, (3, 2, 8, 2), 96),
}
ESTIMATED_BATCHES, ESTIMATED_BATCH_SIZE = 12, 128  # of training images, for statistics made anew
KEY = ("twin", "images", "batch_size", "lr", "seed")
# Losses with PyTorch's running statistics, without their initial value, and estimated anew.
COLUMNS = (*KEY, "loss_initial", "loss", "loss_anew", "temperature", "accuracy", "cpu_seconds")


def cells() -> list[tuple[str, int, int, float, int]]:
    """Every run: first one seed of all, then the other, then other learning rates."""
    runs = [
        (twin, images, batch, 2e-3, seed)
        for seed in (0, 1)
        for images, batch, twin in itertools.product(
            (6_400, 3_200, 12_800), (32, 64, 128, 16), TWINS
        )
    ]
    some = ("d1.1.4.1-w22-r64", "d1.1.7.2-w12-r96", "d3.2.8.2-w16-r64")
    runs += [
        (twin, 6_400, batch, lr, 0)
        for batch, lr, twin in itertools.product((32, 16, 64), (1e-3, 4e-3), some)
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
    run = Run(run_id=twin, variant=variant(twin), recipe=recipe, seed=seed, data=DATA)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        result = train(run, device=CPU, folder=Path(folder))
        seconds = time.process_time() - began
        state = load_checkpoint(Path(folder), run.fingerprint)
    assert state is not None
    model = build(run.variant)
    model.load_state_dict(state["model"])
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    dataset = open_data(DATA)
    validation = device_split(dataset, dataset.splits.val, device=CPU)
    autocast = make_autocast(recipe, CPU)

    left = DECAY ** (images // batch_size)  # of the initial value
    kept = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    for norm in norms:
        norm.running_mean.mul_(1 - left)
        norm.running_var.mul_(1 - left).add_(left)
    initial = evaluate(model, validation, batch_size=128, autocast=autocast)
    for norm, (mean, var) in zip(norms, kept, strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.train()
    batches = epoch_batches(
        device_split(dataset, training_indices(dataset, recipe), device=CPU),
        batch_size=ESTIMATED_BATCH_SIZE,
        resolution_px=run.variant.resolution_px,
        generator=torch.Generator().manual_seed(12345),
        flip=False,
        shift_px_fraction=0.0,
    )
    update_bn_stats(model, (inputs for inputs, _ in batches), num_iters=ESTIMATED_BATCHES)
    anew = evaluate(model, validation, batch_size=128, autocast=autocast)
    losses = [initial.loss, result.val_loss, anew.loss]
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
