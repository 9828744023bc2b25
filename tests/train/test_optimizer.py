"""Parameter groups, width transfer and the learning-rate schedule."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cmtscale.model.cmt import build
from cmtscale.train.optimizer import lr_factor, make_optimizer
from cmtscale.train.recipe import Recipe

RECIPE = Recipe(lr=3e-3, reference_dim=16, weight_decay=0.07, beta1=0.85, beta2=0.97)


@pytest.fixture
def grouped(make_variant):
    """Makes (model, {name: (peak learning rate, weight decay)}); each name must occur once."""

    def group(dim1: int):
        model = build(make_variant(dim1, in_channels=3))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        settings = {}
        for group in make_optimizer(model, RECIPE).param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                assert name not in settings
                settings[name] = group["peak_lr"], group["weight_decay"]
        assert settings.keys() == set(names.values())
        return model, settings

    return group


def kind_of(model, name):
    """Derived from the layer: "hidden", "first" or "last" matrix, or "vector"."""
    owner, _, leaf = name.rpartition(".")
    layer = model.get_submodule(owner)
    if leaf != "weight" or not isinstance(layer, nn.Conv2d | nn.Linear):
        return "vector"  # biases, norms, position biases
    if isinstance(layer, nn.Linear):
        return "last" if layer.out_features == 10 else "hidden"
    if layer.groups > 1:
        return "vector"  # depthwise: fan-in 9 or k² at any width
    return "first" if layer.in_channels == 3 else "hidden"


@pytest.mark.parametrize("dim1", [8, 16, 24])
def test_only_hidden_matrices_train_at_a_rate_of_one_over_width(grouped, dim1):
    model, settings = grouped(dim1)
    kinds = {name: kind_of(model, name) for name in settings}
    for name, (peak_lr, _) in settings.items():
        expected = RECIPE.lr * 16 / dim1 if kinds[name] == "hidden" else RECIPE.lr
        assert peak_lr == pytest.approx(expected, rel=1e-12), name
    assert Counter(kinds.values())["first"] == Counter(kinds.values())["last"] == 1


def test_the_rate_of_every_parameter_from_a_width_to_its_double(grouped):
    _, narrow = grouped(8)
    model, wide = grouped(16)
    ratios = {name: wide[name][0] / narrow[name][0] for name in wide}
    assert ratios["head.classifier.weight"] == 1.0
    assert ratios["head.project.weight"] == 0.5
    assert ratios["stages.0.patch_embedding.conv.weight"] == 0.5
    assert ratios["stages.0.blocks.0.irffn.depthwise.weight"] == 1.0
    assert ratios["stages.0.blocks.0.lpu.weight"] == 1.0
    assert ratios["stages.0.position_bias"] == 1.0
    assert ratios["stages.3.blocks.0.norm1.bias"] == 1.0
    assert ratios["stages.3.blocks.0.lmhsa.proj.weight"] == 0.5
    assert {kind_of(model, name) for name, ratio in ratios.items() if ratio == 0.5} == {"hidden"}


def test_weight_decay_acts_on_matrices_only(grouped):
    model, settings = grouped(8)
    for name, (_, decay) in settings.items():
        assert decay == (0.0 if kind_of(model, name) == "vector" else 0.07), name


def test_the_optimizer_is_fused_adamw_with_the_recipes_betas(make_variant):
    optimizer = make_optimizer(build(make_variant()), RECIPE)
    assert type(optimizer) is torch.optim.AdamW
    for group in optimizer.param_groups:
        assert group["fused"] is True
        assert group["betas"] == (0.85, 0.97)


fractions = st.floats(0, 0.9999)
lengths = st.integers(1, 400)


@given(lengths, fractions)
def test_the_schedule_warms_up_linearly_to_1_then_decays_linearly(total, warmup):
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1.0
    peak = factors.index(1.0)
    rising, falling = factors[: peak + 1], factors[peak:]
    assert rising == pytest.approx([(step + 1) / (peak + 1) for step in range(peak + 1)])
    warmup_steps = round(warmup * total)
    decay = total - warmup_steps
    expected = [(decay - step) / decay for step in range(decay)]
    assert falling == pytest.approx(expected if not warmup_steps else [1.0, *expected])


@given(lengths, fractions)
def test_the_decay_reaches_0_after_the_last_step(total, warmup):
    if round(warmup * total) < total:
        assert lr_factor(total, total, warmup) == 0.0


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.6, 0.9, 0.9999])
def test_the_shortest_schedules_reach_the_peak_too(total, warmup):
    factors = [lr_factor(step, total, warmup) for step in range(total)]
    assert max(factors) == 1.0
    assert min(factors) > 0.0


def test_a_schedule_of_ten_steps_as_written_out():
    factors = [lr_factor(step, 10, 0.2) for step in range(11)]
    assert factors == [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0.0]
