"""From an image file to the network's input; the one way for packing, training and predicting."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

# what Pillow raises for broken files, SyntaxError for some broken PNG and TIFF
DECODING_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def decode(path: Path, *, channels: int) -> Image.Image:
    """The image in `path`, upright, as greyscale (1 channel) or RGB (3); `DECODING_ERRORS`."""
    with Image.open(path) as image:
        image.load()
        return as_channels(image, channels=channels)


def as_channels(image: Image.Image, *, channels: int) -> Image.Image:
    """An image as its EXIF data turn it, in greyscale or RGB."""
    upright = ImageOps.exif_transpose(image)
    if "transparency" in upright.info:  # a palette with alpha: Pillow warns unless it is unfolded
        upright = upright.convert("RGBA")
    return upright.convert("L" if channels == 1 else "RGB")


def cut_square(
    image: Image.Image, *, side_px: int, crop_fraction: float = 1.0
) -> npt.NDArray[np.uint8]:
    """The centre square as uint8 (side, side, C): `crop_fraction` of the short side, resized."""
    square = ImageOps.fit(
        image, (side_px, side_px), Image.Resampling.BICUBIC, bleed=(1 - crop_fraction) / 2
    )
    return np.asarray(square).reshape(side_px, side_px, -1)


def to_input(images: Tensor, *, mean: Tensor, std: Tensor, resolution_px: int) -> Tensor:
    """Normalised float (B, C, S, S), channels last, from uint8 (B, side, side, C).

    `mean` and `std` are (C,), for pixels in [0, 255].
    """
    # normalised before resizing, which is linear: most sources are smaller than the input
    pixels = images.float().sub_(mean).div_(std).permute(0, 3, 1, 2)  # (B, C, H, W)
    side_px = pixels.shape[-1]
    if side_px == resolution_px:
        return pixels
    size = (resolution_px, resolution_px)
    return F.interpolate(pixels, size=size, mode="bilinear", antialias=resolution_px < side_px)
