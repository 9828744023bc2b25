"""How long a training step and a prediction take, timed here and now."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from cmtscale.arch.variant import Variant
from cmtscale.model.cmt import CMT, build
from cmtscale.train.autocast import make_autocast
from cmtscale.train.micro_batches import AtOnce, fewest_in_training, halved_until_it_fits
from cmtscale.train.optimizer import make_optimizer
from cmtscale.train.out_of_memory import give_back, may_fit_when_smaller
from cmtscale.train.recipe import Recipe
from cmtscale.train.stop import CheckIn, never, stop_if_asked

_LONG_STEP_SECONDS = 3.0  # a longer step is neither waited for nor given its memory
_TIMED_STEPS = 2
_FIRST_BATCH, _GROWTH = 2, 4
_GPU_WARM_UP = 4  # steps: kernels are loaded as they are first used, for seconds on a busy machine
_PREDICTIONS, _PREDICTION_WARM_UP = 15, 3  # turns


def seconds_per_image(
    variant: Variant, recipe: Recipe, *, batch: int, device: str, check_in: CheckIn = never
) -> float:
    """Seconds of a training step per image, at `batch` images or on a CPU as many as take 3 s.

    Where a GPU's memory is too small, at as many images as fit after halvings. Raises
    `torch.OutOfMemoryError` where one image does not fit.
    """
    at_once = AtOnce(images=batch, fewest=fewest_in_training(variant))

    def attempt() -> float:
        return _seconds_per_image(
            variant, recipe, batch=at_once.images, device=device, check_in=check_in
        )

    return halved_until_it_fits(attempt, at_once)


def images_per_second(
    variant: Variant,
    recipe: Recipe,
    *,
    batch: int,
    device: str,
    seconds: float,
    check_in: CheckIn = never,
) -> float:
    """Images a second of training steps, counted for `seconds` and for no fewer than two steps.

    It trains a third of that longer before and after, in which others that are counted at the same
    time begin and end. Raises `torch.OutOfMemoryError` where a whole batch does not fit.
    """
    model = build(variant, attention=recipe.attention).to(device).train()
    optimizer = make_optimizer(model, recipe)
    began = time.perf_counter()
    start, end = seconds / 3, seconds / 3 + seconds
    ended: list[float] = []  # when each step did
    while len(ended) < _TIMED_STEPS or ended[-1] < end + start:
        stop_if_asked(check_in)
        _step_seconds(model, optimizer, recipe, batch)
        ended.append(time.perf_counter() - began)
    counted = [moment for moment in ended if start <= moment <= end]
    if len(counted) < _TIMED_STEPS:  # they are long
        counted = ended
    return batch * (len(counted) - 1) / (counted[-1] - counted[0])


def prediction_seconds(
    networks: Sequence[Variant], recipe: Recipe, *, device: str, check_in: CheckIn = never
) -> dict[str, float]:
    """Median seconds of a forward pass of one image, by name; the networks take turns.

    So that what else the machine does slows all of them alike. Those that do not fit into the
    memory beside the others are left out.
    """
    torch_device = torch.device(device)
    models: dict[str, CMT] = {}
    for network in networks:
        with _left_out_without_memory(models, network.name):
            model = build(network, attention=recipe.attention)
            models[network.name] = model.to(torch_device).eval()
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode(), make_autocast(recipe, torch_device):
        for turn in range(_PREDICTION_WARM_UP + _PREDICTIONS):
            for name in list(models):
                with _left_out_without_memory(models, name):
                    taken = _pass_seconds(models[name], torch_device)
                    if turn >= _PREDICTION_WARM_UP:
                        seconds[name].append(taken)
                stop_if_asked(check_in)
    return {name: statistics.median(seconds[name]) for name in models}


@contextmanager
def _left_out_without_memory(models: dict[str, CMT], name: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not may_fit_when_smaller(error):
            raise
        models.pop(name, None)
        give_back(error)


def _pass_seconds(model: CMT, device: torch.device) -> float:
    variant = model.variant
    side = variant.resolution_px
    image = torch.randn(1, variant.in_channels, side, side, device=device)
    started = time.perf_counter()
    model(image).sum().item()  # waits for the device
    return time.perf_counter() - started


def _seconds_per_image(
    variant: Variant, recipe: Recipe, *, batch: int, device: str, check_in: CheckIn
) -> float:
    model = build(variant, attention=recipe.attention).to(device).train()
    optimizer = make_optimizer(model, recipe)
    on_gpu = torch.device(device).type != "cpu"
    size = batch if on_gpu else min(_FIRST_BATCH, batch)  # a GPU's small batches take as long

    def step_seconds(images: int) -> float:
        stop_if_asked(check_in)
        return _step_seconds(model, optimizer, recipe, images)

    for _ in range(_GPU_WARM_UP if on_gpu else 1):  # the first one of a process loads libraries
        step_seconds(size)
    seconds = step_seconds(size)
    while size < batch:
        larger = min(_GROWTH * size, batch)
        if seconds * larger / size > _LONG_STEP_SECONDS:
            return seconds / size
        size, seconds = larger, step_seconds(larger)
    if seconds < _LONG_STEP_SECONDS:  # the first step of a size warms up
        seconds = min(step_seconds(batch) for _ in range(_TIMED_STEPS))
    return seconds / batch


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
