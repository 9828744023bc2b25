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
from cmtscale.train.stop import CheckIn, never, stop_if_asked


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Logits (n, classes) in float64 and labels (n,) of a split, on the CPU."""

    logits: Tensor
    labels: Tensor

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, as it stands."""
        return float(F.cross_entropy(self.logits, self.labels))

    @property
    def accuracy(self) -> float:
        """The fraction whose largest logit is that of the label."""
        return float((self.logits.argmax(dim=1) == self.labels).double().mean())


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Cross-entropies (n,) in nats of the images, their logits divided by one `temperature`.

    `loss` is their mean, by which networks are compared.
    """

    temperature: float
    loss: float
    image_losses: npt.NDArray[np.float64]


@torch.inference_mode()
def predict(
    model: CMT,
    split: DeviceSplit,
    *,
    batch_size: int,
    autocast: torch.autocast,
    check_in: CheckIn = never,
) -> Predictions:
    """Evaluate every image of the split; leaves `model` in eval mode."""
    model.eval()
    logits, labels = [], []
    for images, targets in eval_batches(
        split, batch_size=batch_size, resolution_px=model.variant.resolution_px
    ):
        with autocast:
            logits.append(model(images).cpu().double())  # Apple's GPUs have no float64
        labels.append(targets.cpu())
        stop_if_asked(check_in)
    return Predictions(logits=torch.cat(logits), labels=torch.cat(labels))


def fit(predictions: Predictions) -> Fit:
    """The losses of the images at the temperature that suits them best."""
    temperature = fit_temperature(predictions.logits, predictions.labels)
    losses = F.cross_entropy(predictions.logits / temperature, predictions.labels, reduction="none")
    return Fit(temperature=temperature, loss=float(losses.mean()), image_losses=losses.numpy())


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in [1/50, 50] that minimises the cross-entropy of logits / T (Guo et al., 2017).

    NaN where the logits are not finite.
    """
    if not torch.isfinite(logits).all():
        return math.nan

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    limit = math.log(50.0)
    best = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    return float(np.exp(best.x))
