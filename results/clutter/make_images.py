"""Writes images of Fashion-MNIST for three searches, as image folders; see README.md.

python results/clutter/make_images.py FOLDER    # FOLDER/enlarged, FOLDER/cluttered, FOLDER/coarse

The same images, splits and file names in each: as they are, on a cluttered canvas, and that canvas
reduced. An image's canvas depends on the seed and the image alone, not on how many are written.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cmtscale.data.dataset import Dataset
from cmtscale.data.sources import LARGEST_NATIVE_PX, open_source
from cmtscale.data.splits import SPLIT_NAMES, IntArray, stratified_draw

Pixels = npt.NDArray[np.uint8]  # (side, side)

SCALES = (0.75, 1.0)  # of the item on the canvas: never enlarged
FRAGMENT_PX = (8, 10)  # least and largest side
COARSE_PX = 64  # what the smallest twins see of a canvas


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="new, or empty")
    parser.add_argument("--canvas-px", type=int, default=160)
    parser.add_argument("--fragments", type=int, default=8, help="of other images on each canvas")
    parser.add_argument("--train", type=int, default=18_000, help="images of the training split")
    parser.add_argument("--val", type=int, default=4_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()):
        sys.exit(f"{args.folder} is not empty; name a new folder")
    dataset = open_source("fashion-mnist").pack(LARGEST_NATIVE_PX)
    counts = {name: getattr(args, name) for name in SPLIT_NAMES}
    for split, indices in selected(dataset, counts, seed=args.seed).items():
        for index in indices:
            item = dataset.images[index, :, :, 0]
            random = np.random.RandomState([args.seed, index])  # its stream is frozen (NEP 19)
            others = fragments(dataset, index, args.fragments, random)
            canvas = cluttered(item, others, side_px=args.canvas_px, random=random)
            coarse = resized(canvas, COARSE_PX)
            class_name = dataset.class_names[dataset.labels[index]].replace("/", "-")
            place = Path(split) / class_name / f"{index:05}.png"
            save(item, args.folder / "enlarged" / place)
            save(canvas, args.folder / "cluttered" / place)
            save(coarse, args.folder / "coarse" / place)


def selected(dataset: Dataset, counts: dict[str, int], *, seed: int) -> dict[str, IntArray]:
    """So many images of each of the data set's own splits, classes in proportion."""
    random = np.random.RandomState(seed)
    return {
        split: stratified_draw(
            dataset.labels, getattr(dataset.splits, split), count=count, random=random
        )
        for split, count in counts.items()
    }


def fragments(
    dataset: Dataset, index: int, count: int, random: np.random.RandomState
) -> Iterator[Pixels]:
    """`count` squares of training images other than `index`, turned and mirrored at random.

    Of training images only: nothing of a validation or test image is ever trained on.
    """
    train = dataset.splits.train
    for other in random.choice(train[train != index], count, replace=False):
        image = dataset.images[other, :, :, 0]
        side_px = random.randint(FRAGMENT_PX[0], FRAGMENT_PX[1] + 1)
        top, left = random.randint(0, len(image) - side_px + 1, size=2)
        piece = np.rot90(image[top : top + side_px, left : left + side_px], random.randint(4))
        yield piece[:, ::-1] if random.randint(2) else piece


def cluttered(
    item: Pixels, others: Iterator[Pixels], *, side_px: int, random: np.random.RandomState
) -> Pixels:
    """A black canvas with the fragments, and the item over them: nothing hides it."""
    canvas = np.zeros((side_px, side_px), dtype=np.uint8)
    for piece in others:
        part = somewhere(canvas, len(piece), random)
        np.maximum(part, piece, out=part)
    scaled = resized(item, round(len(item) * random.uniform(*SCALES)))
    part = somewhere(canvas, len(scaled), random)
    np.copyto(part, scaled, where=scaled > 0)
    return canvas


def somewhere(canvas: Pixels, side_px: int, random: np.random.RandomState) -> Pixels:
    """A square of the canvas at a place drawn uniformly, to be written to."""
    top, left = random.randint(0, len(canvas) - side_px + 1, size=2)
    return canvas[top : top + side_px, left : left + side_px]


def resized(image: Pixels, side_px: int) -> Pixels:
    """Bilinear and antialiased, as images are resized to a network's input."""
    return np.asarray(Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BILINEAR))


def save(image: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


if __name__ == "__main__":
    main()
