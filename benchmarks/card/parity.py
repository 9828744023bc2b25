"""Does a card compute what the CPU computes in float64?

The logits of the authors' CMT-Ti, its weights drawn by their names (`tests/model/parity`), and one
AdamW step of a twin: loss, gradient of all weights, and how the weights move.
"""

import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from card.cells import Attention, Outcome, Precision, Setting
from cmtscale.arch.variant import Variant, variant
from cmtscale.model.cmt import build
from cmtscale.model.weights import load_published

RECORDS = Path(__file__).parents[2] / "tests" / "model" / "parity"

# Largest ‖card - float64‖ / ‖float64‖. A CPU deviates in fp32 by 5e-7 (logits), 2e-7 (loss), 1e-5
# (gradient) and 3e-5 (update), in bf16 by 8e-3, 6e-4, 9e-2 and 0.18 (the full plan's networks):
# a card may do 10 to 50 times worse in fp32, where it adds up in another order, and twice (loss,
# one number that can agree by chance: ten times) in bf16. A lost position bias changes the logits
# by 3e-2; TF32 instead of fp32 would by some 3e-4.
TOLERANCES = {
    ("logits", "fp32"): 1e-5,
    ("loss", "fp32"): 1e-5,
    ("gradient", "fp32"): 2e-4,
    ("update", "fp32"): 1e-3,
    ("logits", "bf16"): 2e-2,
    ("loss", "bf16"): 6e-3,
    ("gradient", "bf16"): 0.2,
    ("update", "bf16"): 0.4,
}
# AdamW's epsilon, a fortieth of a typical gradient. With 1e-8 the first step moves every weight by
# the learning rate, also those whose gradient is zero but for rounding (biases before a BatchNorm).
EPSILON = 1e-4


def measure_parity(setting: Setting, device: str) -> Outcome:
    """The relative error of the cell's quantity."""
    if setting.quantity == "logits":
        measured = _logits(setting.precision, setting.attention, device)
        expected = torch.tensor(_record()["logits"], dtype=torch.float64)
    else:
        assert setting.network is not None
        step = _step(setting.network, setting.batch, setting.precision, setting.attention, device)
        measured = step[setting.quantity]
        expected = _step(setting.network, setting.batch, "fp64", "explicit", "cpu")[
            setting.quantity
        ]
    return Outcome(
        error=float((measured - expected).norm() / expected.norm()),
        tolerance=TOLERANCES[setting.quantity, setting.precision],
    )


def switch_tf32_off() -> None:
    """Full fp32: by default cuDNN's convolutions, unlike matrix products, round to 10 bits."""
    torch.backends.cudnn.allow_tf32 = False


@torch.inference_mode()
def _logits(precision: Precision, attention: Attention, device: str) -> Tensor:
    switch_tf32_off()
    network = build(variant("cmt-ti"), attention=attention).eval()
    weights, images = _published()
    load_published(network, weights)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        return network.to(device)(images.to(device)).cpu().double()


@cache
def _record() -> dict[str, Any]:
    """Names and shapes of the authors' weights, and their logits in float64."""
    return json.loads((RECORDS / "cmt_ti-160.json").read_text(encoding="utf-8"))


@cache
def _published() -> tuple[dict[str, Tensor], Tensor]:
    """The weights and the images (2, 3, 160, 160) that gave the record."""
    fill = runpy.run_path(str(RECORDS / "fill.py"))
    weights = {
        name: torch.as_tensor(fill["fill_tensor"](name, tuple(shape)))
        for name, shape in _record()["state_dict"].items()
    }
    return weights, torch.from_numpy(fill["input_batch"](_record()["resolution_px"])).float()


@cache
def _step(
    network: Variant, batch: int, precision: str, attention: Attention, device: str
) -> dict[str, Tensor]:
    """Loss, gradient and update of all weights (float64, on the CPU) in one seeded step."""
    switch_tf32_off()
    dtype = torch.float64 if precision == "fp64" else torch.float32
    torch.manual_seed(0)
    model = build(network, attention=attention).train().to(device, dtype)
    side = network.resolution_px
    images = torch.randn(batch, network.in_channels, side, side).to(device, dtype)
    labels = torch.randint(network.num_classes, (batch,)).to(device)
    parameters = list(model.parameters())
    before = _flat(parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05, eps=EPSILON, fused=True)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    assert len(gradients) == len(parameters)
    return {
        "loss": loss.detach().cpu().double(),
        "gradient": _flat(gradients),
        "update": _flat(parameters) - before,
    }


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().cpu().double().flatten() for tensor in tensors])
