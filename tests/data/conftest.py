"""Small image trees on disk, drawn with Pillow."""

from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image

from cmtscale.data.dataset import Dataset
from cmtscale.data.sources import open_source


class ImageWriter(Protocol):
    def __call__(
        self, folder: Path, count: int, *, mode: str = ..., size: tuple[int, int] = ...
    ): ...


@pytest.fixture
def write_images() -> ImageWriter:
    """Write `count` noise images of a mode and (width, height) into a new folder."""

    def write(folder: Path, count: int, *, mode: str = "RGB", size: tuple[int, int] = (40, 40)):
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.RandomState(count)
        shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
        for number in range(count):
            pixels = random.randint(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:03}.png")

    return write


@pytest.fixture
def pets(tmp_path: Path, write_images: ImageWriter) -> Path:
    """Two classes of 20 RGB images, 40 x 40 px, not split."""
    for name in ("cat", "dog"):
        write_images(tmp_path / "pets" / name, 20)
    return tmp_path / "pets"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_source("digits", cache_dir=tmp_path_factory.mktemp("digits")).pack(32)
