"""The computed cost against fvcore and torch's flop counter, to the integer."""

import copy
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, parameter_count
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CountError, VariantError
from cmtscale.arch.scaling import Scaling, scale
from cmtscale.arch.variant import Stage, Variant, published_variants, variant
from cmtscale.model import measure as measuring
from cmtscale.model.cmt import build
from cmtscale.model.measure import count_with_torch, measure, measure_network

SIDES = range(96, 289, 32)
QUICK = [("cmt-ti", 96), ("cmt-ti", 160), ("cmt-xs", 192), ("cmt-s", 224), ("cmt-b", 96)]
REST = [(v.name, side) for v in published_variants() for side in SIDES]
REST = [pair for pair in REST if pair not in QUICK]


def random_variant(seed: int) -> Variant:
    """A small legal variant with irregular dims, depths, heads and expansions."""
    draw = np.random.RandomState(seed).randint
    resolution_px = 32 * int(draw(1, 6))
    stages = []
    for stride in (4, 8, 16, 32):
        heads = int(draw(1, 5))
        stages.append(
            Stage(
                dim=heads * int(draw(1, 7)),
                depth=max(1, int(draw(-6, 4))),  # mostly 1: tracing a block is slow
                heads=heads,
                reduction=int(draw(1, min(8, resolution_px // stride) + 1)),
                expansion=int(draw(100, 450)) / 100,
            )
        )
    return Variant(
        name=f"random-{seed}",
        resolution_px=resolution_px,
        stem_channels=int(draw(1, 13)),
        stages=(stages[0], stages[1], stages[2], stages[3]),
        num_classes=int(draw(2, 60)),
        in_channels=int(draw(1, 5)),
    )


RANDOM = [random_variant(seed) for seed in range(50)]


def assert_measured_is_computed(spec, *, height=None, width=None):
    counted = cost(spec, height=height, width=width)
    measured = measure(spec, height=height, width=width)
    assert (measured.macs, measured.fvcore_flops, measured.activations, measured.params) == (
        counted.macs,
        counted.fvcore_flops,
        counted.activations,
        counted.params,
    )
    assert measured.part_macs == {part.name: part.counts.macs for part in counted.parts}
    assert measured.part_fvcore_flops == {
        part.name: part.counts.fvcore_flops for part in counted.parts
    }


@pytest.mark.parametrize(("name", "side"), QUICK)
def test_published_cost_is_what_fvcore_and_torch_count(name, side):
    assert_measured_is_computed(replace(variant(name), resolution_px=side))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), REST)
def test_published_cost_is_what_fvcore_and_torch_count_at_every_size(name, side):
    assert_measured_is_computed(replace(variant(name), resolution_px=side))


@pytest.mark.parametrize("spec", RANDOM, ids=lambda spec: spec.name)
def test_random_cost_is_what_fvcore_and_torch_count(spec):
    assert_measured_is_computed(spec)


def test_the_random_variants_cover_what_is_irregular():
    stages = [
        (stage, spec.resolution_px // stride)
        for spec in RANDOM
        for stage, stride in zip(spec.stages, (4, 8, 16, 32), strict=True)
    ]
    assert {spec.resolution_px for spec in RANDOM} == {32, 64, 96, 128, 160}
    assert {spec.in_channels for spec in RANDOM} == {1, 2, 3, 4}
    assert any(grid % stage.reduction for stage, grid in stages)  # keys that drop a border
    assert any(stage.dim % 2 and stage.heads > 1 for stage, _ in stages)
    assert any(stage.dim * stage.expansion % 1 for stage, _ in stages)  # a truncated FFN width
    assert any(
        stage.heads != heads
        for spec in RANDOM
        for stage, heads in zip(spec.stages, (1, 2, 4, 8), strict=True)
    )


@pytest.mark.parametrize("spec", RANDOM[:4], ids=lambda spec: spec.name)
def test_every_part_is_what_fvcore_alone_counts_in_its_modules(spec):
    """fvcore's totals of a part's modules, without our own operator handles and sums."""
    model = build(spec).eval()
    image = torch.zeros(1, spec.in_channels, spec.resolution_px, spec.resolution_px)
    flops, written = FlopCountAnalysis(model, image), ActivationCountAnalysis(model, image)
    for analysis in (flops, written):
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    params = parameter_count(model)
    for part in cost(spec).parts:
        modules = modules_of(part.name, spec)
        counts = part.counts
        assert sum(flops.by_module()[name] for name in modules) == counts.fvcore_flops
        assert sum(written.by_module()[name] for name in modules) == counts.activations
        own = counts.params - counts.position_bias
        assert sum(params[name] for name in modules) == own
    assert flops.total() == cost(spec).fvcore_flops
    assert params[""] == cost(spec).params


def modules_of(part: str, spec: Variant) -> list[str]:
    stage, _, kind = part.partition(".")
    if not kind:
        return [part]
    index = int(stage.removeprefix("stage")) - 1
    if kind == "patch_embedding":
        return [f"stages.{index}.patch_embedding"]
    names = {"lpu": ["lpu"], "lmhsa": ["norm1", "lmhsa"], "irffn": ["norm2", "irffn"]}[kind]
    blocks = range(spec.depths[index])
    return [f"stages.{index}.blocks.{block}.{name}" for block in blocks for name in names]


@pytest.mark.parametrize("position", range(4))
def test_position_bias_params_are_those_of_the_parameters(tiny, position):
    model = build(tiny)
    part = next(part for part in cost(tiny).parts if part.name == f"stage{position + 1}.lmhsa")
    assert model.stages[position].position_bias.numel() == part.counts.position_bias


def test_torch_alone_counts_twice_the_macs(tiny):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(tiny).eval()(torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() == 2 * cost(tiny).macs


@pytest.mark.parametrize(
    ("spec", "height", "width"),
    [
        (RANDOM[3], 192, 96),
        (RANDOM[7], 128, 160),
        (RANDOM[11], None, 256),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_sizes_other_than_the_built_one_are_counted_too(spec, height, width):
    assert_measured_is_computed(spec, height=height, width=width)


@pytest.mark.parametrize(("height", "width"), [(72, 64), (64, 0), (-32, 64)])
def test_an_input_that_the_network_cannot_take_is_refused(tiny, height, width):
    with pytest.raises(VariantError, match="is not a positive multiple of 32"):
        measure(tiny, height=height, width=width)


def test_an_input_with_less_than_one_key_is_refused(tiny):
    coarse = replace(tiny, stages=(*tiny.stages[:3], replace(tiny.stages[3], reduction=2)))
    with pytest.raises(VariantError, match="32 px is too small for the reductions of tiny; use 64"):
        measure(coarse, height=32, width=96)


def test_fused_attention_costs_what_the_explicit_one_does(tiny):
    side = 96
    fused = build(tiny, attention="sdpa")
    measured = measure_network(fused, height=side, width=side)
    counted = cost(tiny, height=side, width=side)
    assert (measured.macs, measured.fvcore_flops) == (counted.macs, counted.fvcore_flops)
    assert measured.part_macs == {part.name: part.counts.macs for part in counted.parts}
    assert count_with_torch(fused, height=side, width=side) == counted.macs


class HeadThenFunction(nn.Module):
    """A head followed by one more function of the logits."""

    def __init__(self, head, function):
        super().__init__()
        self.head, self.function = head, function

    def forward(self, maps):
        return self.function(self.head(maps))


@pytest.mark.parametrize(
    ("operator", "function"),
    [
        ("cumsum", lambda logits: logits.cumsum(dim=1)),
        ("linalg_vector_norm", lambda logits: torch.linalg.vector_norm(logits, dim=1)),
        ("pow", lambda logits: logits**2),
    ],
)
def test_an_operator_that_nobody_counts_is_an_error(tiny, monkeypatch, operator, function):
    def build_more(spec):
        model = build(spec)
        model.head = HeadThenFunction(model.head, function)
        return model

    monkeypatch.setattr(measuring, "build", build_more)
    with pytest.raises(CountError, match=f"operators counted by nobody: aten::{operator};"):
        measure(tiny)


def test_a_network_that_does_more_than_the_cost_says_is_an_error(tiny, monkeypatch):
    def build_more(spec):
        model = build(spec)
        model.head = HeadThenFunction(model.head, lambda logits: logits @ logits.transpose(0, 1))
        return model

    monkeypatch.setattr(measuring, "build", build_more)
    with pytest.raises(CountError, match="the computed cost of tiny is not the measured one"):
        measure(tiny)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("stem", "conv"),
        ("stage3.lmhsa", "matmul"),
        ("head", "pool"),
    ],
)
def test_a_cost_wrong_by_one_is_an_error_that_names_the_part(tiny, monkeypatch, part, kind):
    def wrong_cost(spec, **size):
        counted = cost(spec, **size)
        parts = [
            replace(p, counts=replace(p.counts, **{kind: getattr(p.counts, kind) + 1}))
            if p.name == part
            else p
            for p in counted.parts
        ]
        return replace(counted, parts=tuple(parts))

    monkeypatch.setattr(measuring, "cost", wrong_cost)
    right = {p.name: p.counts.fvcore_flops for p in cost(tiny).parts}[part]
    with pytest.raises(CountError, match=rf"{part} fvcore_flops {right + 1} ≠ {right}\b") as caught:
        measure(tiny)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["params", "activations"])
def test_wrong_params_or_activations_are_an_error(tiny, monkeypatch, kind):
    def wrong_cost(spec, **size):
        counted = cost(spec, **size)
        stem = counted.parts[0]
        stem = replace(stem, counts=replace(stem.counts, **{kind: getattr(stem.counts, kind) - 1}))
        return replace(counted, parts=(stem, *counted.parts[1:]))

    monkeypatch.setattr(measuring, "cost", wrong_cost)
    right = getattr(cost(tiny), kind)
    with pytest.raises(CountError, match=f": {kind} {right - 1} ≠ {right};"):
        measure(tiny)


def test_a_wrong_count_by_torch_is_an_error(tiny, monkeypatch):
    monkeypatch.setattr(measuring, "count_with_torch", lambda *_args, **_kwargs: 1)
    with pytest.raises(CountError, match=rf"torch macs {cost(tiny).macs} ≠ 1;"):
        measure(tiny)


def test_measuring_draws_no_random_numbers_of_the_caller(tiny):
    before = torch.get_rng_state()
    measure(tiny)
    assert torch.equal(torch.get_rng_state(), before)


def test_measuring_leaves_the_network_as_it_was(tiny):
    model = build(tiny, dropout=0.5).train()
    model.head.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    grad_enabled = torch.is_grad_enabled()
    measure_network(model, height=64, width=64)
    count_with_torch(model, height=64, width=64)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled() == grad_enabled


def test_nothing_is_printed_and_no_warning_escapes_when_warnings_are_errors(tiny):
    code = (
        "import sys\n"
        "from cmtscale.arch.variant import variant_from_toml\n"
        "from cmtscale.model.measure import measure\n"
        "print(measure(variant_from_toml(sys.stdin.read()), width=96).params)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, input=tiny.to_toml(), capture_output=True, text=True)
    assert done.stderr == ""
    assert (done.returncode, done.stdout) == (0, f"{cost(tiny).params}\n")


def test_a_network_too_large_to_build_is_refused_before_it_is_built():
    huge = scale(variant("cmt-b"), Scaling(12.0))
    with pytest.raises(CountError, match=r"too large to build and measure .* use --no-measure"):
        measure(huge)
