"""A network that knows the digits, trained once, as the folder that `train` writes."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from cmtscale.arch.variant import Variant
from cmtscale.cli.app import run
from cmtscale.data.dataset import Dataset
from cmtscale.data.sources import open_source
from cmtscale.train.recipe import Recipe
from cmtscale.train.single import train_single


@pytest.fixture(scope="session")
def digits(cache_dir: Path) -> Dataset:
    return open_source("digits", cache_dir=cache_dir).pack(64)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Dataset, tiny_base: Variant) -> Path:
    """The folder of a training; treat it as read-only."""
    out = tmp_path_factory.mktemp("trained") / "out"
    with torch.random.fork_rng(devices=[]):
        train_single(
            replace(tiny_base, name="tiny"),
            Recipe(epochs=2, train_images=800),
            digits,
            seed=0,
            device="cpu",
            folder=out,
            source={"data": "digits", "split_seed": 0},
            test=True,
        )
    return out


class ExportedFile(NamedTuple):
    """A file that `cmtscale export` wrote, and what the command printed on stdout and stderr."""

    path: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def exported(
    trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ExportedFile]:
    """Exports the trained digits network in a format, once per test run."""
    folder = tmp_path_factory.mktemp("exported")
    suffixes = {"onnx": ".onnx", "torch-export": ".pt2", "safetensors": ".safetensors"}

    @cache
    def export(format: str) -> ExportedFile:
        path = folder / f"digits{suffixes[format]}"
        stdout, stderr = io.StringIO(), io.StringIO()
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = run(["export", str(trained), "--format", format, "--out", str(path)])
        assert code == 0, stderr.getvalue()
        return ExportedFile(path, stdout.getvalue(), stderr.getvalue())

    return export
