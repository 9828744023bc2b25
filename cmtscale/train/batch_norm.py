"""Running statistics of BatchNorm that a short training can be scored with.

While a network trains, its statistics average the batches seen so far without PyTorch's initial
value. Whenever it is scored they are estimated anew, as the average trails weights that still move
fast: at 50 to 400 steps that changes a loss by up to as much as two seeds differ
(`results/short-trainings`).
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cmtscale.data.batches import DeviceSplit, plain_batches
from cmtscale.model.cmt import CMT
from cmtscale.model.quiet_fvcore import update_bn_stats
from cmtscale.train.micro_batches import AtOnce
from cmtscale.train.recipe import ESTIMATION_IMAGES
from cmtscale.train.stop import CheckIn, never, stop_if_asked

DECAY = 0.9  # PyTorch's momentum of 0.1: each step keeps that much of the running statistics
ESTIMATION_BATCH, ESTIMATION_SEED = 128, 12345


def set_momentum(model: nn.Module, step: int) -> None:
    """Before training step `step` (from 0): average the batches seen so far, nothing else.

    PyTorch starts running statistics at mean 0 and variance 1, and after n steps 0.9ⁿ of that is
    still in them, beside true variances of 0.01. With momentum 0.1 / (1 - 0.9ⁿ) at the n-th step
    they are (running - 0.9ⁿ·initial) / (1 - 0.9ⁿ) at every moment: the same weighted average
    without its initial value, as Adam corrects its moments (arXiv 1412.6980, section 3). In
    micro-batches it acts once for each: still without the initial value, but reaching back fewer
    steps.
    """
    momentum = (1 - DECAY) / (1 - DECAY ** (step + 1))
    for norm in _norms(model):
        norm.momentum = momentum


def estimation_part(train_images: int) -> int:
    """How many images at once statistics are estimated from, where memory allows."""
    images = min(train_images, ESTIMATION_IMAGES)
    return math.ceil(images / math.ceil(images / ESTIMATION_BATCH))


def estimate_statistics(
    model: CMT,
    split: DeviceSplit,
    *,
    autocast: torch.autocast,
    at_once: AtOnce | None = None,
    check_in: CheckIn = never,
) -> None:
    """Replace the running statistics by those of the network as it is now (arXiv 2105.07576).

    Over at most 1,536 training images, always the same ones of a `split`, without augmentation;
    population variance. In parts of no more than `ESTIMATION_BATCH` images, nor than `at_once`: the
    numbers depend on it, as a layer sees the one before normalised over a part. Leaves `model` in
    eval mode and draws from no generator of the training.
    """
    generator = torch.Generator().manual_seed(ESTIMATION_SEED)
    rows = torch.randperm(len(split), generator=generator)[:ESTIMATION_IMAGES]
    parts = rows.to(split.labels.device).split(estimation_part(len(split)))
    if at_once is not None:
        parts = tuple(smaller for part in parts for smaller in at_once.parts(part))
    batches = plain_batches(split, parts, resolution_px=model.variant.resolution_px)

    def images_of_parts() -> Iterator[Tensor]:
        for images, _ in batches:
            yield images
            stop_if_asked(check_in)

    update_statistics(model, images_of_parts(), len(parts), autocast=autocast)


def update_statistics(
    model: nn.Module, batches: Iterator[Tensor], count: int, *, autocast: torch.autocast
) -> None:
    """Replace running statistics by those over `count` batches of images, in eval mode otherwise.

    Layers whose parameters do not train keep theirs. Leaves `model` in eval mode.
    """
    model.eval()
    for norm in _norms(model):
        norm.train(norm.weight is None or norm.weight.requires_grad)
    try:
        with autocast:
            update_bn_stats(model, batches, num_iters=count)
    except Exception:
        for norm in _norms(model):  # fvcore's hooks are left over, and fail in the next pass
            norm._forward_pre_hooks.clear()
        raise
    model.eval()


def _norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
