"""Write a tree of 50,000 JPEGs the size of ImageNet's, of Fashion-MNIST's items.

python results/loader/make_jpegs.py FOLDER [--images 50000]    # 1.6 GB, some minutes
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from cmtscale.data.cache import default_cache_dir
from cmtscale.data.sources import open_source

SIZES = ((500, 375), (375, 500), (500, 333), (400, 300), (640, 480))  # width and height, px
ITEMS = 6  # of an image, each enlarged 4 to 10 times
CLASSES = 100
QUALITY = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    args = parser.parse_args()
    source = open_source("fashion-mnist", cache_dir=default_cache_dir()).stream()
    items = source.splits.train
    for number in range(args.images):
        path = args.folder / f"class{number % CLASSES:02d}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        random = np.random.RandomState(number)
        image = background(random)
        for _ in range(ITEMS):
            paste(image, source.images.open(int(items[random.randint(len(items))])), random)
        image.save(path, quality=QUALITY)


def background(random: np.random.RandomState) -> Image.Image:
    """A soft gradient of colours with a little grain, as photos have."""
    width, height = SIZES[random.randint(len(SIZES))]
    coarse = random.randint(0, 256, (4, 5, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    grain = random.randint(-6, 7, (height, width, 1))
    return Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))


def paste(canvas: Image.Image, item: Image.Image, random: np.random.RandomState) -> None:
    """Put one item, enlarged and coloured, at a random place."""
    side = 28 * random.randint(4, 11)
    mask = item.resize((side, side), Image.Resampling.BICUBIC)
    colour = tuple(int(value) for value in random.randint(0, 256, 3))
    left = random.randint(-side // 3, canvas.width - 2 * side // 3)
    top = random.randint(-side // 3, canvas.height - 2 * side // 3)
    canvas.paste(Image.new("RGB", (side, side), colour), (left, top), mask)


if __name__ == "__main__":
    main()
