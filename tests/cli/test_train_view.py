"""The bar of a training: of its work, the evaluations are part."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cmtscale.cli.train_view import TrainView, print_result
from cmtscale.record.result import RunResult
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


def test_without_a_plan_there_is_no_bar() -> None:
    shown: list[Any] = []
    view = TrainView(SimpleNamespace(show=lambda *words: shown.append(words)))  # type: ignore[arg-type]
    view.logged({"step": 1, "images": 32, "train_loss": 1.0, "seconds": 2.0})
    assert shown == []


def test_a_result_says_what_it_was_trained_in_for_want_of_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cause = "memory: batches of 32 in micro-batches of 8; BatchNorm saw 8 images at a time"
    scores = dict.fromkeys(("val_loss", "val_accuracy", "temperature", "images_per_second"), 0.5)
    whole, parted = (RunResult(status="complete", cause=words, **scores) for words in ("", cause))
    print_result(whole, None, folder=tmp_path, test=False)
    assert "memory" not in capsys.readouterr().out
    print_result(parted, None, folder=tmp_path, test=False)
    assert f"\n{cause}\n" in capsys.readouterr().out
    too_large = RunResult(status="infeasible", cause="memory: one image does not fit")
    print_result(too_large, None, folder=tmp_path, test=False)
    assert capsys.readouterr().out == (
        "infeasible: memory: one image does not fit\n"
        "the same command tries again; free GPU memory first, or use another --device\n"
    )
