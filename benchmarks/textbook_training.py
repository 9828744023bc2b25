"""The script that an engineer would write instead of a search: train one network after the other.

    python benchmarks/textbook_training.py FOLDER [--threads 2]    # of a finished search

The networks that the search trained, on the same images, with the same batches, epochs, schedule
and validation: the textbook's network, torchvision's transforms, `DataLoader` with two workers,
AdamW. `search_speed.py` times it; the timings are printed as JSON.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from textbook_cmt import TextbookCMT
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset, training_part
from cmtscale.data.sources import open_source
from cmtscale.data.splits import IntArray
from cmtscale.record.folder import REQUEST, TRIALS
from cmtscale.record.row import Row, read_rows
from cmtscale.search.candidates import recorded_candidate
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings, read_settings

LOADER_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Networks, the training images they saw, and seconds: of the epochs, and with validation."""

    networks: int
    images: int
    epoch_seconds: float
    training_seconds: float


class ImagesInMemory(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """uint8 images in memory, read as torchvision's FashionMNIST reads them."""

    def __init__(self, dataset: Dataset, indices: IntArray, transform: v2.Compose) -> None:
        self.images = dataset.images[indices]
        self.labels = dataset.labels[indices].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.images[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self.transform(image), self.labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    folder = args.folder
    torch.set_num_threads(args.threads)
    settings = read_settings(folder / REQUEST)
    source = open_source(settings.data, split_seed=settings.split_seed)
    dataset = source.pack(settings.pack_px)
    networks = trained_networks(settings, read_rows(folder / TRIALS))
    print(json.dumps(asdict(train_all(networks, dataset, asdict(settings.recipe)))))


def trained_networks(settings: Settings, rows: list[Row]) -> list[Variant]:
    """What a search trained, each network once, from the integers of its rows."""
    networks: dict[str, Variant] = {}
    for row in rows:
        network = recorded_candidate(settings, row, NOT_TIMED).trained
        assert cost(network).macs == row.proxy_macs, row.candidate
        networks[network.name] = network
    return list(networks.values())


def train_all(networks: list[Variant], dataset: Dataset, recipe: dict[str, Any]) -> Timing:
    began = time.perf_counter()
    images, epoch_seconds = 0, 0.0
    for network in networks:
        network_images, network_seconds = train(network, dataset, recipe)
        images += network_images
        epoch_seconds += network_seconds
    return Timing(
        networks=len(networks),
        images=images,
        epoch_seconds=epoch_seconds,
        training_seconds=time.perf_counter() - began,
    )


def train(network: Variant, dataset: Dataset, recipe: dict[str, Any]) -> tuple[int, float]:
    """Train and validate; returns the images seen and the seconds of the training epochs."""
    torch.manual_seed(0)
    train_loader, val_loader = loaders(network, dataset, recipe)
    model = TextbookCMT(network)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=recipe["lr"],
        betas=(recipe["beta1"], recipe["beta2"]),
        weight_decay=recipe["weight_decay"],
    )
    total_steps = recipe["epochs"] * len(train_loader)
    warmup_steps = round(recipe["warmup_fraction"] * total_steps)

    def lr_factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return (total_steps - step) / (total_steps - warmup_steps)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor)
    images_seen, epoch_seconds = 0, 0.0
    for _ in range(recipe["epochs"]):
        model.train()
        began = time.perf_counter()
        for images, labels in train_loader:
            loss = F.cross_entropy(model(images), labels, label_smoothing=recipe["label_smoothing"])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe["clip_norm"])
            optimizer.step()
            schedule.step()
            images_seen += len(images)
        epoch_seconds += time.perf_counter() - began
        validate(model, val_loader)
    return images_seen, epoch_seconds


def loaders(
    network: Variant, dataset: Dataset, recipe: dict[str, Any]
) -> tuple[DataLoader[tuple[Tensor, int]], DataLoader[tuple[Tensor, int]]]:
    """Training and validation images; the networks get the same inputs as in the search."""
    if recipe["flip"] or recipe["shift_fraction"]:
        raise SystemExit("the search flips or shifts its images, which this script does not")
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(dataset.mean, dataset.std),
            v2.Resize((network.resolution_px, network.resolution_px)),
        ]
    )
    train_indices = training_part(dataset, recipe["train_images"])
    train_loader = DataLoader(
        ImagesInMemory(dataset, train_indices, transform),
        batch_size=recipe["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=LOADER_WORKERS,
    )
    val_loader = DataLoader(
        ImagesInMemory(dataset, dataset.splits.val, transform),
        batch_size=recipe["batch_size"],
        num_workers=LOADER_WORKERS,
    )
    return train_loader, val_loader


@torch.inference_mode()
def validate(model: nn.Module, val_loader: DataLoader[tuple[Tensor, int]]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy."""
    model.eval()
    loss, correct, count = 0.0, 0, 0
    for images, labels in val_loader:
        logits = model(images)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        correct += int((logits.argmax(dim=1) == labels).sum())
        count += len(labels)
    return loss / count, correct / count


if __name__ == "__main__":
    main()
