"""An image as a trained network takes it: the same for validation, `load_model` and predictions."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from cmtscale.arch.errors import DataError
from cmtscale.data.decode import DECODING_ERRORS, as_channels, cut_square, decode, to_input
from cmtscale.record.model_folder import Preprocessing


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
