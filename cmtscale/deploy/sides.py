"""Which sides of images a trained network takes, found by trying."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from cmtscale.arch import paper
from cmtscale.arch.errors import first_line
from cmtscale.arch.network import Network
from cmtscale.arch.variant import Variant

STEP_PX = paper.STAGE_STRIDES[-1]  # timm's networks reduce by it, too
LEAST_PX = 2 * STEP_PX  # a graph for any size takes a size of 1, in the last stage, for a constant
REASON_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The side that a network was trained at, and whether others are possible, all in px.

    Without `fixed_because`, height and width are any multiples of `step_px` from `least_px` on;
    with it, both are `own_px`, and it says why.
    """

    own_px: int
    least_px: int = LEAST_PX
    step_px: int = STEP_PX
    fixed_because: str = ""

    @property
    def other(self) -> tuple[int, int]:
        """A height and width that are neither alike nor both the network's own."""
        return self.own_px + self.step_px, max(self.least_px, self.own_px - self.step_px)

    @property
    def tried(self) -> list[tuple[int, int]]:
        """The sizes at which an exported network is compared."""
        own = (self.own_px, self.own_px)
        return [own] if self.fixed_because else [own, self.other]

    def fixed(self, reason: str) -> "Sides":
        """The network's own side alone, because of `reason`, one line."""
        return replace(self, fixed_because=reason[:REASON_CHARACTERS])


def find_sides(network: Network, model: nn.Module) -> Sides:
    """The sides that `model`, in eval and built from `network`, takes."""
    least_px = network.least_resolution_px if isinstance(network, Variant) else 0
    sides = Sides(own_px=network.resolution_px, least_px=max(LEAST_PX, least_px))
    if sides.own_px % sides.step_px:
        return sides.fixed(f"its own side of {sides.own_px} px is no multiple of {sides.step_px}")
    if sides.own_px < sides.least_px:
        return sides.fixed(f"its own side of {sides.own_px} px is below {sides.least_px} px")
    try:
        with torch.inference_mode():
            model(torch.zeros(1, network.in_channels, *sides.other))
    except Exception as error:  # timm's networks refuse other sides as each sees fit
        return sides.fixed(f"the network refuses others: {first_line(error)}")
    return sides
