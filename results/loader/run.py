"""How fast does the loader feed a training, and how fast does a network take it? See README.md.

python results/loader/run.py FOLDER    # a tree of make_jpegs.py; about ten minutes on two cores
"""

import argparse
import csv
import resource
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

import cmtscale
from cmtscale.data.loaders import TrainingImages, read_batches, training_loader
from cmtscale.data.order import PartSampler, TrainingOrder
from cmtscale.data.sources import open_source
from cmtscale.data.stream import ImageSet
from cmtscale.record.model_folder import Preprocessing
from cmtscale.train.augment import make_augment
from cmtscale.train.paper_recipe import published_recipe
from cmtscale.train.recipe import Recipe
from cmtscale.train.timing import seconds_per_image

HERE = Path(__file__).parent
NETWORKS = ("cmt-ti", "cmt-s")
WORKERS = (0, 1, 2)
BATCH = 64
BATCHES, WARM_UP = 24, 4  # with 2 workers, 8 batches are read ahead


@dataclass(frozen=True, kw_only=True)
class Pace:
    """`cpu_ms` of all processes together, of an image."""

    network: str
    resolution_px: int
    workers: int
    images_per_second: float
    cpu_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    began = time.perf_counter()
    image_set = open_source(f"folder:{folder.absolute()}").stream()
    opened = time.perf_counter() - began
    count = len(image_set.labels)
    print(f"{count} images listed, and the headers of some read, in {opened:.1f} s")
    rows = [measure(image_set, name, workers) for name in NETWORKS for workers in WORKERS]
    with (HERE / "paces.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, vars(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(row) for row in rows)
    for name in NETWORKS:
        seconds = seconds_per_image(cmtscale.variant(name), Recipe(), batch=8, device="cpu")
        print(f"{name}: {1 / seconds:.1f} images a second are trained on, on one thread")


def measure(image_set: ImageSet, name: str, workers: int) -> Pace:
    """The loader alone, with the recipe's whole augmentation, from the second epoch of its pace."""
    variant = cmtscale.variant(name)
    half = (0.5, 0.5, 0.5)
    preprocessing = Preprocessing(
        channels=3,
        resolution_px=variant.resolution_px,
        stored_px=variant.resolution_px,
        crop_fraction=0.875,
        mean=half,
        std=half,
    )
    indices = image_set.splits.train
    order = TrainingOrder(images=len(indices), batch_images=BATCH, parts=1, repeats=1, seed=workers)
    images = TrainingImages(
        image_set,
        indices,
        make_augment(published_recipe(name), preprocessing, may_flip=True),
        seed=workers,
    )
    sampler = PartSampler(order, parts=range(1), first_step=0, last_step=BATCHES)
    device = torch.device("cpu")
    used = cpu_seconds()
    loader = training_loader(images, sampler, workers=workers, device=device)
    batches = read_batches(loader, device)
    for _ in islice(batches, WARM_UP):
        pass
    began = time.perf_counter()
    timed = sum(len(labels) for _, labels in batches)
    seconds = time.perf_counter() - began
    del batches, loader  # its processes have ended: their time is counted
    pace = Pace(
        network=name,
        resolution_px=variant.resolution_px,
        workers=workers,
        images_per_second=round(timed / seconds, 1),
        cpu_ms=round(1000 * (cpu_seconds() - used) / (BATCHES * BATCH), 2),
    )
    print(pace, flush=True)
    return pace


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
