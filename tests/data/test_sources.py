"""Named sources: their contents, where they are looked for, and the error when missing."""

import gzip
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from cmtscale.arch.errors import DataError
from cmtscale.data import named
from cmtscale.data.cache import cache_report
from cmtscale.data.dataset import Dataset, Description
from cmtscale.data.sources import NAMES, DataSpec, open_source, parse_spec

IDX_NAMES = tuple(named.FASHION_MNIST_FILES)


@pytest.mark.parametrize("spec", ["fashion-mnist", "Fashion_MNIST"])
def test_a_source_is_found_however_it_is_spelt(spec: str) -> None:
    assert parse_spec(spec) == DataSpec(text="fashion-mnist", name="fashion-mnist")


def test_a_folder_is_named_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "pets"
    expected = DataSpec(text=f"folder:{path}", name="pets", path=path)
    assert parse_spec(f"folder:{path}/") == expected


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("mnist", "use fashion-mnist"),
        ("cifar", "use cifar10"),
        ("digit", "use digits"),
        ("./flowers", r"use folder:\./flowers"),
        ("folder:", "use folder:PATH"),
        ("folders:/a/b", "use folder:/a/b"),
    ],
)
def test_a_wrong_source_is_refused_with_the_nearest(spec: str, hint: str) -> None:
    with pytest.raises(DataError, match=hint) as caught:
        parse_spec(spec)
    assert "\n" not in str(caught.value)


def test_a_wrong_source_is_refused_without_importing_torch() -> None:
    program = (
        "import sys\n"
        "from cmtscale.data.sources import open_source\n"
        "try: open_source('mnits')\n"
        "except ValueError as error: print(error)\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'PIL', 'pandas'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert f"is not one of {', '.join(NAMES)}, folder:PATH" in done.stdout


def test_digits_are_scikit_learns(digits: Dataset) -> None:
    original = load_digits()
    assert np.array_equal(np.rint(digits.images[..., 0] * (16 / 255)), original.images)
    assert np.array_equal(digits.labels, original.target)
    assert digits.images.dtype == np.uint8
    assert (digits.channels, digits.num_classes, digits.native_px) == (1, 10, 8)
    assert not digits.may_flip
    assert digits.class_names == tuple("0123456789")


def test_mean_and_std_are_those_of_the_training_split(digits: Dataset) -> None:
    train = digits.images[digits.splits.train] / 255
    assert digits.mean == pytest.approx([train.mean()], rel=1e-12)
    assert digits.std == pytest.approx([train.std()], rel=1e-12)


def fashion_mnist_folder() -> Path:
    root = Path(os.environ.get("CMTSCALE_DATA", "/nowhere"))
    folder = named._find_fashion_mnist(root)
    if folder is None:
        pytest.skip("no Fashion-MNIST: install Debian's dataset-fashion-mnist or set CMTSCALE_DATA")
    return folder


def test_fashion_mnist_is_complete_and_keeps_its_test_split(tmp_path: Path) -> None:
    fashion_mnist_folder()
    fashion = open_source("fashion-mnist", cache_dir=tmp_path, download=False).pack(64)
    assert fashion.images.shape == (70_000, 28, 28, 1)
    assert np.array_equal(fashion.splits.test, np.arange(60_000, 70_000))
    assert (len(fashion.splits.train), len(fashion.splits.val)) == (54_000, 6_000)
    for part in (fashion.splits.train, fashion.splits.val, fashion.splits.test):
        assert len(set(np.bincount(fashion.labels[part]))) == 1
    assert fashion.class_names[9] == "Ankle boot"
    assert fashion.labels[0] == 9
    assert fashion.may_flip
    # the usual figures of Fashion-MNIST; ours come from nine tenths of its training images
    assert fashion.mean == pytest.approx([0.2860], abs=1e-3)
    assert fashion.std == pytest.approx([0.3530], abs=1e-3)


def test_fashion_mnist_is_read_from_a_given_root_first(tmp_path: Path) -> None:
    source = fashion_mnist_folder()
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in IDX_NAMES:
        (path,) = (path for path in (source / name, source / f"{name}.gz") if path.exists())
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        # unpacked, with one pixel changed to distinguish it from the system's copy
        (raw / name).write_bytes(data[:-1] + b"\x7b" if "t10k-images" in name else data)
    source = open_source(
        "fashion-mnist",
        cache_dir=tmp_path / "cache",
        data_dir=tmp_path / "data",
        download=False,
    )
    data = source.pack(64)
    assert data.images[-1, -1, -1, 0] == 0x7B


def test_fashion_mnist_labels_out_of_range_are_noticed(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, shape in named.FASHION_MNIST_FILES.items():
        header = bytes((0, 0, 8, len(shape))) + np.array(shape, dtype=">i4").tobytes()
        (raw / name).write_bytes(header + bytes([10]) * int(np.prod(shape)))
    with pytest.raises(DataError, match=r"label 10 in .*raw; .* 0 to 9"):
        open_source("fashion-mnist", cache_dir=tmp_path / "cache", data_dir=tmp_path).pack(64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"\0\0\x08\x03" + bytes(12)), "not Fashion-MNIST's file of 60000x28x28"),
        (gzip.compress(bytes(1000))[:-10], "cannot be read"),
        (b"<html>404</html>", "cannot be read"),
    ],
)
def test_a_damaged_fashion_mnist_file_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in IDX_NAMES:
        (raw / f"{name}.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"{IDX_NAMES[0]}.gz.*{message}"):
        open_source("fashion-mnist", cache_dir=tmp_path / "cache", data_dir=tmp_path).pack(64)


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_a_missing_data_set_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(named, "DEBIAN_FASHION_MNIST", tmp_path / "none")
    monkeypatch.setenv("CMTSCALE_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=rf"^{name} is neither in {tmp_path}/mine .*CMTSCALE_DATA"):
        open_source(name, cache_dir=tmp_path / "cache", download=False).pack(64)
    assert cache_report(tmp_path / "cache") == []


def test_without_a_network_there_is_one_line_and_stdout_stays_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: Path, **settings: bool) -> None:
        assert settings["download"]
        print("Downloading")
        raise URLError("Name or service not known")

    monkeypatch.delenv("CMTSCALE_DATA", raising=False)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", offline)
    with pytest.raises(DataError, match=r"Name or service not known.*set CMTSCALE_DATA") as caught:
        open_source("cifar10", cache_dir=tmp_path).pack(64)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_cifar_keeps_torchvisions_images_labels_and_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.RandomState(0)

    def fake(root: Path, *, train: bool, **_: bool) -> SimpleNamespace:
        assert root == tmp_path / "downloads"
        count = 60 if train else 20
        data = random.randint(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        targets = [number % 2 for number in range(count)]
        made[train] = data
        return SimpleNamespace(data=data, targets=targets, classes=["plane", "car"])

    made: dict[bool, np.ndarray] = {}
    monkeypatch.delenv("CMTSCALE_DATA", raising=False)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake)
    cifar = open_source("cifar10", cache_dir=tmp_path).pack(64)
    assert np.array_equal(cifar.images, np.concatenate([made[True], made[False]]))
    assert np.array_equal(cifar.splits.test, np.arange(60, 80))
    assert (len(cifar.splits.val), cifar.channels, cifar.native_px) == (6, 3, 32)
    assert {entry.name.split("-")[0] for entry in cache_report(tmp_path)} == {
        "cifar10",
        "downloads",
    }


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_the_description_of_a_named_set_is_that_of_its_images(name: str, tmp_path: Path) -> None:
    if name == "fashion-mnist" and not named.DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("no local Fashion-MNIST")
    source = open_source(name, cache_dir=tmp_path, download=False)
    described = source.describe()
    assert list(tmp_path.iterdir()) == []  # nothing was read yet
    packed = source.pack(64)
    assert described == Description(
        num_classes=packed.num_classes,
        channels=packed.channels,
        train_images=len(packed.splits.train),
        val_images=len(packed.splits.val),
    )
