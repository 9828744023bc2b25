"""Open a trained model, a folder or a single file: network, preprocessing and classes."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from cmtscale.arch.errors import DataError, ModelError
from cmtscale.data.decode import DECODING_ERRORS, as_channels, cut_square, decode, to_input
from cmtscale.model.networks import build_network
from cmtscale.record.model_folder import (
    DESCRIPTION,
    WEIGHTS,
    ModelDescription,
    Preprocessing,
    find_model,
    read_description,
)
from cmtscale.record.single_file import read_content, unpack_model

LISTED = 5  # names of weights in an error


class Preprocess:
    """Makes images the input of a network, as `spec` says."""

    def __init__(self, spec: Preprocessing) -> None:
        self.spec = spec
        self._mean, self._std = (255 * torch.tensor(values) for values in (spec.mean, spec.std))

    def __call__(self, image: Image.Image | Path | str) -> Tensor:
        """A Pillow image or a file → float (C, S, S); raises `DataError` for a broken file."""
        batch = torch.from_numpy(self.pixels(image))[None]
        return to_input(
            batch, mean=self._mean, std=self._std, resolution_px=self.spec.resolution_px
        )[0]

    def pixels(self, image: Image.Image | Path | str) -> npt.NDArray[np.uint8]:
        """What of an image the network gets to see: uint8 (side, side, C); errors as above."""
        spec = self.spec
        if isinstance(image, Image.Image):
            picture = as_channels(image, channels=spec.channels)
        else:
            path = Path(image)
            try:
                picture = decode(path, channels=spec.channels)
            except DECODING_ERRORS as error:
                raise DataError(f"{path} is no image that can be read: {error}") from error
        square = cut_square(picture, side_px=spec.stored_px, crop_fraction=spec.crop_fraction)
        return np.array(square)  # writable


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
    if path.is_file():
        content = read_content(path)
        description, weights_path = unpack_model(content, source=str(path)), path
    else:
        folder = find_model(path)
        (description, digest), weights_path = read_description(folder), folder / WEIGHTS
        content = read_content(weights_path)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ModelError(
                f"{weights_path} is not the file that {DESCRIPTION} describes; copy both anew"
            )
    model = build_trained(description, content, source=str(weights_path))
    loaded = LoadedModel(
        model=model.to(device),
        preprocess=Preprocess(description.preprocessing),
        classes=description.classes,
    )
    return loaded, description


def build_trained(description: ModelDescription, content: bytes, *, source: str) -> nn.Module:
    """The described network in eval mode with the weights in `content`, a file of safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights = load(content)
    except SafetensorError as error:
        raise ModelError(
            f"{source} cannot be read: {error}; train or copy the model anew"
        ) from error
    with torch.device("meta"):  # a description of any size takes no memory until it fits the file
        model = build_network(description.network)
    _require_fit(weights, model.state_dict(), source)
    model = build_network(description.network)
    model.load_state_dict(dict(weights))
    return model.eval()


def _require_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Any], source: str) -> None:
    wrong = sorted(
        name
        for name in weights.keys() | expected.keys()
        if name not in weights
        or name not in expected
        or weights[name].shape != expected[name].shape
    )
    if wrong:
        rest = f" and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise ModelError(
            f"{source} does not hold the weights of the network in model.toml: "
            f"{', '.join(wrong[:LISTED])}{rest} differ"
        )
