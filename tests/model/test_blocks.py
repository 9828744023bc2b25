"""The blocks: which attention is chosen, and that every layer is called."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from cmtscale.model.blocks import IRFFN, LMHSA, LPU, Block, is_fused


def test_the_shortcut_in_the_kernels_is_the_shortcut():
    lpu = LPU(6).double()
    maps = torch.randn(3, 6, 5, 7, dtype=torch.float64)
    convolved = F.conv2d(maps, lpu.weight, lpu.bias, padding=1, groups=6)
    assert torch.allclose(lpu(maps), convolved + maps, rtol=1e-12, atol=1e-12)
    assert lpu.state_dict().keys() == {"weight", "bias"}


def test_small_weights_beside_the_shortcut_survive_autocast():
    lpu = LPU(4)
    nn.init.constant_(lpu.weight, 2**-12)  # in bfloat16 1 + 2^-12 is 1
    nn.init.zeros_(lpu.bias)
    maps = torch.randn(2, 4, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = lpu(maps)
    convolved = F.conv2d(maps, lpu.weight, padding=1, groups=4)
    assert torch.allclose(out - maps, convolved, rtol=2**-6, atol=2**-16)  # bfloat16: 8 bits


def test_attention_left_to_the_device_is_the_explicit_one_on_a_cpu():
    sequence, bias = torch.randn(3, 64, 16), torch.randn(2, 64, 4)
    auto, explicit = (LMHSA(16, 2, 4, name) for name in ("auto", "explicit"))
    auto.load_state_dict(explicit.state_dict())
    for is_training in (True, False):
        results = []
        for model in (auto, explicit):
            model.train(is_training).zero_grad()
            out = model(sequence, bias, 8, 8)
            out.square().sum().backward()
            results.append([out, *(parameter.grad for parameter in model.parameters())])
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


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


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda _layer, _inputs, out: 2 * out)
    return layer


def wrapped(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer, nn.Dropout(1.0))


@pytest.mark.parametrize("change", [hooked, wrapped], ids=["hook", "wrapper"])
@pytest.mark.parametrize(
    "name",
    [
        "lpu",
        "lmhsa.reduce",
        "lmhsa.q",
        "lmhsa.kv",
        "lmhsa.proj",
        "irffn.expand",
        "irffn.expand_norm",
        "irffn.depthwise",
        "irffn.depthwise_norm",
        "irffn.project_norm",
    ],
)
def test_a_changed_layer_of_a_block_is_called_in_training(change, name):
    block = Block(8, 24, 2, 4, drop_path=0.0, attention="explicit")
    maps, bias = torch.randn(3, 8, 8, 8), torch.randn(2, 64, 4)
    expected = block(maps, bias)
    parent, _, child = name.rpartition(".")
    module = block.get_submodule(parent)
    setattr(module, child, change(getattr(module, child)))
    assert not torch.allclose(block(maps, bias), expected)


def test_a_parametrized_layer_gets_its_gradients():
    ffn = IRFFN(6, 24)
    for name in ("expand", "depthwise", "project"):
        nn.utils.parametrizations.weight_norm(getattr(ffn, name))
    ffn(torch.randn(3, 6, 4, 4)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in ffn.parameters())


@pytest.mark.parametrize(
    "option", [{"momentum": None}, {"track_running_stats": False}, {"affine": False}]
)
def test_a_batch_norm_of_another_kind_can_stand_in(option):
    ffn = IRFFN(6, 24)
    ffn.expand_norm = nn.BatchNorm2d(24, **option)
    assert ffn(torch.randn(3, 6, 4, 4)).isfinite().all()


def test_checkpointed_blocks_have_the_gradients_of_plain_ones():
    torch.manual_seed(0)
    block = Block(8, 24, 2, 4, drop_path=0.0, attention="explicit").double()
    bias = torch.randn(2, 64, 4, dtype=torch.float64)
    images = torch.randn(3, 8, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    gradients = []
    for is_recomputed in (False, True):
        block.zero_grad()
        maps = images.clone().requires_grad_()
        if is_recomputed:
            out = checkpoint(block, maps, bias, use_reentrant=False)
        else:
            out = block(maps, bias)
        out.square().sum().backward()
        gradients.append([maps.grad, *(parameter.grad for parameter in block.parameters())])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
