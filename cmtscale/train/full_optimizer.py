"""AdamW, the cosine schedule and averaged weights, as a full recipe says; of timm's parts."""

from typing import Any

import torch
from torch import nn

from cmtscale.train.full_recipe import FullRecipe

# With timm's warm-up the average at step t spans t^0.75 steps, up to 1 / (1 - decay). Without it a
# training shorter than that would be scored with its initial weights; the paper's lengths reach
# their decay, or nearly (CMT-S: 15,000 of 25,000 steps).
EMA_POWER = 0.75


def make_full_optimizer(
    network: nn.Module, recipe: FullRecipe, *, peak_lr: float
) -> torch.optim.Optimizer:
    """AdamW on the parameters that train.

    Weight decay acts on tensors of two or more dimensions, position biases excepted.
    """
    from timm.optim._optim_factory import create_optimizer_v2

    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        network,
        opt="adamw",
        lr=peak_lr,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        betas=(recipe.beta1, recipe.beta2),
        fused=True,
    )
    return optimizer


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: FullRecipe, *, peak_lr: float, steps_per_epoch: int
) -> Any:
    """timm's cosine schedule; `step_update(n)` sets the learning rate of step n, from 0.

    It moves with each step, where DeiT's moves with each epoch. Ends are kept below the peak, which
    small batches lower.
    """
    from timm.scheduler.cosine_lr import CosineLRScheduler

    return CosineLRScheduler(
        optimizer,
        t_initial=recipe.epochs * steps_per_epoch,
        lr_min=min(recipe.min_lr, peak_lr),
        warmup_t=round(recipe.warmup_epochs * steps_per_epoch),
        warmup_lr_init=min(recipe.warmup_lr, peak_lr),
        t_in_epochs=False,
    )


def make_ema(network: nn.Module, recipe: FullRecipe) -> Any:
    """timm's moving average of the weights, or None where the recipe has none."""
    if recipe.ema_decay is None:
        return None
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True, warmup_power=EMA_POWER)
