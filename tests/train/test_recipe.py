"""Recipes and runs as plain data."""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import variant
from cmtscale.data.dataset import DataRef
from cmtscale.record.identity import identity
from cmtscale.train.recipe import Recipe, Run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs 0 is not a whole number from 1 on; use 1 or more"),
        ({"epochs": 1.5}, "epochs 1.5 is not a whole number"),
        ({"epochs": math.inf}, "epochs inf is not a whole number"),
        ({"epochs": True}, "epochs True is not a whole number"),
        ({"batch_size": -3}, "batch_size -3 is not a whole number"),
        ({"reference_dim": 0}, "reference_dim 0 is not a whole number"),
        ({"train_images": 0}, "train_images 0 is not a whole number from 1 on; use 1 or more"),
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
        ({"attention": "flash"}, "attention 'flash' is not one of auto, explicit, sdpa; use auto"),
        ({"flip": 1}, "flip 1 is neither true nor false"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_values_that_cannot_train_are_refused_in_one_line(changes, message):
    with pytest.raises(RequestError) as caught:
        Recipe(**changes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_limits_themselves_are_legal():
    Recipe(epochs=1, batch_size=1, train_images=1, weight_decay=0, warmup_fraction=0)
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
    "attention": "sdpa",
}


def test_every_field_of_the_recipe_decides_the_identity(make_run):
    run = replace(make_run(), recipe=Recipe())
    assert OTHER_RECIPE.keys() == {field.name for field in fields(Recipe)}
    identities = [
        replace(run, recipe=replace(run.recipe, **{name: value})).identity
        for name, value in OTHER_RECIPE.items()
    ]
    assert len({run.identity, *identities}) == len(OTHER_RECIPE) + 1


def test_variant_seed_and_images_decide_the_identity(make_run):
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
        replace(run, data=replace(data, content_hash="other images or splits")),
    ]
    assert len({run.identity, *(other.identity for other in others)}) == len(others) + 1


def test_neither_names_nor_folders_decide_the_identity(make_run, tmp_path):
    run = make_run()
    data = run.data
    for same in (
        replace(run, run_id="another name", data=replace(data, path=tmp_path)),
        replace(run, variant=replace(run.variant, name="another")),
    ):
        assert same.identity == run.identity


def test_identities_are_pinned(make_run):
    # If this fails, finished runs of users are trained again: give a new field of the recipe its
    # old meaning in record/identity.py instead of changing these.
    data = DataRef(path=Path("x"), content_hash="abc")
    run = replace(
        make_run(), data=data, recipe=Recipe(**OTHER_RECIPE)
    )  # independent of the defaults
    assert run.identity == "86df33badc5fe7e5"
    assert replace(run, seed=7, variant=variant("cmt-s")).identity == "b149ef43a6f082ce"


def test_a_field_whose_value_is_its_old_meaning_is_not_hashed(make_run):
    run = replace(make_run(), recipe=Recipe(flip=False, shift_fraction=0.0, dropout=0.0))
    fields_now = run.identity_fields()
    recipe = dict(fields_now["recipe"])
    for name in ("flip", "shift_fraction", "dropout", "drop_path", "attention"):
        assert identity({**fields_now, "recipe": recipe}) == run.identity
        del recipe[name]  # as if the field did not exist yet
    assert identity({**fields_now, "recipe": recipe}) == run.identity


def test_every_field_of_a_run_is_covered_by_the_identity_or_not():
    """A new field must be listed here and handled in `identity`."""
    assert {f.name for f in fields(Run)} == {"run_id", "variant", "recipe", "seed", "data"}
    assert {f.name for f in fields(DataRef)} == {"path", "content_hash"}
