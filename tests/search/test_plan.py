"""Timing the networks of a search through the executor, within a time limit."""

import itertools
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.arch.variant import Variant
from cmtscale.search.executors.base import Failure, Job
from cmtscale.search.jobs import TimeSteps
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import time_runs


@dataclass
class Clock:
    """A fake clock: timing a network takes 8 s, and fails for those in `too_large`."""

    now: float = 0.0
    too_large: set[str] = field(default_factory=set)
    batches: list[int] = field(default_factory=list)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def times(clock: Clock, finished: Outcome, in_process_class: Any) -> Any:
    """A function: the estimated seconds of a run of each network."""

    class Timer(in_process_class):  # type: ignore[misc]
        def outcome(self, job: Job) -> Any:
            assert isinstance(job, TimeSteps)
            clock.now += 8
            clock.batches.append(job.batch)
            if job.network.name in clock.too_large:
                return Failure(cause="OutOfMemoryError: CUDA out of memory")
            return 0.001

    def times(networks: list[Variant], **recipe: Any) -> list[float]:
        settings = replace(finished.settings, recipe=replace(finished.settings.recipe, **recipe))
        named = {network.name: network for network in networks}
        dataset = type("", (), {"splits": type("", (), {"val": range(270)})})()
        return list(time_runs(named, settings, dataset, Timer()).values())

    return times


def test_networks_are_timed_at_the_batch_size_of_the_runs(
    times: Any, clock: Clock, tiny_base: Variant
) -> None:
    for recipe in ({"batch_size": 16}, {"batch_size": 128, "train_images": 60}):
        times([tiny_base], **recipe)
    assert clock.batches == [16, 60]


def test_networks_that_timing_does_not_come_to_are_estimated_by_their_macs(
    times: Any, clock: Clock, tiny_base: Variant
) -> None:
    same = [replace(tiny_base, name=f"n{number}") for number in range(3)]
    larger = replace(tiny_base, name="larger", num_classes=1000)
    seconds = times([*same, larger, *[replace(larger, name=f"x{n}") for n in range(9)]])
    assert len(clock.batches) == 3  # after 24 s
    assert seconds[0] == seconds[1] == seconds[2]
    assert seconds[3] / seconds[0] == pytest.approx(cost(larger).macs / cost(tiny_base).macs)
    assert seconds[3] > 1.5 * seconds[0]
    assert all(one == other for one, other in itertools.pairwise(seconds[3:]))


def test_a_network_too_large_for_the_memory_is_estimated_by_its_macs(
    times: Any, clock: Clock, tiny_base: Variant
) -> None:
    clock.too_large = {"larger"}
    larger = replace(tiny_base, name="larger", num_classes=1000)
    first, second = times([larger, tiny_base])
    assert first / second == pytest.approx(cost(larger).macs / cost(tiny_base).macs)


def test_timing_goes_on_until_one_network_has_a_time(
    times: Any, clock: Clock, tiny_base: Variant
) -> None:
    large = [replace(tiny_base, name=f"n{number}", num_classes=1000) for number in range(5)]
    clock.too_large = {network.name for network in large}
    seconds = times([*large, tiny_base, replace(tiny_base, name="last")])
    assert len(clock.batches) == 6  # 48 s, and no more after the first success
    assert all(value > 0 for value in seconds)


def test_networks_that_are_all_too_large_are_refused(
    times: Any, clock: Clock, tiny_base: Variant
) -> None:
    clock.too_large = {tiny_base.name}
    with pytest.raises(RequestError, match=r"CUDA out of memory\).*use a smaller --batch-size"):
        times([tiny_base], batch_size=64)
