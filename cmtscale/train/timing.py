"""How long a run will take: training steps of its network, timed here and now."""

import statistics
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from cmtscale.arch.variant import Variant
from cmtscale.data.batches import images_per_epoch
from cmtscale.model.cmt import CMT, build
from cmtscale.train.autocast import make_autocast
from cmtscale.train.batch_norm import ESTIMATION_IMAGES
from cmtscale.train.optimizer import make_optimizer
from cmtscale.train.recipe import Recipe

EVALUATION_SHARE = 1 / 3  # of a training step's cost per image: no backward pass
_LONG_STEP_SECONDS = 3.0  # a longer step is neither waited for nor given its memory
_TIMED_STEPS = 2
_FIRST_BATCH, _GROWTH = 2, 4
_PREDICTIONS, _PREDICTION_WARM_UP = 15, 3  # turns


def run_seconds(
    seconds_per_image: float, recipe: Recipe, *, train_images: int, val_images: int
) -> float:
    """Seconds of one run whose training steps take so long for each image.

    `train_images` are those of an epoch; after each epoch the `val_images` are evaluated, and
    BatchNorm's statistics estimated anew.
    """
    trained = images_per_epoch(train_images, recipe.batch_size)
    evaluated = val_images + min(ESTIMATION_IMAGES, train_images)
    return recipe.epochs * seconds_per_image * (trained + EVALUATION_SHARE * evaluated)


def part_done(
    images: int, ended_epochs: int, recipe: Recipe, *, train_images: int, val_images: int
) -> float:
    """The part of a run's work that is done after so many training images and evaluations."""
    whole = run_seconds(1.0, recipe, train_images=train_images, val_images=val_images)
    trained = recipe.epochs * images_per_epoch(train_images, recipe.batch_size)
    return min(1.0, (images + ended_epochs * (whole - trained) / recipe.epochs) / whole)


def seconds_per_image(variant: Variant, recipe: Recipe, *, batch: int, device: str) -> float:
    """Seconds of a training step per image, at `batch` images or as many as take 3 s.

    Raises `torch.OutOfMemoryError` where a step does not fit into a GPU's memory.
    """
    model = build(variant, attention=recipe.attention).to(device).train()
    optimizer = make_optimizer(model, recipe)
    size = min(_FIRST_BATCH, batch)
    _step_seconds(model, optimizer, recipe, size)  # the first one of a process loads libraries
    seconds = _step_seconds(model, optimizer, recipe, size)
    while size < batch:
        larger = min(_GROWTH * size, batch)
        if seconds * larger / size > _LONG_STEP_SECONDS:
            return seconds / size
        size, seconds = larger, _step_seconds(model, optimizer, recipe, larger)
    if seconds < _LONG_STEP_SECONDS:  # the first step of a size warms up
        seconds = min(_step_seconds(model, optimizer, recipe, batch) for _ in range(_TIMED_STEPS))
    return seconds / batch


def prediction_seconds(
    networks: Sequence[Variant], recipe: Recipe, *, device: str
) -> dict[str, float]:
    """Median seconds of a forward pass of one image, by name; the networks take turns.

    So that what else the machine does slows all of them alike.
    """
    place = torch.device(device)
    models = {n.name: build(n, attention=recipe.attention).to(place).eval() for n in networks}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode(), make_autocast(recipe, place):
        for turn in range(_PREDICTION_WARM_UP + _PREDICTIONS):
            for name, model in models.items():
                variant = model.variant
                side = variant.resolution_px
                image = torch.randn(1, variant.in_channels, side, side, device=place)
                started = time.perf_counter()
                model(image).sum().item()  # waits for the device
                if turn >= _PREDICTION_WARM_UP:
                    seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _step_seconds(
    model: CMT, optimizer: torch.optim.Optimizer, recipe: Recipe, batch: int
) -> float:
    variant, device = model.variant, model.head.classifier.weight.device
    side = variant.resolution_px
    images = torch.randn(batch, variant.in_channels, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    started = time.perf_counter()
    with make_autocast(recipe, device):
        loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
    optimizer.step()
    loss.item()  # waits for the device
    return time.perf_counter() - started
