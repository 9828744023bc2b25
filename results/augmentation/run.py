"""Trains proxy twins with and without flip and shift; see README.md beside it.

python results/augmentation/run.py fashion-mnist 1 0   # data, epochs, seed
"""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import torch

from cmtscale.arch.scaling import resize
from cmtscale.arch.twins import PROXY_BASE
from cmtscale.arch.variant import Variant
from cmtscale.data.sources import open_source
from cmtscale.search.resolve import default_recipe
from cmtscale.train.loop import train
from cmtscale.train.memory import keep_freed_memory
from cmtscale.train.recipe import Run

COLUMNS = ("data", "epochs", "seed", "augmentation", "val_loss", "val_accuracy")
TABLE = Path(__file__).parent / "augmentation.csv"
AUGMENTATIONS = {
    "none": {"flip": False, "shift_fraction": 0.0},
    "flip": {"flip": True, "shift_fraction": 0.0},
    "flip, shift 5 %": {"flip": True, "shift_fraction": 0.05},
    "flip, shift 10 %": {"flip": True, "shift_fraction": 0.1},
}


def twin() -> Variant:
    """11.5 MMACs at 64 px: the twin base, wider."""
    grown = resize(PROXY_BASE, name="wide", dim1=20, depths=PROXY_BASE.depths, resolution_px=64)
    return replace(grown, num_classes=10, in_channels=1)


def main(data: str, epochs: str, seed: str) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    for name, augmentation in AUGMENTATIONS.items():
        batch = 32 if data == "digits" else 128  # the defaults when this was measured
        recipe = default_recipe(data)
        recipe = replace(recipe, epochs=int(epochs), batch_size=batch, **augmentation)
        run = Run(
            run_id=name,
            variant=twin(),
            recipe=recipe,
            seed=int(seed),
            data=open_source(data).pack(64).ref,
        )
        result = train(run, device=torch.device("cpu"), folder=None)
        row = [data, epochs, seed, name, result.val_loss, result.val_accuracy]
        is_new = not TABLE.exists()
        with TABLE.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, row] if is_new else [row])
        print(*row, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
