"""What a training takes of a GPU's memory; the GPU is made up."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from cmtscale.arch.variant import Variant
from cmtscale.train import gpu_memory
from cmtscale.train.gpu_memory import Card, card_of, training_bytes
from cmtscale.train.recipe import Recipe


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """A function: what training does on a card of 100 bytes, of which 50 are free afterwards."""
    answers = {
        "mem_get_info": (50, 100),
        "memory_reserved": 30,
        "max_memory_reserved": 45,
        "get_device_name": "made up",
        "reset_peak_memory_stats": None,
        "empty_cache": None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)

    def use(train: Any) -> None:
        monkeypatch.setattr(gpu_memory, "images_per_second", train)

    return use


def taken(tiny_base: Variant) -> int:
    return training_bytes(tiny_base, Recipe(), batch=32, device="cuda:0")


def test_a_training_takes_its_peak_and_what_cuda_has_beside_tensors(
    gpu: Callable[[Any], None], tiny_base: Variant
) -> None:
    batches = []
    gpu(lambda *_, batch, **__: batches.append(batch))
    assert taken(tiny_base) == 45 + (100 - 50 - 30)
    assert batches == [32]
    assert card_of("cuda:0") == Card(name="made up", memory_bytes=100)


def test_a_training_whose_batch_does_not_fit_takes_all_of_the_card(
    gpu: Callable[[Any], None], tiny_base: Variant
) -> None:
    def too_large(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("2 GiB wanted")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes differ")

    gpu(too_large)
    assert taken(tiny_base) == 100
    gpu(broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        taken(tiny_base)


def test_memory_is_counted_on_no_cpu(tiny_base: Variant) -> None:
    assert training_bytes(tiny_base, Recipe(), batch=4, device="cpu") == 0
    assert card_of("cpu") == Card(name="cpu", memory_bytes=0)
