"""Mixed precision, as a recipe asks for it."""

import torch

from cmtscale.train.recipe import Recipe


def make_autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Mixed precision as the recipe says: by default bfloat16 on CUDA and none elsewhere."""
    is_low = recipe.precision_on(device.type) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_low)
