"""Reference data of the published network: names, shapes, logits and the weights behind them."""

import json
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cmtscale.arch.variant import Stage, Variant

RECORDS = {"cmt-ti": "cmt_ti-160.json", "cmt-s": "cmt_s-224.json"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Names, shapes and logits of the authors' network, and the checkpoint that gives them."""

    name: str
    shapes: dict[str, list[int]]
    checkpoint: dict[str, Tensor]
    images: Tensor
    logits: Tensor


@pytest.fixture(scope="session", params=RECORDS)
def published(request: pytest.FixtureRequest) -> Published:
    return read_published(request.param)


@pytest.fixture(scope="session")
def published_ti() -> Published:
    return read_published("cmt-ti")


def read_published(name: str) -> Published:
    folder = Path(__file__).parent / "parity"
    record = json.loads((folder / RECORDS[name]).read_text(encoding="utf-8"))
    fill = runpy.run_path(str(folder / "fill.py"))
    return Published(
        name=name,
        shapes=record["state_dict"],
        checkpoint={
            key: torch.as_tensor(fill["fill_tensor"](key, tuple(shape)))
            for key, shape in record["state_dict"].items()
        },
        images=torch.from_numpy(fill["input_batch"](record["resolution_px"])),
        logits=torch.tensor(record["logits"], dtype=torch.float64),
    )


@pytest.fixture
def tiny() -> Variant:
    """A CMT of a few thousand parameters at 64 px that has every kind of part."""
    stages = [
        Stage(dim=dim, depth=depth, heads=heads, reduction=reduction, expansion=2.5)
        for dim, depth, heads, reduction in (
            (4, 1, 1, 8),
            (8, 2, 2, 4),
            (16, 1, 4, 2),
            (32, 1, 8, 1),
        )
    ]
    return Variant(
        name="tiny",
        resolution_px=64,
        stem_channels=4,
        stages=(stages[0], stages[1], stages[2], stages[3]),
        num_classes=5,
    )


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
