"""Estimated run times: steps at the batch size of the run, after warm-up, with a time limit."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch

from cmtscale.arch.errors import StoppedError
from cmtscale.arch.variant import Variant
from cmtscale.model.cmt import CMT
from cmtscale.train import timing
from cmtscale.train.recipe import Recipe
from cmtscale.train.run_time import EVALUATION_SHARE, run_seconds
from cmtscale.train.timing import images_per_second, prediction_seconds, seconds_per_image


@dataclass
class Steps:
    """Fake training steps that report `seconds(batch)`."""

    seconds: Callable[[int], float] = lambda batch: 0.001 * batch
    batches: list[int] = field(default_factory=list)

    def step(self, _model: CMT, _optimizer: object, _recipe: object, batch: int) -> float:
        self.batches.append(batch)
        return self.seconds(batch)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    monkeypatch.setattr(timing, "_step_seconds", steps.step)
    return steps


@pytest.mark.parametrize("batch", [128, 50, 20, 2, 1])
def test_a_step_is_timed_at_the_batch_size_of_the_runs(
    tiny_base: Variant, steps: Steps, batch: int
) -> None:
    assert seconds_per_image(tiny_base, Recipe(), batch=batch, device="cpu") == 0.001
    assert steps.batches[-2:] == [batch] * 2
    assert max(steps.batches) == batch


def test_a_run_takes_its_whole_batches_and_its_evaluations() -> None:
    recipe = Recipe(epochs=3, batch_size=100)
    seconds = run_seconds(0.001, recipe, train_images=1257, val_images=270)
    assert seconds == pytest.approx(0.003 * (1200 + EVALUATION_SHARE * (270 + 1257)))
    large = run_seconds(0.001, recipe, train_images=50_000, val_images=270)
    assert large == pytest.approx(0.003 * (50_000 + EVALUATION_SHARE * (270 + 1536)))


@pytest.mark.parametrize("batch", [2, 3])
def test_the_first_steps_of_a_process_and_of_a_batch_size_warm_up(
    tiny_base: Variant, steps: Steps, batch: int
) -> None:
    steps.seconds = lambda size: 1.0 if steps.batches.count(size) == 1 else 0.001 * size
    assert seconds_per_image(tiny_base, Recipe(), batch=batch, device="cpu") == 0.001


def test_a_gpu_is_timed_at_the_whole_batch_once_it_is_warm(
    tiny_base: Variant, steps: Steps
) -> None:
    steps.seconds = lambda _: 1.7 if len(steps.batches) <= 4 else 0.03
    per_image = seconds_per_image(tiny_base, Recipe(), batch=32, device="meta")  # any but a CPU
    assert per_image == 0.03 / 32
    assert set(steps.batches) == {32}


def test_a_gpu_that_is_too_small_is_timed_at_what_fits(tiny_base: Variant, steps: Steps) -> None:
    def too_large(batch: int) -> float:
        if batch > 10:
            raise torch.OutOfMemoryError("2 GiB wanted")
        return 0.001 * batch

    steps.seconds = too_large
    assert seconds_per_image(tiny_base, Recipe(), batch=32, device="meta") == 0.001
    assert list(dict.fromkeys(steps.batches)) == [32, 16, 8]


def test_a_network_of_which_one_image_does_not_fit_is_not_timed(
    tiny_base: Variant, steps: Steps
) -> None:
    def too_large(_: int) -> float:
        raise torch.OutOfMemoryError("2 GiB wanted")

    steps.seconds = too_large
    with pytest.raises(torch.OutOfMemoryError, match="2 GiB wanted"):
        seconds_per_image(tiny_base, Recipe(), batch=4, device="meta")
    assert steps.batches == [4, 2, 1]


@pytest.mark.parametrize("fits_for", [0, 5])
def test_a_network_whose_prediction_does_not_fit_is_left_out(
    tiny_base: Variant, monkeypatch: pytest.MonkeyPatch, fits_for: int
) -> None:
    forward, passes = CMT.forward, [0]

    def small_memory(network: CMT, images: torch.Tensor) -> torch.Tensor:
        if network.variant.name == "large":
            passes[0] += 1
            if passes[0] > fits_for:
                raise torch.OutOfMemoryError("2 GiB wanted")
        return forward(network, images)

    monkeypatch.setattr(CMT, "forward", small_memory)
    networks = [replace(tiny_base, name="large"), tiny_base]
    assert prediction_seconds(networks, Recipe(), device="cpu").keys() == {"tiny"}
    assert passes == [fits_for + 1]


def test_timing_checks_in_before_each_step(tiny_base: Variant, steps: Steps) -> None:
    answers = iter([False, False, True])
    with pytest.raises(StoppedError):
        seconds_per_image(
            tiny_base, Recipe(), batch=32, device="meta", check_in=lambda: next(answers)
        )
    assert steps.batches == [32, 32]
    with pytest.raises(StoppedError):
        prediction_seconds([tiny_base], Recipe(), device="cpu", check_in=lambda: True)


@pytest.mark.parametrize(
    ("seconds", "batches"),
    [
        (0.001, [2, 2, 8, 32, 100, 100, 100]),
        (0.02, [2, 2, 8, 32, 100, 100, 100]),
        (0.1, [2, 2, 8]),
        (9, [2, 2]),
    ],
)
def test_a_step_of_more_than_three_seconds_is_estimated_from_a_smaller_one(
    tiny_base: Variant, steps: Steps, seconds: float, batches: list[int]
) -> None:
    steps.seconds = lambda batch: seconds * batch
    per_image = seconds_per_image(tiny_base, Recipe(), batch=100, device="cpu")
    assert per_image == pytest.approx(seconds)
    assert steps.batches == batches


def test_real_steps_take_time_and_leave_the_threads_as_they_were(tiny_base: Variant) -> None:
    threads, began = torch.get_num_threads(), time.perf_counter()
    per_image = seconds_per_image(tiny_base, Recipe(), batch=8, device="cpu")
    assert 0 < 8 * per_image < time.perf_counter() - began
    assert torch.get_num_threads() == threads


@dataclass
class Clock:
    """What steps take moves it on."""

    steps: Steps
    now: float = 0.0

    def step(self, model: CMT, optimizer: object, recipe: object, batch: int) -> float:
        seconds = self.steps.step(model, optimizer, recipe, batch)
        self.now += seconds
        return seconds


@pytest.fixture
def clock(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(steps)
    monkeypatch.setattr(timing, "_step_seconds", clock.step)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def count(network: Variant, seconds: float) -> float:
    return images_per_second(network, Recipe(), batch=32, device="cpu", seconds=seconds)


def test_images_are_counted_while_others_train_too(
    tiny_base: Variant, steps: Steps, clock: Clock
) -> None:
    # the others begin a second later, and end a second earlier
    steps.seconds = lambda _: 0.0625 if 1 <= clock.now < 4 else 0.03125
    assert count(tiny_base, 3.0) == 32 / 0.0625
    assert set(steps.batches) == {32}
    assert clock.now == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_no_fewer_than_two_steps_are_counted(
    tiny_base: Variant, steps: Steps, clock: Clock, seconds: float
) -> None:
    steps.seconds = lambda _: 2.5
    assert count(tiny_base, seconds) == 32 / 2.5
    assert clock.now == 5


def test_where_a_whole_batch_does_not_fit_nothing_is_counted(
    tiny_base: Variant, steps: Steps
) -> None:
    def too_large(_: int) -> float:
        raise torch.OutOfMemoryError("2 GiB wanted")

    steps.seconds = too_large
    with pytest.raises(torch.OutOfMemoryError, match="2 GiB wanted"):
        count(tiny_base, 1.0)
    assert steps.batches == [32]


def test_counting_checks_in_before_each_step(tiny_base: Variant, steps: Steps) -> None:
    answers = iter([False, True])
    with pytest.raises(StoppedError):
        images_per_second(
            tiny_base,
            Recipe(),
            batch=4,
            device="cpu",
            seconds=9.0,
            check_in=lambda: next(answers),
        )
    assert steps.batches == [4]
