"""Running statistics: the initial value removed, and estimated again for every score."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cmtscale.data.batches import device_split, eval_batches
from cmtscale.data.dataset import open_dataset, training_part
from cmtscale.model.cmt import build
from cmtscale.train import batch_norm
from cmtscale.train.autocast import make_autocast
from cmtscale.train.batch_norm import estimate_statistics, set_momentum
from cmtscale.train.loop import train
from cmtscale.train.recipe import Recipe

CPU = torch.device("cpu")
NO_AUTOCAST = make_autocast(Recipe(), CPU)


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("steps", [1, 2, 46, 400])
def test_the_initial_value_is_taken_out_exactly(steps):
    torch.manual_seed(0)
    plain, corrected = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    for step in range(steps):
        batch = 0.1 * torch.randn(8, 3, 4, 4, dtype=torch.float64) + step
        plain(batch)
        set_momentum(corrected, step)
        corrected(batch)
    left = 0.9**steps  # of the initial mean 0 and variance 1
    mean = plain.running_mean / (1 - left)
    var = (plain.running_var - left) / (1 - left)
    torch.testing.assert_close(corrected.running_mean, mean, rtol=1e-10, atol=0)
    torch.testing.assert_close(corrected.running_var, var, rtol=1e-9, atol=1e-13)


def test_every_batch_norm_of_the_network_is_corrected(make_variant):
    model = build(make_variant())
    set_momentum(model, 0)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1.0}


def test_after_one_step_evaluation_sees_the_statistics_of_its_batch(make_variant):
    # the whole effect: with momentum 0.1 the variances would be above 0.9
    torch.manual_seed(0)
    model = build(make_variant()).train()
    images = 0.01 * torch.randn(16, 1, 32, 32)
    set_momentum(model, 0)
    model(images)
    first_norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert first_norm.running_var.max() < 0.01


@pytest.fixture
def split(digits_ref):
    dataset = open_dataset(digits_ref)
    return device_split(dataset, dataset.splits.train[:300], device=CPU)


def test_estimated_statistics_are_those_of_the_images(make_variant, split):
    torch.manual_seed(0)
    model = build(make_variant(), dropout=0.5, drop_path=0.5)
    estimate_statistics(model, split, autocast=NO_AUTOCAST)
    images = torch.cat([x for x, _ in eval_batches(split, batch_size=100, resolution_px=32)])
    with torch.no_grad():
        maps = model.stem[1](model.stem[0](images))  # up to the first BatchNorm
    norm = norms(model)[0]
    torch.testing.assert_close(norm.running_mean, maps.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    population = maps.var(dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(norm.running_var, population, rtol=1e-3, atol=1e-7)
    assert not any(module.training for module in model.modules())


def test_estimating_changes_no_weight_and_no_generator_and_repeats_to_the_bit(make_variant, split):
    model = build(make_variant(), dropout=0.5, drop_path=0.5)
    weights = {name: value.clone() for name, value in model.named_parameters()}
    state = torch.get_rng_state()
    estimate_statistics(model, split, autocast=NO_AUTOCAST)
    once = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms(model)]
    for norm in norms(model):
        norm.reset_running_stats()
    estimate_statistics(model, split, autocast=NO_AUTOCAST)
    for norm, (mean, var) in zip(norms(model), once, strict=True):
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(norm.running_var, var)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize("count", [1537, 129, 5])
def test_images_are_chosen_in_batches_of_nearly_one_size(make_variant, split, monkeypatch, count):
    sizes = []
    monkeypatch.setattr(
        batch_norm,
        "plain_batches",
        lambda _, parts, **__: (
            sizes.append(len(part)) or (torch.zeros(len(part), 1, 32, 32), None) for part in parts
        ),
    )
    indices = split.indices[torch.arange(count) % len(split)]
    model = build(make_variant())
    many = replace(split, indices=indices)
    estimate_statistics(model, many, autocast=NO_AUTOCAST)
    assert sum(sizes) == min(count, 1536)
    assert max(sizes) <= 128
    assert min(sizes) > 1  # one image of one token has no variance


def test_the_saved_network_carries_the_statistics_that_it_was_scored_with(make_run, tmp_path):
    run = make_run()
    train(run, device=CPU, folder=tmp_path)
    model = build(run.variant)
    model.load_state_dict(torch.load(tmp_path / "checkpoint.pt")["model"])
    saved = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms(model)]
    dataset = open_dataset(run.data)
    split = device_split(dataset, training_part(dataset, run.recipe.train_images), device=CPU)
    estimate_statistics(model, split, autocast=NO_AUTOCAST)
    for norm, (mean, var) in zip(norms(model), saved, strict=True):
        assert torch.equal(norm.running_mean, mean)
        assert torch.equal(norm.running_var, var)
