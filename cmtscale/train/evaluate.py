"""Evaluation over a whole split, and the temperature fitted to its logits."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from cmtscale.data.batches import DeviceSplit, eval_batches
from cmtscale.model.cmt import CMT


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Cross-entropies in nats (raw, and after dividing the logits by `temperature`), accuracy.

    `image_losses` (n,) are the images' own, at `temperature`; `loss` is their mean.
    """

    loss_raw: float
    loss: float
    temperature: float
    accuracy: float
    image_losses: npt.NDArray[np.float64]


def evaluate(
    model: CMT, split: DeviceSplit, *, batch_size: int, autocast: torch.autocast
) -> Evaluation:
    """Evaluate every image of the split; leaves `model` in eval mode."""
    logits, labels = predict(model, split, batch_size=batch_size, autocast=autocast)
    temperature = fit_temperature(logits, labels)
    image_losses = F.cross_entropy(logits / temperature, labels, reduction="none")
    return Evaluation(
        loss_raw=float(F.cross_entropy(logits, labels)),
        loss=float(image_losses.mean()),
        temperature=temperature,
        accuracy=float((logits.argmax(dim=1) == labels).double().mean()),
        image_losses=image_losses.numpy(),
    )


@torch.inference_mode()
def predict(
    model: CMT, split: DeviceSplit, *, batch_size: int, autocast: torch.autocast
) -> tuple[Tensor, Tensor]:
    """Logits (n, classes) in float64 and labels (n,) of a split, on the CPU."""
    model.eval()
    logits, labels = [], []
    for images, targets in eval_batches(
        split, batch_size=batch_size, resolution_px=model.variant.resolution_px
    ):
        with autocast:
            logits.append(model(images).cpu().double())  # Apple's GPUs have no float64
        labels.append(targets.cpu())
    return torch.cat(logits), torch.cat(labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in [1/50, 50] that minimises the cross-entropy of logits / T (Guo et al., 2017).

    NaN where the logits are not finite.
    """
    if not torch.isfinite(logits).all():
        return math.nan

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    limit = math.log(50.0)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    return float(np.exp(found.x))
