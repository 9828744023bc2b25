"""What one forward pass computes, by torch's own counter, and what that counter does not count."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

# A few operations per number, as with what torch tags as elementwise or knows as a view. Operators
# that are neither counted nor known to be small are reported, whatever they do.
_SMALL = {
    "elementwise": ("hardswish", "hardswish_"),
    "norms": (
        "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
        "cudnn_batch_norm", "_batch_norm_no_update", "native_layer_norm", "native_group_norm",
        "_fused_rms_norm", "linalg_vector_norm",
    ),
    "pooling, softmax and sums": (
        "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d",
        "mean", "sum", "amax", "amin", "max", "argmax", "var", "var_mean", "std", "cumsum", "prod",
        "_softmax", "_safe_softmax", "_log_softmax",
    ),
    "resizing": (
        "upsample_bicubic2d", "upsample_bilinear2d", "upsample_nearest2d",
        "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa",
    ),
    "copies": (
        "_to_copy", "_unsafe_index", "_unsafe_view", "arange", "cat", "clone", "col2im",
        "constant_pad_nd", "copy_", "empty", "empty_like", "fill_", "full", "full_like", "gather",
        "im2col", "index", "index_put", "index_put_", "index_select", "lift_fresh", "new_empty",
        "new_full", "new_ones", "new_zeros", "ones", "ones_like", "pixel_shuffle",
        "pixel_unshuffle", "reflection_pad2d", "repeat", "roll", "scalar_tensor", "stack", "zeros",
        "zeros_like", "zero_",
    ),
    "views": (
        "as_strided_", "resize_", "squeeze_", "t_", "transpose_", "unsafe_split", "unsqueeze_",
    ),
}  # fmt: skip
_GROUPS = {name: group for group, names in _SMALL.items() for name in names}
_LINEAR = ("mm", "addmm")


@dataclass(frozen=True, kw_only=True)
class OperatorCounts:
    """One forward pass by operators, under torch's names (`convolution`, `addmm`, `bmm`).

    `macs` of those that torch counts. `negligible` are operators that do a few operations per
    number, by group; `uncounted` are all others, and what they cost is missing in `macs`.
    """

    macs: Mapping[str, int]
    negligible: Mapping[str, tuple[str, ...]]
    uncounted: tuple[str, ...]

    @property
    def total_macs(self) -> int:
        """Multiply-adds of all operators that are counted."""
        return sum(self.macs.values())

    def kind_macs(self) -> dict[str, int]:
        """MACs by kind, as `arch.cost` has them: conv, linear, and matmul for all else."""
        kinds = {"conv": 0, "linear": 0, "matmul": 0}
        for name, macs in self.macs.items():
            kinds[kind_of(name)] += macs
        return kinds


def kind_of(operator: str) -> str:
    """`conv`, `linear` (a product with weights) or `matmul` (of two activations)."""
    if "conv" in operator:
        return "conv"
    return "linear" if operator in _LINEAR else "matmul"


def count_operators(model: nn.Module, images: Tensor) -> OperatorCounts:
    """Count one forward pass of `images` (B, C, H, W); works on the meta device too.

    Attention counts as its two products: it is decomposed. Errors are those of the network.
    """
    counter, seen = FlopCounterMode(display=False), _Seen()
    # the counter decomposes operators before `seen`, which was entered earlier, gets them
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), seen, counter:
        model(images)
    flops = counter.get_flop_counts().get("Global", {})  # absent where nothing was counted
    macs = {_name(operator): int(count) // 2 for operator, count in flops.items()}
    negligible: defaultdict[str, set[str]] = defaultdict(set)
    uncounted = set()
    for operator in seen.operators:
        packet = getattr(operator, "overloadpacket", operator)
        if packet in flop_registry:
            continue
        group = _group(operator)
        if group is None:
            uncounted.add(_name(packet))
        else:
            negligible[group].add(_name(packet))
    return OperatorCounts(
        macs=dict(sorted(macs.items(), key=lambda entry: -entry[1])),
        negligible={group: tuple(sorted(names)) for group, names in sorted(negligible.items())},
        uncounted=tuple(sorted(uncounted)),
    )


class _Seen(TorchDispatchMode):
    """Keeps the operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types  # torch passes them
        self.operators.add(func)
        return func(*args, **(kwargs or {}))


def _name(operator: Any) -> str:
    """`convolution` of `aten.convolution`."""
    return str(operator).rpartition(".")[2]


def _group(operator: Any) -> str | None:
    """What a small operator does; None for one that may not be small."""
    if getattr(operator, "is_view", False):
        return "views"
    if torch.Tag.pointwise in getattr(operator, "tags", ()):
        return "elementwise"
    return _GROUPS.get(_name(getattr(operator, "overloadpacket", operator)))
