"""The small data sets that are known by name: digits, Fashion-MNIST, CIFAR-10 and CIFAR-100."""

import contextlib
import gzip
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cmtscale.arch.errors import DataError, first_line
from cmtscale.data.cache import own_folder
from cmtscale.data.dataset import Description
from cmtscale.data.pack import Pool
from cmtscale.data.splits import IntArray

# source → its class in torchvision.datasets; digits comes with scikit-learn
TORCHVISION = {"fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
# as they are split here: 15 % of the digits, and 10 % of the others' training images, validate
NAMED = {
    "digits": Description(num_classes=10, channels=1, train_images=1_257, val_images=270),
    "fashion-mnist": Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000),
    "cifar10": Description(num_classes=10, channels=3, train_images=45_000, val_images=5_000),
    "cifar100": Description(num_classes=100, channels=3, train_images=45_000, val_images=5_000),
}
# what no file leads a reader to: short memory, and mistakes of programs
NOT_OF_FILES = (MemoryError, ImportError, NameError, AttributeError, AssertionError)
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
FASHION_MNIST_FILES = {  # images and labels, training before test, gzipped (.gz) or not
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


def read_named(name: str, cache_dir: Path, *, data_dir: Path | None, download: bool) -> Pool:
    """The images of one of `NAMED`; raises `DataError` where they are neither here nor to be had.

    `data_dir` (default `$CMTSCALE_DATA`, then the cache's downloads) is laid out as torchvision's
    root; `download` allows a checked download into the cache.
    """
    if name == "digits":
        return _read_digits()
    root = data_root(cache_dir, data_dir)
    if name == "fashion-mnist" and (local := _find_fashion_mnist(root)):
        return _read_fashion_mnist(local)
    hint = ", or install Debian's dataset-fashion-mnist" if name == "fashion-mnist" else ""
    train, test = open_torchvision(
        name,
        TORCHVISION[name],
        [{"train": True}, {"train": False}],
        root=root,
        cache_dir=cache_dir,
        download=download,
        needs=f"torchvision's copy of it{hint}",
    )
    if name == "fashion-mnist":
        return _read_fashion_mnist(root / "FashionMNIST" / "raw")
    return _pool_with_test(
        images=[train.data, test.data],
        labels=[np.array(part.targets, dtype=np.int64) for part in (train, test)],
        class_names=tuple(train.classes),
    )


def data_root(cache_dir: Path, data_dir: Path | None) -> Path:
    """Where named sets lie: `data_dir`, else `$CMTSCALE_DATA`, else the cache's downloads."""
    environment = os.environ.get("CMTSCALE_DATA")
    given = data_dir or (Path(environment) if environment else None)
    return given.expanduser() if given else _downloads(cache_dir)


def open_torchvision(
    name: str,
    kind: str,
    parts: Sequence[Mapping[str, Any]],
    *,
    root: Path,
    cache_dir: Path,
    download: bool | None,
    needs: str,
) -> list[Any]:
    """The data set `name` of torchvision's class `kind`, opened with the arguments of each part.

    Raises `DataError` that says what `needs` to lie in `$CMTSCALE_DATA` where it is neither in
    `root` nor to be had. `download` is None for a set that no site offers.
    """
    from torchvision import datasets

    dataset = getattr(datasets, kind)
    if download and root == _downloads(cache_dir):
        own_folder(root)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints; stdout is for results
            return [dataset(root, download=bool(download), **part) for part in parts]
    except NOT_OF_FILES:
        raise
    except Exception as error:  # readers of annotations raise whatever a foreign file leads to
        cause = getattr(error, "reason", error)  # of a failed download
        reason = first_line(cause if isinstance(cause, Exception) else error).rstrip(".")
        absent = f"{name} is neither in {root} nor can it be downloaded ({reason})"
        if download is None:
            absent = f"{name} is not in {root} ({reason}), and no site offers it for download"
        raise DataError(f"{absent}; set CMTSCALE_DATA to a folder that holds {needs}") from error


def _downloads(cache_dir: Path) -> Path:
    return cache_dir / "downloads"


def _read_digits() -> Pool:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 17 levels of ink
    return Pool(
        blocks=[images[..., None]],
        shape=(*images.shape, 1),
        labels=digits.target.astype(np.int64),
        class_names=tuple(str(digit) for digit in range(10)),
        given={},
        native_px=images.shape[1],
        may_flip=False,  # a mirrored 2 is no 2
    )


def _find_fashion_mnist(root: Path) -> Path | None:
    """The first local folder that has all four IDX files, gzipped or not."""
    for folder in (root / "FashionMNIST" / "raw", DEBIAN_FASHION_MNIST):
        if all(_plain_or_gz(folder / name) for name in FASHION_MNIST_FILES):
            return folder
    return None


def _read_fashion_mnist(folder: Path) -> Pool:
    # not through torchvision: it will not unpack gzipped files other than its own download
    from torchvision.datasets import FashionMNIST

    images, labels, test_images, test_labels = (
        _read_idx(folder / name, shape) for name, shape in FASHION_MNIST_FILES.items()
    )
    if (label := max(labels.max(), test_labels.max())) > 9:
        raise DataError(f"label {label} in {folder}; Fashion-MNIST's are 0 to 9, replace the files")
    return _pool_with_test(
        images=[images[..., None], test_images[..., None]],
        labels=[labels.astype(np.int64), test_labels.astype(np.int64)],
        class_names=tuple(FashionMNIST.classes),
    )


def _plain_or_gz(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return next((file for file in (path, packed) if file.is_file()), None)


def _read_idx(name: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """One IDX file: two zero bytes, type 8 (uint8), number of axes, big-endian sides, data."""
    path = _plain_or_gz(name)
    assert path is not None
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; replace it or remove it") from error
    header = bytes((0, 0, 8, len(shape))) + np.array(shape, dtype=">i4").tobytes()
    if not data.startswith(header) or len(data) != len(header) + int(np.prod(shape)):
        raise DataError(
            f"{path} is not Fashion-MNIST's file of {'x'.join(map(str, shape))} bytes; "
            "replace it or remove it"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=len(header)).reshape(shape)


def _pool_with_test(
    *,
    images: list[npt.NDArray[np.uint8]],
    labels: list[IntArray],
    class_names: tuple[str, ...],
) -> Pool:
    """A pool of official training and test images, in this order."""
    count, side, _, channels = images[0].shape
    total = count + len(images[1])
    return Pool(
        blocks=images,
        shape=(total, side, side, channels),
        labels=np.concatenate(labels),
        class_names=class_names,
        given={"train": np.arange(count), "test": np.arange(count, total)},
        native_px=side,
    )
