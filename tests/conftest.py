"""One tiny finished search per test run, shared by several test folders."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cmtscale.arch.variant import Stage, Variant

if TYPE_CHECKING:
    from cmtscale.record.bench import Conditions
    from cmtscale.record.row import Row
    from cmtscale.search.outcome import Outcome
    from cmtscale.search.request import SearchRequest


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """What `nohup` and `&` ignore, the processes that tests start would ignore, too."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty grey images of two kinds, one in five misnamed: a training on them takes a second."""
    import numpy as np
    from PIL import Image

    tree, random = tmp_path_factory.mktemp("few_images"), np.random.default_rng(0)
    for kind, level in (("dark", 60), ("light", 160)):
        (tree / kind).mkdir()
        for number in range(30):
            brightness = level if number % 5 else 220 - level
            pixels = random.integers(brightness, brightness + 60, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tree / kind / f"{number}.png")
    return f"folder:{tree}"


@pytest.fixture(scope="session")
def tiny_base() -> Variant:
    """0.58 M MACs, one block in each stage."""
    first, second, third, fourth = (
        Stage(dim=4 * 2**i, depth=1, heads=1, reduction=8 >> i, expansion=4.0) for i in range(4)
    )
    return Variant(
        name="tiny",
        resolution_px=64,
        stem_channels=2,
        stages=(first, second, third, fourth),
        num_classes=10,
        in_channels=1,
    )


@pytest.fixture(scope="session")
def make_row() -> "Callable[..., Row]":
    """Makes a complete run's row: `make_row(candidate="b", seed=1)`; the run id follows."""
    from cmtscale.record.result import SCORING
    from cmtscale.record.row import Row

    def make(**changes: Any) -> Row:
        is_complete = changes.get("status", "complete") == "complete"
        values: dict[str, Any] = {
            "candidate": "d3-3-12-3_w52_r192",
            "alpha": 1.2,
            "beta": 1.3,
            "gamma": 1.15,
            "phi": 1.5,
            "macs": 4_000_000_000,
            "params": 25_000_000,
            "proxy_macs": 15_000_000,
            "resolution_px": 192,
            "dims": (52, 104, 208, 416),
            "depths": (3, 3, 12, 3),
            "seed": 0,
            "epochs": 2,
            "train_images": 1000,
            "val_loss": 0.5 if is_complete else None,
            "val_loss_raw": 0.6 if is_complete else None,
            "val_accuracy": 0.8 if is_complete else None,
            "train_loss": 0.9 if is_complete else None,
            "images_per_second": 640.0 if is_complete else None,
            "seconds": 12.5,
            "status": "complete",
            "cause": "",
            "role": "grid",
            "on_budget": True,
            "stray": 0.03,
            "activations": 13_000_000,
            "proxy_params": 230_000,
            "proxy_resolution_px": 64,
            "proxy_dims": (8, 16, 32, 64),
            "proxy_depths": (1, 1, 4, 1),
            "temperature": 1.1 if is_complete else None,
            "asked": 0,
            "asked_after": 0,
            "asked_by": "grid",
            "scoring": SCORING,
            "identity": "0123456789abcdef",
            **changes,
        }
        horizon = f"{values['epochs']}x{values['train_images']}"
        run_id = f"{values['candidate']}-{horizon}-s{values['seed']}"
        return Row(**{"run_id": run_id, **values})

    return make


@pytest.fixture(scope="session")
def conditions() -> "Conditions":
    """How a made-up benchmark was measured: on an idle CPU."""
    from cmtscale.record.bench import Conditions

    return Conditions(
        backend="torch",
        dtype="fp32",
        tf32=False,
        device="cpu",
        hardware="a processor, 2 cores",
        threads=2,
        compiled=False,
        rounds=10,
        passes_per_round=3,
        load_average=0.1,
        memory="what a pass adds",
        versions="torch 2",
    )


@pytest.fixture(scope="session")
def tiny_request(tiny_base: Variant, cache_dir: Path) -> "SearchRequest":
    """Four candidates, two seeds each, on the digits; a run takes about half a second."""
    from cmtscale.search.ladder import PRESETS
    from cmtscale.search.request import SearchRequest
    from cmtscale.train.recipe import Recipe

    return SearchRequest(
        budget_macs=4_000_000_000,
        proxy_base=tiny_base,
        proxy_macs=1_220_000,
        trials=4,
        recipe=Recipe(epochs=2, train_images=64, batch_size=64),
        seeds=2,
        ladder=PRESETS["flat"],
        prefer="params",
        device="cpu",
        workers=2,
        cache_dir=cache_dir,
    )


@pytest.fixture(scope="session")
def finished(tiny_request: "SearchRequest", tmp_path_factory: pytest.TempPathFactory) -> "Outcome":
    """The search of `tiny_request` on two workers. Tests must not change its folder."""
    from cmtscale.search.driver import search

    out = tmp_path_factory.mktemp("results") / "finished"
    with one_thread():
        outcome = search(replace(tiny_request, out=out))
    assert outcome is not None
    return outcome


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread, as a worker has: more are slower on tiny networks."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield
