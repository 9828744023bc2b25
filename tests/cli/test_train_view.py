"""The bar of a training: of its work, the evaluations are part."""

from types import SimpleNamespace
from typing import Any

import pytest

from cmtscale.cli.train_view import TrainView
from cmtscale.train.recipe import Recipe
from cmtscale.train.run_time import part_done


@pytest.mark.parametrize(
    ("images", "ended_epochs"), [(32, 0), (64, 0), (96, 1), (64 * 250, 249), (64 * 250 + 32, 250)]
)
def test_an_epoch_has_ended_when_the_next_one_trains(images: int, ended_epochs: int) -> None:
    recipe = Recipe(epochs=300, batch_size=32)
    shown: list[Any] = []
    view = TrainView(SimpleNamespace(show=lambda parts, _: shown.append(parts)))  # type: ignore[arg-type]
    dataset = SimpleNamespace(splits=SimpleNamespace(val=range(20)))
    run = SimpleNamespace(recipe=recipe)
    plan: Any = SimpleNamespace(run=run, dataset=dataset, epoch_images=64)
    view.plan = plan
    view.logged({"step": 1, "images": images, "train_loss": 1.0, "seconds": 2.0})
    ((name, part),) = shown[0]
    assert name == "training"
    expected = part_done(images, ended_epochs, recipe, train_images=64, val_images=20)
    assert part == pytest.approx(expected)
