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
from cmtscale.spec.solve import Solution
from cmtscale.spec.variant import Variant
from cmtscale.train.loop import make_autocast, training_indices
from cmtscale.train.optimizer import make_optimizer
from cmtscale.train.recipe import Recipe

START_SECONDS = 6.0  # a worker's imports, once per worker
EVALUATION_SHARE = 1 / 3  # of a training step's cost per image: no backward pass
_TIMED_BATCH, _TIMED_STEPS = 16, 2


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
    paper: Solution


def time_runs(
    networks: Sequence[Variant], recipe: Recipe, dataset: Dataset, device: str
) -> tuple[float, ...]:
    """Estimated seconds of one run of each network on one slot of `device`."""
    images = recipe.epochs * len(training_indices(dataset, recipe))
    images_evaluated = recipe.epochs * len(dataset.splits.val)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        per_image = [_seconds_per_image(v, recipe, torch.device(device)) for v in networks]
    finally:
        torch.set_num_threads(threads)
    return tuple(s * (images + EVALUATION_SHARE * images_evaluated) for s in per_image)


def _seconds_per_image(variant: Variant, recipe: Recipe, device: torch.device) -> float:
    model = build(variant).to(device).train()
    optimizer = make_optimizer(model, recipe)
    side = variant.resolution_px
    images = torch.randn(_TIMED_BATCH, variant.in_channels, side, side, device=device)
    labels = torch.zeros(_TIMED_BATCH, dtype=torch.long, device=device)
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
    return min(seconds[1:]) / _TIMED_BATCH
