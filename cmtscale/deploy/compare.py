"""Whether an exported network answers as the trained one does."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmtscale.arch.errors import ExportError
from cmtscale.deploy.sides import Sides

BATCHES = (1, 5)
# Of the largest logit. Sums in another order part by less than 1e-6 of it (CMT-Ti, CMT-S and
# ResNet-18 in float32); another activation, padding or resizing by 1e-3 and more.
TOLERANCE = 1e-4

Run = Callable[[Tensor], Tensor]  # images (B, C, H, W) → logits (B, classes)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far logits of an exported network lie from the trained one's, for one batch of noise.

    Differences and logits are absolute; `same_class` counts the images of one likeliest class.
    """

    batch: int
    height_px: int
    width_px: int
    largest_difference: float
    largest_logit: float
    same_class: int

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance; False where a logit is not a number."""
        return self.largest_difference <= TOLERANCE * self.largest_logit


def compare(run: Run, model: nn.Module, *, channels: int, sides: Sides) -> list[Agreement]:
    """Run both on the same normalised noise, at each batch and size; `model` is in eval.

    Raises `ExportError` where they differ by more than the tolerance.
    """
    generator = torch.Generator().manual_seed(0)
    agreements = []
    for height, width in sides.tried:
        for batch in BATCHES:
            images = torch.randn(batch, channels, height, width, generator=generator)
            with torch.inference_mode():
                expected, answered = model(images).double(), run(images).double()
            agreement = Agreement(
                batch=batch,
                height_px=height,
                width_px=width,
                largest_difference=float((expected - answered).abs().max()),
                largest_logit=float(expected.abs().max()),
                same_class=int((expected.argmax(1) == answered.argmax(1)).sum()),
            )
            _require(agreement)
            agreements.append(agreement)
    return agreements


def _require(agreement: Agreement) -> None:
    if not agreement.holds:
        raise ExportError(
            f"the exported network does not answer as the trained one: its logits differ by "
            f"{agreement.largest_difference:.2g} where the largest is "
            f"{agreement.largest_logit:.2g} (batch {agreement.batch}, "
            f"{agreement.height_px}x{agreement.width_px} px), more than {TOLERANCE:g} of it; "
            f"nothing was written; use --format safetensors"
        )
