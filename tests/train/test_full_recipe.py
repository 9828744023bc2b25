"""The full recipe: what cannot train is refused in one line, and TOML holds all of it."""

import math
from dataclasses import fields, replace

import pytest
import tomli_w

from cmtscale.arch import paper
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import published_variants, variant
from cmtscale.train.full_recipe import FullRecipe, read_recipe, recipe_table
from cmtscale.train.paper_recipe import paper_recipe, published_recipe, with_epochs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs 0 is not a whole number from 1 on"),
        ({"batch_size": 2.5}, "batch_size 2.5 is not a whole number"),
        ({"lr": 0}, "lr 0 is out of range"),
        ({"lr": math.nan}, "lr nan is out of range"),
        ({"warmup_epochs": 300}, "warmup_epochs 300 leave nothing of 300 epochs"),
        ({"drop_path": 1.0}, "drop_path 1.0 is out of range"),
        ({"mix_probability": 1.5}, "mix_probability 1.5 is out of range"),
        ({"smallest_crop": 0}, "smallest_crop 0 is out of range"),
        ({"crop_fraction": 1.1}, "crop_fraction 1.1 is out of range"),
        ({"ema_decay": 1.0}, "ema_decay 1.0 is out of range; leave it away for none"),
        ({"layer_decay": 1.5}, "layer_decay 1.5 is out of range"),
        ({"clip_norm": 0}, "clip_norm 0 is out of range"),
        ({"flip": 1}, "flip 1 is neither true nor false"),
        ({"precision": "fp8"}, "precision 'fp8' is not one of auto, fp32, bf16, fp16"),
        ({"rand_augment": "rand-x9"}, "rand_augment 'rand-x9' is not timm's notation"),
        ({"rand_augment": "m9"}, "is not timm's notation"),
        ({"accumulate": 5000}, "accumulate 5000 parts a batch of 1024 images"),
        ({"checkpoint_seconds": 0}, "checkpoint_seconds 0 is out of range"),
    ],
)
def test_values_that_cannot_train_are_refused(changes, message):
    with pytest.raises(RequestError, match=message) as caught:
        replace(published_recipe("cmt-s"), **changes)
    assert "\n" not in str(caught.value)


def test_half_precision_is_refused_where_gradients_cannot_be_scaled():
    recipe = replace(published_recipe("cmt-s"), precision="fp16")
    assert recipe.precision_on("cuda") == "fp16"
    with pytest.raises(RequestError, match="fp16 needs a CUDA device"):
        recipe.precision_on("cpu")


@pytest.mark.parametrize("name", paper.TRAININGS)
def test_a_recipe_survives_toml(name, tmp_path):
    recipe = replace(published_recipe(name), rand_augment=None, clip_norm=5.0)
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.to_toml())
    assert read_recipe(path) == recipe
    assert recipe_table(recipe).keys() == {field.name for field in fields(FullRecipe)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "is not valid TOML"),
        ("epochs = 3", "lacks batch_size, lr, .*is complete"),
        ("label_smooth = 0.1", "unknown 'label_smooth'; did you mean 'label_smoothing'"),
        ("epoch = 5", "unknown 'epoch'; did you mean 'epochs'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_file_with_an_illegal_value_names_itself(tmp_path):
    table = recipe_table(published_recipe("cmt-s"))
    path = tmp_path / "x.toml"
    for name, value in (("lr", "none"), ("drop_path", 2.0), ("mixup", "a lot")):
        path.write_text(tomli_w.dumps({**table, name: value}))
        with pytest.raises(RequestError, match=rf"x\.toml: {name} .* is out of range"):
            read_recipe(path)
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "nowhere.toml")


def test_the_paper_trains_its_variants_as_published():
    small, tiny = published_recipe("cmt-s"), published_recipe("cmt-ti")
    assert (small.epochs, small.batch_size, small.ema_decay) == (300, 1024, 0.99996)
    assert (tiny.epochs, tiny.batch_size, tiny.ema_decay) == (800, 2048, None)
    assert small.peak_lr(1024) == pytest.approx(2 * 5e-4)
    assert small.rand_augment == "rand-m9-mstd0.5-inc1"
    assert (small.mixup, small.cutmix, small.label_smoothing) == (0.8, 1.0, 0.1)
    assert (small.random_erasing, small.repeats, small.clip_norm) == (0.25, 3, None)
    assert small.crop_fraction == 224 / 256
    for network in published_variants():
        asked = paper_recipe(network, cost(network).macs)
        assert (asked.variant, asked.is_own) == (network.name, True)


def test_another_network_gets_the_recipe_of_the_nearest_in_cost():
    narrow = replace(variant("cmt-s"), name="mine", stem_channels=30)
    for macs, expected in ((0.3e9, "cmt-ti"), (1.2e9, "cmt-xs"), (5e9, "cmt-s"), (20e9, "cmt-b")):
        asked = paper_recipe(narrow, int(macs))
        assert (asked.variant, asked.is_own) == (expected, False)
        assert asked.recipe == published_recipe(expected)


def test_a_published_variant_at_another_side_keeps_its_recipe():
    large = replace(variant("cmt-s"), name="large", resolution_px=384, num_classes=10)
    asked = paper_recipe(large, cost(large).macs)
    assert (asked.variant, asked.is_own) == ("cmt-s", True)


def test_a_shorter_training_warms_up_for_the_same_part_of_it():
    short = with_epochs(published_recipe("cmt-s"), 30)
    assert (short.epochs, short.warmup_epochs) == (30, pytest.approx(2.0))
