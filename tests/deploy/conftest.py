"""A network that knows the digits, trained once, as the folder that `train` writes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset
from cmtscale.data.sources import open_source
from cmtscale.train.recipe import Recipe
from cmtscale.train.single import train_single


@pytest.fixture(scope="session")
def digits(cache_dir: Path) -> Dataset:
    return open_source("digits", cache_dir=cache_dir).pack(64)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Dataset, tiny_base: Variant) -> Path:
    """The folder of a training; treat it as read-only."""
    out = tmp_path_factory.mktemp("trained") / "out"
    with torch.random.fork_rng(devices=[]):
        train_single(
            replace(tiny_base, name="tiny"),
            Recipe(epochs=2, train_images=800),
            digits,
            seed=0,
            device="cpu",
            folder=out,
            source={"data": "digits", "split_seed": 0},
            test=True,
        )
    return out
