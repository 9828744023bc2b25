"""Parameter groups and the learning-rate schedule.

Width transfer, in one place: a hidden matrix, whose fan-in grows with the width, trains at
lr · reference_dim / dim 1 (the optimum for hidden matrices under Adam goes as 1/width: Yang et al.,
Tensor Programs V, arXiv 2203.03466). Everything else trains at lr: norms, biases, position biases,
depthwise convolutions, the first convolution (fan-in: the image) and the classifier (fan-in: 1280).
Weight decay acts on matrices only. Verified only as far as `results/` says: nothing is published on
lr transfer for networks with depthwise convolutions.
"""

from typing import Any

import torch
from torch import nn

from cmtscale.model.cmt import CMT
from cmtscale.train.recipe import Recipe


def make_optimizer(model: CMT, recipe: Recipe) -> torch.optim.AdamW:
    """Fused AdamW; each group carries its peak learning rate as `peak_lr`."""
    ends = {id(model.head.classifier.weight), id(_first_convolution(model).weight)}
    hidden, outer, vectors = [], [], []
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    for parameter in model.parameters():
        if id(parameter) not in matrices:
            vectors.append(parameter)
        elif id(parameter) in ends:
            outer.append(parameter)
        else:
            hidden.append(parameter)
    width_lr = recipe.lr * recipe.reference_dim / model.variant.dims[0]
    groups: list[dict[str, Any]] = [
        {"params": hidden, "peak_lr": width_lr, "weight_decay": recipe.weight_decay},
        {"params": outer, "peak_lr": recipe.lr, "weight_decay": recipe.weight_decay},
        {"params": vectors, "peak_lr": recipe.lr, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), fused=True)


def lr_factor(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Linear warm-up to 1, then linear decay that reaches 0 after the last step."""
    warmup_steps = round(warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (total_steps - step) / (total_steps - warmup_steps)


def _first_convolution(model: CMT) -> nn.Conv2d:
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d))
