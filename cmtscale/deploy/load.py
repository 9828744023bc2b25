"""Open a trained model's folder: the network, its preprocessing and its classes."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from cmtscale.arch.errors import ModelError
from cmtscale.data.preprocess import Preprocess
from cmtscale.model.networks import build_network
from cmtscale.model.saved import differing, listed, read_weights
from cmtscale.record.model_folder import (
    WEIGHTS,
    ModelDescription,
    find_model,
    read_description,
)


class LoadedModel(NamedTuple):
    """A network in eval mode, `preprocess` (image → (C, S, S)), and the names of its outputs."""

    model: nn.Module
    preprocess: Callable[[Image.Image | Path | str], Tensor]
    classes: tuple[str, ...]


def load_model(path: str | Path, *, device: str | torch.device = "cpu") -> LoadedModel:
    """Open the folder of a trained model, or of the training that wrote it.

    Nothing in the folder is executed: weights are safetensors, the rest is TOML. Raises
    `ModelError` for a folder that holds no model, or whose weights are damaged or not those of the
    network it describes.
    """
    folder = find_model(Path(path))
    description, digest = read_description(folder)
    return LoadedModel(
        model=_load_network(folder, description, digest).to(device),
        preprocess=Preprocess(description.preprocessing),
        classes=description.classes,
    )


def _load_network(folder: Path, description: ModelDescription, digest: str) -> nn.Module:
    weights = read_weights(folder, digest)
    with torch.device("meta"):  # a description of any size takes no memory until it fits the file
        model = build_network(description.network)
    if wrong := differing(weights, model.state_dict()):
        raise ModelError(
            f"{folder / WEIGHTS} does not hold the weights of the network in model.toml: "
            f"{listed(wrong)} differ"
        )
    model = build_network(description.network)
    model.load_state_dict(dict(weights))
    return model.eval()
