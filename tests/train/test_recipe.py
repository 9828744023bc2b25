"""Recipes, runs and results as plain data."""

import math
from dataclasses import fields, replace

import pytest

from cmtscale.spec.errors import RequestError
from cmtscale.train.recipe import DataRef, Recipe, Run, RunResult, read_result


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs 0 is not a whole number from 1 on; use 1 or more"),
        ({"epochs": 1.5}, "epochs 1.5 is not a whole number"),
        ({"epochs": math.inf}, "epochs inf is not a whole number"),
        ({"epochs": True}, "epochs True is not a whole number"),
        ({"batch_size": -3}, "batch_size -3 is not a whole number"),
        ({"reference_dim": 0}, "reference_dim 0 is not a whole number"),
        ({"train_images": -1}, "train_images -1 is not a whole number from 0 on; use 0 for all"),
        ({"lr": 0}, "lr 0 is out of range; use e.g. 0.002"),
        ({"lr": math.nan}, "lr nan is out of range"),
        ({"lr": math.inf}, "lr inf is out of range"),
        ({"lr": "fast"}, "lr 'fast' is out of range"),
        ({"weight_decay": -0.1}, "weight_decay -0.1 is out of range; use e.g. 0.05"),
        ({"clip_norm": 0.0}, "clip_norm 0.0 is out of range; use e.g. 1.0"),
        ({"warmup_fraction": 1.0}, "warmup_fraction 1.0 is out of range; use a fraction"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1 is out of range"),
        ({"drop_path": 1}, "drop_path 1 is out of range"),
        ({"dropout": 2}, "dropout 2 is out of range"),
        ({"beta1": 1.0}, "beta1 1.0 is out of range"),
        ({"beta2": math.nan}, "beta2 nan is out of range"),
        ({"shift_fraction": 0.6}, "shift_fraction 0.6 is out of range; use a fraction up to 0.5"),
        ({"precision": "fp16"}, "precision 'fp16' is not one of auto, fp32, bf16; use auto"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_values_that_cannot_train_are_refused_in_one_line(changes, message):
    with pytest.raises(RequestError) as caught:
        Recipe(**changes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_limits_themselves_are_legal():
    Recipe(epochs=1, batch_size=1, train_images=0, weight_decay=0, warmup_fraction=0)
    Recipe(clip_norm=math.inf, shift_fraction=0, label_smoothing=0.0, beta1=0.0)


OTHER_RECIPE = {
    "epochs": 11,
    "train_images": 7,
    "batch_size": 127,
    "lr": 2.1e-3,
    "reference_dim": 17,
    "warmup_fraction": 0.2,
    "weight_decay": 0.0,
    "beta1": 0.8,
    "beta2": 0.99,
    "label_smoothing": 0.0,
    "clip_norm": 2.0,
    "flip": False,
    "shift_fraction": 0.0,
    "drop_path": 0.1,
    "dropout": 0.1,
    "precision": "bf16",
}


def test_every_field_of_the_recipe_decides_the_fingerprint(make_run):
    run = replace(make_run(), recipe=Recipe())
    assert OTHER_RECIPE.keys() == {field.name for field in fields(Recipe)}
    prints = [
        replace(run, recipe=replace(run.recipe, **{name: value})).fingerprint
        for name, value in OTHER_RECIPE.items()
    ]
    assert len({run.fingerprint, *prints}) == len(OTHER_RECIPE) + 1


def test_variant_seed_and_images_decide_the_fingerprint(make_run):
    run = make_run()
    variant, data = run.variant, run.data
    deeper = replace(variant.stages[2], depth=2)
    others = [
        replace(run, seed=1),
        replace(run, variant=replace(variant, resolution_px=64)),
        replace(run, variant=replace(variant, stem_channels=8)),
        replace(run, variant=replace(variant, num_classes=11)),
        replace(run, variant=replace(variant, in_channels=3)),
        replace(
            run, variant=replace(variant, stages=(*variant.stages[:2], deeper, variant.stages[3]))
        ),
        replace(run, data=replace(data, source="fashion-mnist")),
        replace(run, data=replace(data, resolution_px=64)),
        replace(run, data=replace(data, split_seed=1)),
        replace(run, data=replace(data, content_hash="other images")),
    ]
    assert len({run.fingerprint, *(other.fingerprint for other in others)}) == len(others) + 1


def test_neither_the_runs_name_nor_the_cache_decides_the_fingerprint(make_run, tmp_path):
    run = make_run()
    moved = replace(run, run_id="r2-c17-s0", data=replace(run.data, cache_dir=tmp_path))
    assert moved.fingerprint == run.fingerprint
    nowhere = replace(run, data=replace(run.data, cache_dir=None))
    assert nowhere.fingerprint == run.fingerprint


def test_every_field_of_a_run_is_known_to_the_fingerprint():
    """A field added later must be put on one side or the other, here and in `fingerprint`."""
    assert {f.name for f in fields(Run)} == {"run_id", "variant", "recipe", "seed", "data"}
    assert {f.name for f in fields(DataRef)} == {
        "source",
        "resolution_px",
        "split_seed",
        "content_hash",
        "cache_dir",
    }


COMPLETE = RunResult(
    status="complete",
    val_loss=0.1 + 0.2,
    val_loss_raw=1 / 3,
    val_accuracy=0.9,
    temperature=0.7,
    train_loss=0.5,
    images_per_second=1234.5,
    seconds=12.25,
)
DIVERGED = RunResult(status="diverged", cause="loss not finite at step 5 of 6 – “ü”", seconds=1.0)


@pytest.mark.parametrize("result", [COMPLETE, DIVERGED, RunResult(status="failed")])
def test_a_result_is_read_back_exactly(result, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(result.to_json("abc"))
    assert read_result(path, "abc") == result


@pytest.mark.parametrize(
    "text",
    [
        "",
        COMPLETE.to_json("abc")[:-20],
        COMPLETE.to_json("of another run"),
        "[]",
        "[1, 2]",
        "null",
        '"abc"',
        "{}",
        '{"fingerprint": "abc"}',
        '{"fingerprint": "abc", "status": "complete", "of_a_later_version": 1}',
    ],
)
def test_a_torn_or_foreign_result_is_none(text, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(text)
    assert read_result(path, "abc") is None


def test_a_result_that_is_missing_or_no_text_is_none(tmp_path):
    path = tmp_path / "result.json"
    assert read_result(path, "abc") is None
    path.write_bytes(b"\xff\xfe\x00")
    assert read_result(path, "abc") is None
    assert read_result(tmp_path, "abc") is None
