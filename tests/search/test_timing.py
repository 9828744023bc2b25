"""How long runs are expected to take, and what timing them leaves behind."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError, VariantError
from cmtscale.arch.variant import Variant
from cmtscale.data.pack import Dataset
from cmtscale.data.sources import load_data
from cmtscale.model.cmt import CMT
from cmtscale.search import timing
from cmtscale.search.timing import EVALUATION_SHARE, time_runs
from cmtscale.train.recipe import Recipe


@dataclass
class Steps:
    """A clock and training steps that take `seconds(batch)` and nothing else."""

    seconds: Callable[[int], float] = lambda batch: 0.001 * batch
    too_large: set[str] = field(default_factory=set)
    batches: list[int] = field(default_factory=list)
    now: float = 0.0

    def step(self, model: CMT, _optimizer: object, _autocast: object, batch: int) -> float:
        if model.variant.name in self.too_large and batch > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.batches.append(batch)
        seconds = self.seconds(batch)
        self.now += seconds
        return seconds


@pytest.fixture(scope="module")
def digits(cache_dir: Path) -> Dataset:
    return load_data("digits", resolution_px=64, cache_dir=cache_dir)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(timing, "_step_seconds", steps.step)
    monkeypatch.setattr(time, "perf_counter", lambda: steps.now)
    return steps


@pytest.mark.parametrize(
    ("recipe", "batch"),
    [
        (Recipe(batch_size=128), 128),
        (Recipe(batch_size=50), 50),
        (Recipe(batch_size=1), 1),
        (Recipe(batch_size=64, train_images=20), 20),
        (Recipe(batch_size=5000), 1257),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_a_step_is_timed_at_the_batch_size_of_the_runs(
    tiny_base: Variant, digits: Dataset, steps: Steps, recipe: Recipe, batch: int
) -> None:
    time_runs([tiny_base], recipe, digits, "cpu")
    assert steps.batches[-2:] == [batch] * 2
    assert max(steps.batches) == batch


def test_a_run_takes_its_steps_and_its_evaluations(
    tiny_base: Variant, digits: Dataset, steps: Steps
) -> None:
    (seconds,) = time_runs([tiny_base], Recipe(epochs=3, batch_size=100), digits, "cpu")
    assert len(digits.splits.train) == 1257
    images = 3 * (1200 + EVALUATION_SHARE * len(digits.splits.val))
    assert seconds == pytest.approx(0.001 * images)
    assert steps.now < 1


def test_the_first_step_of_a_batch_size_warms_up(
    tiny_base: Variant, digits: Dataset, steps: Steps
) -> None:
    steps.seconds = lambda batch: 1.0 if steps.batches.count(batch) == 1 else 0.001 * batch
    recipe = Recipe(epochs=1, batch_size=3, train_images=30)
    (seconds,) = time_runs([tiny_base], recipe, digits, "cpu")
    assert seconds == pytest.approx(0.001 * (30 + EVALUATION_SHARE * len(digits.splits.val)))


@pytest.mark.parametrize(
    ("seconds_per_image", "batches"),
    [
        (0.001, [2, 8, 32, 100, 100, 100]),
        (0.02, [2, 8, 32, 100, 100, 100]),
        (0.1, [2, 8]),
        (9, [2]),
    ],
)
def test_a_step_of_more_than_three_seconds_is_estimated_from_a_smaller_one(
    tiny_base: Variant,
    digits: Dataset,
    steps: Steps,
    seconds_per_image: float,
    batches: list[int],
) -> None:
    steps.seconds = lambda batch: seconds_per_image * batch
    (seconds,) = time_runs([tiny_base], Recipe(epochs=1, batch_size=100), digits, "cpu")
    images = 1200 + EVALUATION_SHARE * len(digits.splits.val)
    assert seconds == pytest.approx(seconds_per_image * images)
    *_, first = (index for index, batch in enumerate(steps.batches) if batch == 2)
    assert steps.batches[first:] == batches


def test_networks_that_timing_does_not_come_to_are_estimated_by_their_macs(
    tiny_base: Variant, digits: Dataset, steps: Steps
) -> None:
    steps.seconds = lambda batch: 0.02 * batch  # 7 s for a network
    larger = replace(tiny_base, num_classes=1000)
    networks = [tiny_base, tiny_base, tiny_base, larger]
    seconds = time_runs(networks, Recipe(batch_size=100), digits, "cpu")
    assert steps.batches.count(100) == 9
    assert seconds[0] == seconds[1] == seconds[2]
    assert seconds[3] / seconds[0] == pytest.approx(cost(larger).macs / cost(tiny_base).macs)
    assert seconds[3] > 1.5 * seconds[0]


def test_a_network_too_large_for_the_memory_is_estimated_by_its_macs(
    tiny_base: Variant, digits: Dataset, steps: Steps
) -> None:
    steps.too_large = {"larger"}
    larger = replace(tiny_base, name="larger", num_classes=1000)
    first, second = time_runs([larger, tiny_base], Recipe(batch_size=100), digits, "cpu")
    assert first / second == pytest.approx(cost(larger).macs / cost(tiny_base).macs)


def test_networks_that_are_all_too_large_are_refused(
    tiny_base: Variant, digits: Dataset, steps: Steps
) -> None:
    steps.too_large = {tiny_base.name}
    with pytest.raises(RequestError, match=r"100 images of no candidate fit .* use a smaller"):
        time_runs([tiny_base], Recipe(batch_size=100), digits, "cpu")


def test_timing_leaves_the_threads_as_they_were(tiny_base: Variant, digits: Dataset) -> None:
    threads = torch.get_num_threads()
    (seconds,) = time_runs([tiny_base], Recipe(batch_size=8), digits, "cpu")
    assert seconds > 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_another_device_than_the_cpu_is_timed_in_a_process_that_ends(
    tiny_base: Variant, digits: Dataset, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    devices: list[str] = []
    time_elsewhere = timing._time_networks_elsewhere

    def on_the_cpu(
        networks: Sequence[Variant], recipe: Recipe, batch: int, device: str
    ) -> list[float]:
        devices.append(device)
        return time_elsewhere(networks, recipe, batch, "cpu")

    monkeypatch.setattr(timing, "_time_networks_elsewhere", on_the_cpu)
    monkeypatch.setattr(timing, "build", None)  # nothing is built here
    children = multiprocessing.active_children()
    seconds = time_runs([tiny_base] * 2, Recipe(batch_size=8), digits, device)
    assert devices == [device]
    assert len(seconds) == 2
    assert all(type(value) is float and value > 0 for value in seconds)
    assert multiprocessing.active_children() == children


def test_an_error_of_the_timing_process_is_raised_here(tiny_base: Variant) -> None:
    smallest = replace(tiny_base, resolution_px=32)
    with pytest.raises(VariantError, match="batch 1 at 32x32 px"):
        timing._time_networks_elsewhere([smallest], Recipe(), 1, "cpu")
    assert multiprocessing.active_children() == []
