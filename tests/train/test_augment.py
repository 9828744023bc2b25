"""Augmentation of every kind of image, and mixing of batches, drawn by name."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cmtscale.data.draws import Purpose, derived_seed, drawing
from cmtscale.record.model_folder import Preprocessing
from cmtscale.train.augment import Mix, make_augment
from cmtscale.train.paper_recipe import published_recipe

RECIPE = published_recipe("cmt-s")
PLAIN = replace(
    RECIPE, rand_augment=None, colour_jitter=0, random_erasing=0, smallest_crop=1.0, mixup=0
)


def preprocessing(channels):
    return Preprocessing(
        channels=channels,
        resolution_px=64,
        stored_px=28,
        crop_fraction=0.875,
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
    )


def noise(channels, side=28):
    pixels = np.random.RandomState(0).randint(0, 256, (side, side, channels)).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rand_augment", ["rand-m9-mstd0.5-inc1", "rand-m10-n3-p1.0-inc1", None])
def test_grey_and_coloured_small_images_are_augmented(channels, rand_augment):
    recipe = replace(RECIPE, rand_augment=rand_augment)
    augment = make_augment(recipe, preprocessing(channels), may_flip=True)
    outcomes = []
    for seed in range(60):  # every operation of RandAugment, at its ends too
        with drawing(seed):
            outcomes.append(augment(noise(channels)))
    assert {outcome.shape for outcome in outcomes} == {(channels, 64, 64)}
    assert all(torch.isfinite(outcome).all() for outcome in outcomes)
    assert not torch.equal(outcomes[0], outcomes[1])
    with drawing(0):
        assert torch.equal(augment(noise(channels)), outcomes[0])


@pytest.mark.parametrize("recipe", [PLAIN, replace(PLAIN, flip=False)])
def test_images_are_mirrored_only_where_recipe_and_data_allow_it(recipe):
    left = Image.fromarray(np.tile(np.arange(28, dtype=np.uint8) * 9, (28, 1)))
    for may_flip in (True, False):
        augment = make_augment(recipe, preprocessing(1), may_flip=may_flip)
        slopes = set()
        for seed in range(20):
            with drawing(seed):
                row = augment(left)[0, 32]
            slopes.add(bool(row[-1] > row[0]))
        assert slopes == ({True, False} if may_flip and recipe.flip else {True})


def test_drawing_leaves_every_generator_as_it_was():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with drawing(7):
        inside = random.random(), np.random.rand(), float(torch.rand(()))
    assert (random.random(), np.random.rand(), torch.rand(())) == expected
    with drawing(7):
        assert (random.random(), np.random.rand(), float(torch.rand(()))) == inside


def test_draws_of_other_names_have_other_seeds():
    seeds = {
        derived_seed(seed, purpose, step, part)
        for seed in range(3)
        for purpose in Purpose
        for step in range(20)
        for part in range(4)
    }
    assert len(seeds) == 3 * len(Purpose) * 20 * 4


def test_mixed_batches_have_targets_that_sum_to_one_and_depend_on_the_seed():
    mix = Mix(RECIPE, 10)
    images, labels = torch.randn(8, 1, 16, 16), torch.arange(8)
    mixed = [mix.mixed(images.clone(), labels, seed=seed) for seed in (0, 0, 1)]
    for pixels, targets in mixed:
        assert pixels.shape == images.shape
        torch.testing.assert_close(targets.sum(1), torch.ones(8))
    assert torch.equal(mixed[0][0], mixed[1][0])
    assert not torch.equal(mixed[0][0], mixed[2][0])


def test_without_mixing_the_loss_smooths_labels_as_mixing_does():
    logits, labels = torch.randn(6, 10), torch.arange(6)
    plain = Mix(replace(RECIPE, mix_probability=0.0), 10)
    images = torch.zeros(6, 1, 4, 4)
    assert torch.equal(plain.mixed(images, labels, seed=0)[1], labels)
    mixing = Mix(replace(RECIPE, mixup=1e-9, cutmix=0.0), 10)  # parts of 1 and 0
    same = torch.zeros(6, dtype=torch.long)
    _, targets = mixing.mixed(images, same, seed=0)
    torch.testing.assert_close(mixing.loss(logits, targets), plain.loss(logits, same))
