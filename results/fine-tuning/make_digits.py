"""Write a few of the UCI digits of each class as an image folder: a small set to transfer to.

python results/fine-tuning/make_digits.py FOLDER [--draw 0] [--of-class 10]

`--of-class` images train and as many validate; all others test. Seeds draw which.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--of-class", type=int, default=10)
    args = parser.parse_args()
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 17 levels of ink
    random = np.random.RandomState(args.draw)
    for digit in range(10):
        indices = random.permutation(np.flatnonzero(digits.target == digit))
        count = args.of_class
        parts = {"train": indices[:count], "val": indices[count : 2 * count]}
        parts["test"] = indices[2 * count :]
        for part, chosen in parts.items():
            folder = args.folder / part / str(digit)
            folder.mkdir(parents=True)
            for index in chosen:
                Image.fromarray(images[index]).save(folder / f"{index:04d}.png")


if __name__ == "__main__":
    main()
