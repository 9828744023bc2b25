"""Random numbers that depend on what they are for, not on what was drawn before.

A draw is named by whole numbers: the run's seed, what it is for, and where in the training. So a
training goes on after any step without the state of a generator, and neither the number of loader
workers nor that of processes changes what is drawn.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What is drawn; the numbers are part of every training's result."""

    ORDER = 0  # of an epoch
    SAMPLE = 1  # augmentation of an image: epoch, position in its order
    MIX = 2  # mixup of a part of a batch: step, part
    FORWARD = 3  # dropout and drop path: step, part
    SUBSET = 4  # images that stand for all


def derived_seed(seed: int, purpose: Purpose, *where: int) -> int:
    """A seed of 32 bits from the names of a draw."""
    return int(np.random.SeedSequence([seed, purpose, *where]).generate_state(1)[0])


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Python's, numpy's and torch's generators of this process begin with `seed`, for a while.

    Those that augmentation draws from; on leaving they are as they were before. Generators of GPUs
    are left alone.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
