"""Running statistics of BatchNorm that a short training can be scored with."""

from torch import nn

DECAY = 0.9  # PyTorch's momentum of 0.1: each step keeps that much of the running statistics


def set_momentum(model: nn.Module, step: int) -> None:
    """Before training step `step` (from 0): average the batches seen so far, nothing else.

    PyTorch starts running statistics at mean 0 and variance 1, and after n steps 0.9ⁿ of that is
    still in them, beside true variances of 0.01. With momentum 0.1 / (1 - 0.9ⁿ) at the n-th step
    they are (running - 0.9ⁿ·initial) / (1 - 0.9ⁿ) at every moment: the same weighted average
    without its initial value, as Adam corrects its moments (arXiv 1412.6980, section 3).
    """
    momentum = (1 - DECAY) / (1 - DECAY ** (step + 1))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum
