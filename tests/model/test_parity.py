"""The network is the published one: names, shapes, logits."""

import copy
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cmtscale.arch import paper
from cmtscale.arch.variant import published_variants, variant
from cmtscale.model.cmt import CMT, build
from cmtscale.model.weights import load_published, published_state_dict


@pytest.mark.parametrize("attention", ["explicit", "sdpa"])
def test_published_logits_are_reproduced(published, attention):
    model = build(variant(published.name), attention=attention).double().eval()
    load_published(model, published.checkpoint)
    with torch.inference_mode():
        logits = model(published.images)
    assert (logits - published.logits).abs().max() < 1e-8


def test_published_names_and_shapes_are_exact(published):
    state = published_state_dict(build(variant(published.name)))
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published.shapes


def test_the_textbook_of_the_benchmark_is_the_published_network(published):
    model = _textbook().TextbookCMT(variant(published.name)).double().eval()
    model.load_state_dict(published.checkpoint)
    with torch.inference_mode():
        logits = model(published.images)
    assert (logits - published.logits).abs().max() < 1e-8


def test_a_training_step_is_that_of_the_textbook(tiny):
    model, textbook = build(tiny).double(), _textbook().TextbookCMT(tiny).double()
    textbook.load_state_dict(published_state_dict(model))
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3])
    losses = [F.cross_entropy(network(images), labels) for network in (model, textbook)]
    assert torch.allclose(*losses, rtol=1e-12)
    for loss in losses:
        loss.backward()
    state, gradients = published_state_dict(model), _published_gradients(model)
    for name, statistics in textbook.named_buffers():
        assert torch.allclose(state[name], statistics, rtol=1e-10, atol=1e-12), name
    for name, parameter in textbook.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, rtol=1e-8, atol=1e-10), name


@pytest.mark.parametrize("spec", published_variants(), ids=lambda spec: spec.name)
def test_published_parameter_counts(spec):
    counts = {
        "cmt-ti": (9_492_426, 75_000),
        "cmt-xs": (15_247_208, 155_520),
        "cmt-s": (26_256_160, 288_120),
        "cmt-b": (45_715_076, 491_520),
    }
    model = build(spec)
    bias = sum(stage.position_bias.numel() for stage in model.stages)
    assert (sum(p.numel() for p in model.parameters()), bias) == counts[spec.name]
    assert set(counts) == set(paper.VARIANTS)


def _published_gradients(model: CMT) -> dict[str, Tensor]:
    holder = copy.deepcopy(model)
    for gradient, parameter in zip(holder.parameters(), model.parameters(), strict=True):
        gradient.data = parameter.grad
    return published_state_dict(holder)


def _textbook() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "textbook_cmt.py"
    spec = importlib.util.spec_from_file_location("textbook_cmt", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
