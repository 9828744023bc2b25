"""Searches the same images enlarged, and small on a cluttered canvas; see README.md.

python results/clutter/run.py IMAGES [--arms coarse] [flags of `cmtscale search`]

IMAGES is the folder that make_images.py wrote. The searches run one after the other, and go on
where they were stopped.
"""

import argparse
import sys
from pathlib import Path

from cmtscale.cli.app import run
from cmtscale.record.files import write_text_atomically
from cmtscale.record.folder import BEST, ENVIRONMENT, REQUEST

ARMS = ("enlarged", "cluttered", "coarse")
SEARCH = (
    "search --budget 4.0G --ladder flat --train-images 18000 --epochs 1 --no-augment --seeds 2 "
    "--prefer params --device cpu"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS[:2])
    args, flags = parser.parse_known_args()
    for arm in args.arms:
        code = search(arm, args.images.resolve(), flags)
        if code:
            return code
    return 0


def search(arm: str, images: Path, flags: list[str]) -> int:
    """Search on the images of an arm, in a folder of its own; the exit code.

    Its record keeps the name of the image folder without the machine's path to it.
    """
    folder = Path(__file__).parent / arm
    short, whole = f"folder:{arm}", f"folder:{images / arm}"
    replace_in_record(folder, short, whole)
    try:
        return run([*SEARCH.split(), "--data", whole, "--out", str(folder), *flags])
    finally:
        replace_in_record(folder, whole, short)


def replace_in_record(folder: Path, old: str, new: str) -> None:
    for path in (folder / REQUEST, folder / ENVIRONMENT, folder / BEST):
        if path.exists():
            text = path.read_text(encoding="utf-8")
            write_text_atomically(path, text.replace(old, new))


if __name__ == "__main__":
    sys.exit(main())
