"""A network small enough to train in under a second on the bundled digits."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cmtscale.arch.variant import Stage, Variant
from cmtscale.data.dataset import DataRef, Dataset
from cmtscale.data.sources import open_source
from cmtscale.data.splits import Splits
from cmtscale.data.stream import ImageSet, packed_images
from cmtscale.train.full import train_full
from cmtscale.train.full_recipe import FullRecipe
from cmtscale.train.full_request import FullRequest
from cmtscale.train.paper_recipe import published_recipe
from cmtscale.train.recipe import Recipe, Run

MakeVariant = Callable[..., Variant]
MakeRun = Callable[..., Run]
TrainFull = Callable[..., tuple[object, float | None]]


@pytest.fixture(scope="session")
def digits(cache_dir: Path) -> Dataset:
    return open_source("digits", cache_dir=cache_dir).pack(32)


@pytest.fixture(scope="session")
def digits_ref(digits: Dataset) -> DataRef:
    return digits.ref


@pytest.fixture(scope="session")
def make_variant() -> MakeVariant:
    """A CMT at 32 px of one block per stage, `dim1` wide; other arguments are a variant's."""

    def make(dim1: int = 4, **changes) -> Variant:
        stages = [
            Stage(dim=dim1 * width, depth=1, heads=heads, reduction=reduction, expansion=2.0)
            for width, heads, reduction in ((1, 1, 8), (2, 2, 4), (4, 2, 2), (8, 4, 1))
        ]
        tiny = Variant(
            name="tiny",
            resolution_px=32,
            stem_channels=dim1,
            stages=(stages[0], stages[1], stages[2], stages[3]),
            num_classes=10,
            in_channels=1,
        )
        return replace(tiny, **changes)

    return make


@pytest.fixture(scope="session")
def make_run(digits_ref: DataRef, make_variant: MakeVariant) -> MakeRun:
    """A run of two epochs of three steps on 60 digits; the arguments are a recipe's."""

    def make(*, variant: Variant | None = None, seed: int = 0, **recipe) -> Run:
        return Run(
            run_id="r",
            variant=variant or make_variant(),
            recipe=Recipe(**{"epochs": 2, "train_images": 60, "batch_size": 20, **recipe}),
            seed=seed,
            data=digits_ref,
        )

    return make


@pytest.fixture(scope="session")
def few_digits(digits: Dataset) -> ImageSet:
    """100 digits to train on, and 40 each to validate and test."""
    parts = digits.splits
    splits = Splits(train=parts.train[:100], val=parts.val[:40], test=parts.test[:40])
    return replace(packed_images(digits), splits=splits)


@pytest.fixture(scope="session")
def full_recipe() -> FullRecipe:
    """All of the paper's augmentation and averaged weights, in two epochs of three steps."""
    return replace(
        published_recipe("cmt-xs"), epochs=2, batch_size=32, lr=0.02, warmup_epochs=0.5, repeats=2
    )


@pytest.fixture
def full(few_digits: ImageSet, full_recipe: FullRecipe, make_variant: MakeVariant) -> TrainFull:
    """Train the tiny variant fully in a folder; the arguments override the request's."""

    def call(folder: Path, *, watch=None, planned=None, **changes):
        request = FullRequest(
            **{
                "network": make_variant(num_classes=1000, in_channels=3),
                "recipe": full_recipe,
                "recipe_name": "paper",
                "image_set": few_digits,
                "source": {"data": "digits", "split_seed": 0},
                "seed": 0,
                "folder": folder,
                "device": "cpu",
                **changes,
            }
        )
        return train_full(request, watch=watch, planned=planned)

    return call


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _random_state_of_the_caller() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield
