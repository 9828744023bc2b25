"""How long a run will take: training steps of its network, timed here and now."""

import multiprocessing
import signal
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pebble import ProcessExpired, ProcessPool

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import Variant
from cmtscale.data.batches import images_per_epoch
from cmtscale.data.pack import Dataset
from cmtscale.model.cmt import CMT, build
from cmtscale.train.loop import make_autocast
from cmtscale.train.optimizer import make_optimizer
from cmtscale.train.recipe import Recipe

EVALUATION_SHARE = 1 / 3  # of a training step's cost per image: no backward pass
_TIMING_SECONDS = 15.0
_LONG_STEP_SECONDS = 3.0  # a longer step is neither waited for nor given its memory
_TIMED_STEPS = 2
_FIRST_BATCH, _GROWTH = 2, 4


def time_runs(
    networks: Sequence[Variant], recipe: Recipe, dataset: Dataset, device: str
) -> tuple[float, ...]:
    """Estimated seconds of one run of each network on one slot of `device`.

    Training steps are timed at the batch size of the runs, or at a smaller one if a step would take
    more than 3 s. Timing ends after 15 s; networks that it did not come to, or that do not fit into
    a GPU's memory, are estimated by their MACs. Raises `RequestError` if none fits.
    """
    train_images = recipe.train_images or len(dataset.splits.train)
    batch = min(recipe.batch_size, train_images)
    time_steps = _time_networks if device == "cpu" else _time_networks_elsewhere
    per_image = time_steps(networks, recipe, batch, device)
    images = recipe.epochs * images_per_epoch(train_images, recipe.batch_size)
    images_evaluated = recipe.epochs * len(dataset.splits.val)
    return tuple(s * (images + EVALUATION_SHARE * images_evaluated) for s in per_image)


def _time_networks_elsewhere(
    networks: Sequence[Variant], recipe: Recipe, batch: int, device: str
) -> list[float]:
    """`_time_networks` in a process of its own: what it holds of a GPU's memory ends with it."""
    pool = ProcessPool(
        max_workers=1,
        context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupts_to_the_parent,
    )
    try:
        future = pool.schedule(_time_networks, args=[networks, recipe, batch, device])
        per_image: list[float] = future.result()
        return per_image
    except ProcessExpired as error:
        raise RequestError(
            f"timing a training step ended with exit code {error.exitcode}; out of memory is the "
            f"usual reason, use a smaller batch size"
        ) from error
    finally:
        pool.stop()
        pool.join()


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _time_networks(
    networks: Sequence[Variant], recipe: Recipe, batch: int, device: str
) -> list[float]:
    """Seconds per image of each network's training steps."""
    macs = [cost(network).macs for network in networks]
    timed: dict[int, float] = {}
    began = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        _seconds_per_image(networks[0], recipe, min(_FIRST_BATCH, batch), device)  # loads libraries
        for index, network in enumerate(networks):
            if timed and time.perf_counter() - began > _TIMING_SECONDS:
                break
            try:
                timed[index] = _seconds_per_image(network, recipe, batch, device)
            except torch.OutOfMemoryError:
                continue  # its runs will say so
    finally:
        torch.set_num_threads(threads)
    if not timed:
        raise RequestError(
            f"{batch} images of no candidate fit into the memory of {device}; "
            f"use a smaller batch size"
        )
    per_mac = sum(timed.values()) / sum(macs[index] for index in timed)
    return [timed.get(index, per_mac * macs[index]) for index in range(len(networks))]


def _seconds_per_image(variant: Variant, recipe: Recipe, batch: int, device: str) -> float:
    """Seconds of a training step per image, at `batch` images or as many as take 3 s."""
    model = build(variant).to(device).train()
    optimizer = make_optimizer(model, recipe)
    autocast = make_autocast(recipe, torch.device(device))
    size = min(_FIRST_BATCH, batch)
    seconds = _step_seconds(model, optimizer, autocast, size)
    while size < batch:
        larger = min(_GROWTH * size, batch)
        if seconds * larger / size > _LONG_STEP_SECONDS:
            return seconds / size
        size, seconds = larger, _step_seconds(model, optimizer, autocast, larger)
    if seconds < _LONG_STEP_SECONDS:  # the first step of a size warms up
        seconds = min(_step_seconds(model, optimizer, autocast, batch) for _ in range(_TIMED_STEPS))
    return seconds / batch


def _step_seconds(
    model: CMT, optimizer: torch.optim.Optimizer, autocast: torch.autocast, batch: int
) -> float:
    variant, device = model.variant, model.head.classifier.weight.device
    side = variant.resolution_px
    images = torch.randn(batch, variant.in_channels, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    started = time.perf_counter()
    with autocast:
        loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    loss.item()  # waits for the device
    return time.perf_counter() - started
