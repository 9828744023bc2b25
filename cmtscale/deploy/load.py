"""Open a trained model, a folder or a single file: network, preprocessing and classes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from cmtscale.arch.errors import ModelError
from cmtscale.arch.variant import Variant
from cmtscale.data.preprocess import Preprocess
from cmtscale.model.networks import build_network
from cmtscale.model.saved import differing, listed, read_saved
from cmtscale.record.model_folder import ModelDescription


class LoadedModel(NamedTuple):
    """A network in eval mode, `preprocess` (image → (C, S, S)), and the names of its outputs."""

    model: nn.Module
    preprocess: Callable[[Image.Image | Path | str], Tensor]
    classes: tuple[str, ...]


def load_model(path: str | Path, *, device: str | torch.device = "cpu") -> LoadedModel:
    """Open the folder of a trained model or of the training that wrote it, or its single file.

    Nothing in them is executed: weights are safetensors, the rest is TOML. Raises `ModelError` for
    a path that holds no model, or whose weights are damaged or not those of the network it
    describes.
    """
    return open_model(Path(path), device=device)[0]


def open_model(
    path: Path, *, device: str | torch.device = "cpu"
) -> tuple[LoadedModel, ModelDescription]:
    """`load_model`, and all that is known of the model."""
    saved = read_saved(path)
    model = build_trained(saved.description, saved.weights, source=saved.source)
    loaded = LoadedModel(
        model=model.to(device),
        preprocess=Preprocess(saved.description.preprocessing),
        classes=saved.description.classes,
    )
    return loaded, saved.description


def build_trained(
    description: ModelDescription, weights: Mapping[str, Tensor], *, source: str
) -> nn.Module:
    """The described network in eval mode with these weights; `ModelError` if they do not fit."""
    network = description.network
    if isinstance(network, Variant) and sum(network.depths) > len(weights):
        raise ModelError(f"{source} holds fewer weights than the network in model.toml has blocks")
    try:
        with torch.device("meta"):  # a wide description takes no memory until it fits the file
            model = build_network(network)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ModelError(f"the network in model.toml of {source} cannot exist: {error}") from error
    if wrong := differing(weights, model.state_dict()):
        raise ModelError(
            f"{source} does not hold the weights of the network in model.toml: "
            f"{listed(wrong)} differ"
        )
    model = build_network(network)
    model.load_state_dict(dict(weights))
    return model.eval()
