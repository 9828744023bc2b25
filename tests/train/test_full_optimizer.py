"""The schedule, which parameters decay, and the average of the weights."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cmtscale.arch.network import TimmNetwork
from cmtscale.model.networks import build_network
from cmtscale.train.full_optimizer import make_ema, make_full_optimizer, make_schedule
from cmtscale.train.paper_recipe import published_recipe

RECIPE = replace(published_recipe("cmt-s"), epochs=10, warmup_epochs=2)


def rates(recipe, *, peak_lr=1e-3, steps=range(50)):
    network = nn.Linear(3, 3)
    optimizer = make_full_optimizer(network, recipe, peak_lr=peak_lr)
    schedule = make_schedule(optimizer, recipe, peak_lr=peak_lr, steps_per_epoch=5)
    result = []
    for step in steps:
        schedule.step_update(step)
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        result.append(rate)
    return result


def test_the_rate_warms_up_in_a_line_and_falls_along_a_cosine():
    every = rates(RECIPE)
    assert every[0] == RECIPE.warmup_lr
    assert every[5] == pytest.approx((1e-3 + RECIPE.warmup_lr) / 2)
    for step in (10, 25, 49):  # of 50, the warm-up being part of the curve
        cosine = (1 + math.cos(math.pi * step / 50)) / 2
        assert every[step] == pytest.approx(RECIPE.min_lr + (1e-3 - RECIPE.min_lr) * cosine)


def test_the_rate_of_a_step_does_not_depend_on_those_before():
    assert rates(RECIPE, steps=[33, 7]) == [rates(RECIPE)[33], rates(RECIPE)[7]]


def test_a_small_batch_keeps_the_ends_below_the_peak():
    every = rates(RECIPE, peak_lr=1e-6)
    assert max(every) <= 1e-6


def test_vectors_do_not_decay(make_variant):
    network = build_network(make_variant())
    optimizer = make_full_optimizer(network, RECIPE, peak_lr=1e-3)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert (parameter.ndim > 1) or group["weight_decay"] == 0
    decayed = sum(len(g["params"]) for g in optimizer.param_groups if g["weight_decay"])
    assert decayed > 10


def test_layer_decay_scales_the_rates_below_the_head():
    network = build_network(TimmNetwork(model="test_vit", resolution_px=160, num_classes=10))
    recipe = replace(RECIPE, layer_decay=0.5)
    optimizer = make_full_optimizer(network, recipe, peak_lr=1e-3)
    schedule = make_schedule(optimizer, recipe, peak_lr=1e-3, steps_per_epoch=5)
    schedule.step_update(20)
    rates_of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    head = rates_of[id(network.head.weight)]
    assert rates_of[id(network.patch_embed.proj.weight)] <= head / 4


def test_layer_decay_of_a_cmt_falls_from_the_classifier_to_the_stem(make_variant):
    network = build_network(make_variant())  # stem, four blocks, classifier
    optimizer = make_full_optimizer(network, replace(RECIPE, layer_decay=0.5), peak_lr=1e-3)
    schedule = make_schedule(optimizer, RECIPE, peak_lr=1e-3, steps_per_epoch=5)
    schedule.step_update(20)
    rate_of = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    decay_of = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    classifier = rate_of[id(network.head.classifier.weight)]
    assert rate_of[id(network.stem[0].weight)] == pytest.approx(classifier * 0.5**5, rel=1e-3)
    assert decay_of[id(network.stages[0].position_bias)] == 0
    assert decay_of[id(network.stem[0].weight)] > 0


def test_the_average_follows_its_formula_and_forgets_the_initial_weights():
    network = nn.Linear(1, 1, bias=False)
    recipe = replace(RECIPE, ema_decay=0.9)
    ema = make_ema(network, recipe)
    expected = network.weight.item()
    for step in range(1, 60):
        with torch.no_grad():
            network.weight.fill_(float(step))
        ema.update(network, step=step)
        decay = min(0.9, 1 - step**-0.75) if step > 1 else 0.0
        expected = decay * expected + (1 - decay) * step
    assert ema.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert make_ema(network, replace(RECIPE, ema_decay=None)) is None
