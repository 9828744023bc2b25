"""What can be said of a full training, and refused, before anything is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CmtscaleError
from cmtscale.arch.network import TimmNetwork
from cmtscale.arch.variant import Variant, variant
from cmtscale.data.stream import ImageSet
from cmtscale.train.full import plan_full, train_full
from cmtscale.train.full_recipe import FullRecipe
from cmtscale.train.full_request import FullRequest
from cmtscale.train.named_recipe import RecipeChanges, named_recipe, recipe_at
from cmtscale.train.paper_recipe import published_recipe


@pytest.fixture
def request_full(
    tmp_path: Path,
    few_digits: ImageSet,
    full_recipe: FullRecipe,
    make_variant: Callable[..., Variant],
) -> Callable[..., FullRequest]:
    def make(**changes: Any) -> FullRequest:
        values: dict[str, Any] = {
            "network": make_variant(),
            "recipe": full_recipe,
            "recipe_name": "paper",
            "image_set": few_digits,
            "source": {"data": "digits", "split_seed": 0},
            "seed": 0,
            "folder": tmp_path / "out",
            "device": "cpu",
        }
        return FullRequest(**{**values, **changes})

    return make


def test_a_plan_is_that_of_the_training_and_writes_nothing(
    request_full: Callable[..., FullRequest], tmp_path: Path
) -> None:
    plans: list[Any] = []
    planned = plan_full(request_full())
    assert not any(tmp_path.iterdir())
    train_full(request_full(), planned=plans.append)
    assert plans == [planned]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": TimmNetwork(model="vgg11", resolution_px=32)}, "cannot be built with drop_"),
        (
            {
                "network": TimmNetwork(model="inception_v3", resolution_px=32),
                "recipe": replace(published_recipe("cmt-s"), drop_path=0),
            },
            "cannot be counted at 32 px",
        ),
        ({"recipe": replace(published_recipe("cmt-s"), batch_size=33)}, "batch_size 33 cannot"),
        ({"recipe": replace(published_recipe("cmt-s"), precision="fp16")}, "needs a CUDA device"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_the_plan(
    request_full: Callable[..., FullRequest], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CmtscaleError, match=message):
        plan_full(request_full(**changes))


def test_a_recipe_is_the_paper_s_by_the_network_or_by_its_macs_or_a_file(tmp_path: Path) -> None:
    small = variant("cmt-s")
    own = named_recipe("paper", small)
    near = recipe_at("paper", round(1.1 * cost(small).macs))
    assert own.recipe == near.recipe == published_recipe("cmt-s")
    assert (own.words, near.words) == (
        "the paper's recipe for cmt-s",
        "the paper's recipe for cmt-s, the nearest in MACs",
    )
    path = tmp_path / "mine.toml"
    path.write_text(replace(own.recipe, lr=0.01).to_toml())
    mine = named_recipe(str(path), small).changed(RecipeChanges(epochs=14))
    assert (mine.recipe.lr, mine.recipe.epochs, mine.name) == (0.01, 14, "mine.toml")
    assert mine.recipe.warmup_epochs / 14 == own.recipe.warmup_epochs / own.recipe.epochs
    assert recipe_at(str(path), 1).changed(RecipeChanges(epochs=14, lr=None)) == mine
    assert mine.changed(RecipeChanges(accumulate=4)).recipe == replace(mine.recipe, accumulate=4)
