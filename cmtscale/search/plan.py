"""What a search is going to do, and how long that takes, before it does it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from cmtscale.data.pack import Dataset
from cmtscale.model.cmt import build
from cmtscale.search.candidates import Candidate
from cmtscale.search.request import Settings
from cmtscale.spec.cost import cost
from cmtscale.spec.solve import Solution
from cmtscale.spec.variant import Variant
from cmtscale.train.loop import make_autocast
from cmtscale.train.optimizer import make_optimizer
from cmtscale.train.recipe import Recipe

START_SECONDS = 6.0  # a worker's imports, once per worker
EVALUATION_SHARE = 1 / 3  # of a training step's cost per image: no backward pass
_TIMED_STEPS = 2
_TIMING_SECONDS = 15.0
_TIMED_MACS = 2.5e8  # a timed batch is that much work, so that real variants are timed quickly too
_LARGEST_TIMED_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search before it starts; `candidates` are the first ones where a sampler is to find more.

    `run_seconds` estimates one run of each candidate, from training steps timed here and now;
    `total_seconds` the wall time of what is left to do.
    """

    settings: Settings
    folder: Path
    dataset: Dataset
    devices: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    run_seconds: tuple[float, ...]
    runs: int
    runs_done: int
    total_seconds: float
    paper: Solution | None


def time_runs(
    networks: Sequence[Variant], recipe: Recipe, dataset: Dataset, device: str
) -> tuple[float, ...]:
    """Estimated seconds of one run of each network on one slot of `device`.

    Timing ends after 15 s; networks that it did not come to are estimated by their MACs.
    """
    images = recipe.epochs * (recipe.train_images or len(dataset.splits.train))
    images_evaluated = recipe.epochs * len(dataset.splits.val)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        per_image = _time_networks(networks, recipe, torch.device(device))
    finally:
        torch.set_num_threads(threads)
    return tuple(s * (images + EVALUATION_SHARE * images_evaluated) for s in per_image)


def _time_networks(
    networks: Sequence[Variant], recipe: Recipe, device: torch.device
) -> list[float]:
    macs = [cost(network).macs for network in networks]
    timed: dict[int, float] = {}
    began = time.perf_counter()
    for index, network in enumerate(networks):
        if time.perf_counter() - began < _TIMING_SECONDS:
            timed[index] = _seconds_per_image(network, recipe, device)
    per_mac = sum(timed.values()) / sum(macs[index] for index in timed)
    return [timed.get(index, per_mac * macs[index]) for index in range(len(networks))]


def _seconds_per_image(variant: Variant, recipe: Recipe, device: torch.device) -> float:
    model = build(variant).to(device).train()
    optimizer = make_optimizer(model, recipe)
    side = variant.resolution_px
    batch = max(2, min(_LARGEST_TIMED_BATCH, round(_TIMED_MACS / cost(variant).macs)))
    images = torch.randn(batch, variant.in_channels, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    autocast = make_autocast(recipe, device)
    seconds = []
    for _ in range(1 + _TIMED_STEPS):  # the first one warms up
        started = time.perf_counter()
        with autocast:
            loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:]) / batch
