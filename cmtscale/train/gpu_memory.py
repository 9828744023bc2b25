"""Which GPU a device is, and how much of its memory a training takes."""

from dataclasses import dataclass

import torch

from cmtscale.arch.variant import Variant
from cmtscale.train.out_of_memory import give_back, may_fit_when_smaller
from cmtscale.train.recipe import Recipe
from cmtscale.train.stop import CheckIn, never
from cmtscale.train.timing import images_per_second


@dataclass(frozen=True, kw_only=True)
class Card:
    """A device's name and all of its memory; 0 bytes where nobody counts it, on all but CUDA."""

    name: str
    memory_bytes: int


def card_of(device: str) -> Card:
    """The card of a device such as `cuda:0`."""
    if not device.startswith("cuda"):
        return Card(name=device, memory_bytes=0)
    _, total = torch.cuda.mem_get_info(device)
    return Card(name=torch.cuda.get_device_name(device), memory_bytes=total)


def training_bytes(
    variant: Variant, recipe: Recipe, *, batch: int, device: str, check_in: CheckIn = never
) -> int:
    """What a process that trains whole batches takes of its card; all where they do not fit.

    With CUDA's own share of it, without images that a run holds. What other processes have on the
    card counts, too, so that it should have none. 0 on all but CUDA.
    """
    is_cuda = device.startswith("cuda")
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        images_per_second(
            variant, recipe, batch=batch, device=device, seconds=0.0, check_in=check_in
        )
    except RuntimeError as error:
        if not may_fit_when_smaller(error):
            raise
        give_back(error)
        return card_of(device).memory_bytes
    if not is_cuda:
        return 0
    free, total = torch.cuda.mem_get_info(device)
    beside_tensors = total - free - torch.cuda.memory_reserved(device)
    peak = torch.cuda.max_memory_reserved(device)
    torch.cuda.empty_cache()
    return beside_tensors + peak
