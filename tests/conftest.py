"""One tiny search, finished once per test run, that several folders of tests look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmtscale.spec.variant import Stage, Variant

if TYPE_CHECKING:
    from cmtscale.search.outcome import Outcome
    from cmtscale.search.request import SearchRequest


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


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
def tiny_request(tiny_base: Variant, cache_dir: Path) -> "SearchRequest":
    """Four candidates, two seeds each, on the digits; a run takes about half a second."""
    from cmtscale.search.request import SearchRequest
    from cmtscale.train.recipe import Recipe

    return SearchRequest(
        budget_macs=4_000_000_000,
        proxy_base=tiny_base,
        proxy_macs=1_220_000,
        trials=4,
        recipe=Recipe(epochs=2, train_images=64, batch_size=64),
        seeds=2,
        device="cpu",
        workers=2,
        cache_dir=cache_dir,
    )


@pytest.fixture(scope="session")
def finished(tiny_request: "SearchRequest", tmp_path_factory: pytest.TempPathFactory) -> "Outcome":
    """The search of `tiny_request` on two workers. Its folder is for reading only."""
    from cmtscale.search.driver import search

    out = tmp_path_factory.mktemp("results") / "finished"
    with one_thread():
        outcome = search(replace(tiny_request, out=out))
    assert outcome is not None
    return outcome


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread, as a worker has: on tiny networks more of them only wait."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield
