"""The training pass with absorbed BatchNorms is the plain layers' pass."""

import copy

import pytest
import torch

from cmtscale.model.blocks import InvertedResidualFFN


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
