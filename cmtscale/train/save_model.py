"""From a finished training to the folder of a model."""

from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import ModelError
from cmtscale.arch.network import Network
from cmtscale.arch.variant import Variant
from cmtscale.data.dataset import Dataset
from cmtscale.data.splits import Splits
from cmtscale.model.networks import count_timm
from cmtscale.record.model_card import model_card
from cmtscale.record.model_folder import (
    MODEL,
    ModelDescription,
    Preprocessing,
    Scores,
    Size,
    find_model,
    read_description,
    write_model,
)
from cmtscale.record.result import RunResult

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


def model_stands(out: Path, test_accuracy: float | None) -> bool:
    """Whether the training in `out` has its model, with this test accuracy if there is one."""
    with suppress(ModelError):
        scores = read_description(find_model(out))[0].scores
        return test_accuracy is None or scores.test_accuracy == test_accuracy
    return False


def scores_of(result: RunResult, splits: Splits, test_accuracy: float | None) -> Scores:
    """The scores of a complete training."""
    assert result.val_accuracy is not None
    assert result.val_loss is not None
    assert result.temperature is not None
    return Scores(
        val_images=len(splits.val),
        val_accuracy=result.val_accuracy,
        val_loss=result.val_loss,
        temperature=result.temperature,
        test_images=None if test_accuracy is None else len(splits.test),
        test_accuracy=test_accuracy,
    )


def save_model(out: Path, description: ModelDescription, weights: Mapping[str, Tensor]) -> Path:
    """Write the model of the training in `out`; returns its folder."""
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in weights.items()}
    write_model(out / MODEL, description, arrays, card=model_card(description))
    return out / MODEL
