"""From a finished training to the folder of a model."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtscale.arch.cost import cost
from cmtscale.arch.network import Network
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset
from cmtscale.model.networks import count_timm
from cmtscale.record.model_card import model_card
from cmtscale.record.model_folder import (
    MODEL,
    ModelDescription,
    Preprocessing,
    Size,
    write_model,
)

PACKAGES = ("cmtscale", "torch", "timm")


def packed_preprocessing(dataset: Dataset, resolution_px: int) -> Preprocessing:
    """What packing and batching do to an image of this data set, for one that comes later."""
    return Preprocessing(
        channels=dataset.channels,
        resolution_px=resolution_px,
        stored_px=dataset.images.shape[1],
        crop_fraction=1.0,
        mean=dataset.mean,
        std=dataset.std,
    )


def size_of(network: Network) -> Size:
    """MACs and parameters of a network."""
    if isinstance(network, Variant):
        counted = cost(network)
        return Size(macs=counted.macs, params=counted.params)
    count = count_timm(network)
    return Size(macs=count.macs, params=count.params)


def versions() -> str:
    """`cmtscale 0.1.0, torch 2.14.1, timm 1.0.31`."""
    return ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)


def save_model(out: Path, description: ModelDescription, weights: Mapping[str, Tensor]) -> Path:
    """Write the model of the training in `out`; returns its folder."""
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in weights.items()}
    write_model(out / MODEL, description, arrays, card=model_card(description))
    return out / MODEL
