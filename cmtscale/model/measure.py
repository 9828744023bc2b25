"""Measure a built network with fvcore and torch's flop counter, and hold `cost` against both."""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import CountError
from cmtscale.arch.variant import Variant
from cmtscale.model.cmt import CMT, build
from cmtscale.model.quiet_fvcore import ActivationCountAnalysis, FlopCountAnalysis

LARGEST_MEASURED = 4e9  # numbers (params and activations) that a traced network may hold
MULTIPLY_ADDS = ("conv", "linear", "matmul", "attention")

# fvcore counts none of these: elementwise work and reductions, small beside the multiply-adds.
NEGLIGIBLE = frozenset(
    {
        "aten::add",
        "aten::dropout",
        "aten::gelu",
        "aten::mean",
        "aten::mul",
        "aten::silu",
        "aten::softmax",
        "aten::unbind",
        "aten::unflatten",
        "aten::upsample_bicubic2d",
    }
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What fvcore counts for one image: totals, and MACs by part (`stage1.lmhsa`, …)."""

    macs: int
    fvcore_flops: int
    activations: int
    params: int
    part_macs: Mapping[str, int]
    part_fvcore_flops: Mapping[str, int]


def measure(variant: Variant, *, height: int | None = None, width: int | None = None) -> Measured:
    """Build `variant`, count it with fvcore and torch, and compare both with `cost`.

    Raises `CountError` if any two disagree by one, if an operator is counted by none, or if the
    network is too large to be traced in the memory of an ordinary machine.
    """
    counted = cost(variant, height=height, width=width)
    if counted.params + counted.activations > LARGEST_MEASURED:
        raise CountError(
            f"{variant.name} at {counted.height}x{counted.width} px is too large to build and "
            f"measure ({counted.params:.3g} params, {counted.activations:.3g} activations); "
            f"use --no-measure"
        )
    with torch.random.fork_rng(devices=[]):
        model = build(variant)
    measured = measure_network(model, height=counted.height, width=counted.width)
    torch_macs = count_with_torch(model, height=counted.height, width=counted.width)
    computed_counts: dict[str, int] = {
        "macs": counted.macs,
        "fvcore_flops": counted.fvcore_flops,
        "activations": counted.activations,
        "params": counted.params,
        **{f"{part.name} macs": int(part.counts.macs) for part in counted.parts},
        **{f"{part.name} fvcore_flops": int(part.counts.fvcore_flops) for part in counted.parts},
        "torch macs": counted.macs,
    }
    measured_counts: dict[str, int] = {
        "macs": measured.macs,
        "fvcore_flops": measured.fvcore_flops,
        "activations": measured.activations,
        "params": measured.params,
        **{f"{name} macs": macs for name, macs in measured.part_macs.items()},
        **{f"{name} fvcore_flops": flops for name, flops in measured.part_fvcore_flops.items()},
        "torch macs": torch_macs,
    }
    names = computed_counts.keys() | measured_counts.keys()
    wrong = sorted(name for name in names if computed_counts.get(name) != measured_counts.get(name))
    if wrong:
        shown = ", ".join(
            f"{name} {computed_counts.get(name)} ≠ {measured_counts.get(name)}"
            for name in wrong[:3]
        )
        raise CountError(
            f"the computed cost of {variant.name} is not the measured one: {shown}; "
            f"please report this with the variant's TOML"
        )
    return measured


def measure_network(model: CMT, *, height: int, width: int) -> Measured:
    """Count one forward pass of a copy of `model` in eval with fvcore, batch 1.

    Raises `CountError` for an operator that fvcore does not count and that is not negligible.
    """
    network = copy.deepcopy(model).eval().cpu()
    image = torch.zeros(1, model.variant.in_channels, height, width)
    with warnings.catch_warnings(), torch.no_grad():
        # the network's checks of its input run once, while tracing, which is what is wanted
        warnings.filterwarnings("ignore", "Converting a tensor to a Python", Warning)
        warnings.filterwarnings("ignore", "`torch.jit", category=DeprecationWarning)
        flops = FlopCountAnalysis(network, image)
        flops.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        flops.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        total = int(flops.total())
        _require_counted(flops.unsupported_ops())
        activations = ActivationCountAnalysis(network, image)
        activations.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        written = int(activations.total())
    part_macs: Counter[str] = Counter()
    part_flops: Counter[str] = Counter()
    for module, operators in flops.by_module_and_operator().items():
        part = _part_of(module)
        if part:
            part_macs[part] += sum(int(operators.get(name, 0)) for name in MULTIPLY_ADDS)
            part_flops[part] += int(sum(operators.values()))
    operators = flops.by_operator()
    return Measured(
        macs=sum(int(operators.get(name, 0)) for name in MULTIPLY_ADDS),
        fvcore_flops=total,
        activations=written,
        params=sum(parameter.numel() for parameter in model.parameters()),
        part_macs=dict(part_macs),
        part_fvcore_flops=dict(part_flops),
    )


def count_with_torch(model: CMT, *, height: int, width: int) -> int:
    """MACs of one forward pass in eval by `torch.utils.flop_counter`, on the meta device."""
    network = copy.deepcopy(model).eval().to("meta")
    image = torch.zeros(1, network.variant.in_channels, height, width, device="meta")
    # torch counts the matmuls of fused attention, but not its fused kernel for CPUs
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(image)
    total = int(counter.get_total_flops())
    assert total % 2 == 0
    return total // 2


def _attention_macs(inputs: list[Any], _outputs: list[Any]) -> Counter[str]:
    """batch · heads · queries · keys · (key dim + value dim); fvcore itself counts 0."""
    query, key, value = (_shape(tensor) for tensor in inputs[:3])
    macs = prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return Counter({"attention": macs})


def _shape(value: Any) -> list[int]:
    sizes: list[int] = value.type().sizes()
    return sizes


def _require_counted(unsupported: Mapping[str, int]) -> None:
    unknown = sorted(set(unsupported) - NEGLIGIBLE)
    if unknown:
        raise CountError(
            f"operators counted by nobody: {', '.join(unknown)}; the totals would be too low"
        )


def _part_of(module: str) -> str | None:
    """The part that a module belongs to, if it is the outermost module of that part."""
    match module.split("."):
        case ["stem" | "head" as name]:
            return name
        case ["stages", stage, "patch_embedding"]:
            return f"stage{int(stage) + 1}.patch_embedding"
        case ["stages", stage, "blocks", _, "lpu" | "lmhsa" | "irffn" as name]:
            return f"stage{int(stage) + 1}.{name}"
        case ["stages", stage, "blocks", _, "norm1"]:
            return f"stage{int(stage) + 1}.lmhsa"
        case ["stages", stage, "blocks", _, "norm2"]:
            return f"stage{int(stage) + 1}.irffn"
        case _:
            return None
