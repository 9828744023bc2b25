"""The faster passes of training, absorbed and regrouped, are the plain layers' passes."""

import copy

import pytest
import torch

from cmtscale.model.blocks import InvertedResidualFFN, LightAttention
from cmtscale.model.cmt import build
from cmtscale.spec.variant import variant


@pytest.mark.parametrize("hidden", [16, 21])
@pytest.mark.parametrize("grid", [(5, 7), (1, 30), (8, 8)])
def test_absorbed_norms_give_the_plain_outputs_gradients_and_statistics(hidden, grid):
    plain = InvertedResidualFFN(6, hidden).double().to(memory_format=torch.channels_last)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter)
    fast = copy.deepcopy(plain)
    plain._absorbs = lambda _maps: False
    images, weights = torch.randn(2, 3, 6, *grid, dtype=torch.float64)
    results = []
    for model in (plain, fast):
        maps = images.clone(memory_format=torch.channels_last).requires_grad_()
        assert model._absorbs(maps) == (model is fast)
        out = model(maps)
        (out * weights).sum().backward()
        results.append((out, maps.grad))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-9), name
    for (name, one), other in zip(plain.named_buffers(), fast.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12), name


def test_norms_are_absorbed_only_in_plain_cpu_training_on_large_maps():
    model = InvertedResidualFFN(6, 24)
    large, small = torch.randn(3, 6, 4, 4), torch.randn(2, 6, 4, 4)
    assert model._absorbs(large)
    assert not model._absorbs(small)
    with torch.no_grad():
        assert not model._absorbs(large)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not model._absorbs(large)
    model.expand_norm.eval()
    assert not model._absorbs(large)
    assert not model.eval()._absorbs(large)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_regrouped_attention_gives_the_plain_outputs_gradients_and_statistics(heads):
    plain = LightAttention(6, heads, 2, "explicit").double()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter)
    regrouped = copy.deepcopy(plain)
    plain._regroups = lambda _sequence, _reduced: False
    regrouped._regroups = lambda _sequence, _reduced: True
    sequence, weights = torch.randn(2, 3, 8 * 10, 6, dtype=torch.float64)
    bias = torch.randn(heads, 8 * 10, 4 * 5, dtype=torch.float64)
    results = []
    for model in (plain, regrouped):
        inputs = sequence.clone().requires_grad_(), bias.clone().requires_grad_()
        out = model(*inputs, 8, 10)
        (out * weights).sum().backward()
        results.append((out, *(tensor.grad for tensor in inputs)))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)
    for (name, one), other in zip(plain.named_parameters(), regrouped.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-9), name
    for (name, one), other in zip(plain.named_buffers(), regrouped.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12), name


def test_attention_is_regrouped_only_in_plain_cpu_training_where_it_saves_products():
    model = LightAttention(8, 2, 4, "explicit")
    many, few = torch.randn(3, 8 * 8, 8), torch.randn(3, 2 * 2, 8)
    assert model._regroups(many, few)
    assert not model._regroups(many, torch.randn(3, 4 * 4, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not model._regroups(many, few)
    assert not LightAttention(8, 2, 4, "sdpa")._regroups(many, few)
    assert not model.eval()._regroups(many, few)


def test_the_first_stages_of_cmt_ti_train_regrouped_and_the_last_does_not(monkeypatch):
    passes = []
    original = LightAttention._regrouped

    def counted(self, sequence, kv, bias):
        passes.append(sequence.shape[2])
        return original(self, sequence, kv, bias)

    monkeypatch.setattr(LightAttention, "_regrouped", counted)
    build(variant("cmt-ti"))(torch.zeros(2, 3, 160, 160))
    assert passes == [46] * 2 + [92] * 2 + [184] * 10
