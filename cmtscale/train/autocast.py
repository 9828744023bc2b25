"""Mixed precision, as a recipe asks for it."""

from typing import Protocol

import torch


class HasPrecision(Protocol):
    """A recipe that says in which precision it trains on a device of a type."""

    def precision_on(self, device_type: str) -> str:
        """`fp32`, `bf16` or `fp16`."""
        ...


def make_autocast(recipe: HasPrecision, device: torch.device) -> torch.autocast:
    """Mixed precision as the recipe says: by default bfloat16 on CUDA and none elsewhere."""
    precision = recipe.precision_on(device.type)
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
