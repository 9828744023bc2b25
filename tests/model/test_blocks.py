"""The faster passes of training, absorbed and regrouped, are the plain layers' passes."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cmtscale.arch.variant import variant
from cmtscale.model.blocks import Block, InvertedResidualFFN, LightAttention, is_fused
from cmtscale.model.cmt import build


def require_same_pass(plain, fast, plain_results, fast_results):
    """Outputs and gradients of the inputs, of the parameters, and running statistics agree."""
    for one, other in zip(plain_results, fast_results, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-10)
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-9, atol=1e-9), name
    for (name, one), other in zip(plain.named_buffers(), fast.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12), name


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
    require_same_pass(plain, fast, *results)


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


def test_attention_left_to_the_device_is_the_explicit_one_on_a_cpu():
    sequence, bias = torch.randn(3, 64, 16), torch.randn(2, 64, 4)
    auto, explicit = (LightAttention(16, 2, 4, name) for name in ("auto", "explicit"))
    auto.load_state_dict(explicit.state_dict())
    assert auto._regroups(sequence, sequence[:, :4])
    for is_training in (True, False):
        results = []
        for model in (auto, explicit):
            model.train(is_training).zero_grad()
            out = model(sequence, bias, 8, 8)
            out.square().sum().backward()
            results.append([out, *(parameter.grad for parameter in model.parameters())])
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


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
    require_same_pass(plain, regrouped, *results)


def test_attention_is_regrouped_only_in_plain_cpu_training_where_it_saves_products():
    model = LightAttention(8, 2, 4, "explicit")
    many, few = torch.randn(3, 8 * 8, 8), torch.randn(3, 2 * 2, 8)
    assert model._regroups(many, few)
    assert not model._regroups(many, torch.randn(3, 4 * 4, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not model._regroups(many, few)
    assert not LightAttention(8, 2, 4, "sdpa")._regroups(many, few)
    assert not model.eval()._regroups(many, few)


@pytest.mark.parametrize(
    ("attention", "device_type", "head_dim", "fused"),
    [
        ("auto", "cuda", 64, True),
        ("auto", "cuda", 8, True),
        ("auto", "cuda", 46, False),
        ("auto", "cuda", 76, False),
        ("auto", "cpu", 64, False),
        ("auto", "mps", 64, False),
        ("auto", "meta", 64, False),
        ("explicit", "cuda", 64, False),
        ("explicit", "cpu", 46, False),
        ("sdpa", "cuda", 46, True),
        ("sdpa", "cpu", 64, True),
    ],
)
def test_attention_is_fused_by_itself_on_cuda_where_a_fast_kernel_takes_it(
    attention, device_type, head_dim, fused
):
    assert is_fused(attention, device_type=device_type, head_dim=head_dim) == fused


def test_the_first_stages_of_cmt_ti_train_regrouped_and_the_last_does_not(monkeypatch):
    passes = []
    original = LightAttention._regrouped

    def counted(self, sequence, kv, bias):
        passes.append(sequence.shape[2])
        return original(self, sequence, kv, bias)

    monkeypatch.setattr(LightAttention, "_regrouped", counted)
    build(variant("cmt-ti"))(torch.zeros(2, 3, 160, 160))
    assert passes == [46] * 2 + [92] * 2 + [184] * 10


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda _layer, _inputs, out: 2 * out)
    return layer


def wrapped(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Identity())


def gates(**dtype) -> dict[str, bool]:
    """Which of the two fast passes a block that is made for them takes."""
    attention = LightAttention(8, 2, 4, "explicit").to(**dtype)
    ffn = InvertedResidualFFN(6, 24).to(**dtype)
    tokens = torch.randn(3, 64, 8).to(**dtype)
    maps = torch.randn(3, 6, 4, 4).to(**dtype)
    return {
        "regroups": attention._regroups(tokens, tokens[:, :4]),
        "absorbs": ffn._absorbs(maps),
    }


def test_fast_passes_are_for_single_and_double_precision():
    assert gates() == gates(dtype=torch.float64) == {"regroups": True, "absorbs": True}
    for dtype in (torch.bfloat16, torch.float16):
        assert gates(dtype=dtype) == {"regroups": False, "absorbs": False}


@pytest.mark.parametrize(
    "change",
    [hooked, wrapped, nn.utils.parametrizations.weight_norm],
    ids=["hook", "wrapper", "parametrization"],
)
def test_a_changed_layer_is_called_and_not_passed_over(change):
    tokens, maps = torch.randn(3, 64, 8), torch.randn(3, 6, 4, 4)
    for name in ("q", "proj"):
        attention = LightAttention(8, 2, 4, "explicit")
        setattr(attention, name, change(getattr(attention, name)))
        assert not attention._regroups(tokens, tokens[:, :4])
    for name in ("expand", "depthwise", "project"):
        ffn = InvertedResidualFFN(6, 24)
        setattr(ffn, name, change(getattr(ffn, name)))
        assert not ffn._absorbs(maps)


@pytest.mark.parametrize(
    "option", [{"momentum": None}, {"track_running_stats": False}, {"affine": False}]
)
def test_a_batch_norm_of_another_kind_is_called(option):
    ffn = InvertedResidualFFN(6, 24)
    ffn.expand_norm = nn.BatchNorm2d(24, **option)
    maps = torch.randn(3, 6, 4, 4)
    assert not ffn._absorbs(maps)
    assert ffn(maps).isfinite().all()


def test_checkpointed_blocks_have_the_gradients_of_plain_ones():
    torch.manual_seed(0)
    block = Block(8, 24, 2, 4, drop_path=0.0, attention="explicit").double()
    bias = torch.randn(2, 64, 4, dtype=torch.float64)
    images = torch.randn(3, 8, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert block.irffn._absorbs(images)
    found = []
    for recomputed in (False, True):
        block.zero_grad()
        maps = images.clone().requires_grad_()
        out = (
            checkpoint(block, maps, bias, use_reentrant=False) if recomputed else block(maps, bias)
        )
        out.square().sum().backward()
        found.append([maps.grad, *(parameter.grad for parameter in block.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
