"""Which twins and lengths of runs are chosen for a time."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cmtscale.arch.budget import parse_duration
from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError
from cmtscale.data.dataset import Description
from cmtscale.search.executors.base import Failure, Job
from cmtscale.search.jobs import TimeSteps
from cmtscale.search.ladder import PRESETS, Ladder
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import IMAGES_SEEN, resolve
from cmtscale.search.settings import Settings
from cmtscale.search.time_budget import LEAST_IMAGES, fitted

FASHION = Description(num_classes=10, channels=1, train_images=54_000, val_images=6_000)
HOUR = 3600


@dataclass
class Machine:
    """Times training steps: so many MACs a second; more than `largest` do not fit into memory."""

    macs_a_second: float
    devices: tuple[str, ...] = ("cpu", "cpu")
    largest: float = float("inf")
    timed: list[int] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)

    @property
    def free_slots(self) -> int:
        return 1 - len(self.waiting)

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def running(self) -> list[Job]:
        return self.waiting

    def results(self, timeout_seconds: float) -> Iterator[tuple[Job, Any]]:
        assert timeout_seconds > 0
        while self.waiting:
            job = self.waiting.pop()
            assert isinstance(job, TimeSteps)
            macs = cost(job.network).macs
            self.timed.append(macs)
            yield job, Failure(cause="memory") if macs > self.largest else macs / self.macs_a_second

    def stop(self) -> None: ...

    def cancel(self) -> None:
        self.waiting.clear()


def request(**fields: Any) -> SearchRequest:
    values = {"budget_macs": 4_000_000_000, "data": "fashion-mnist", "max_seconds": HOUR}
    return SearchRequest(**(values | fields))


def fit(machine: Machine, **fields: Any) -> Settings:
    return resolve(fitted(request(**fields), FASHION, machine, lambda _: None), FASHION)


LAPTOP = 2.5e9  # MACs of a training step, a second on a core: twins of 15 M at 160 images


def test_an_hour_on_a_laptop_is_for_small_twins_on_three_rungs() -> None:
    settings = fit(Machine(LAPTOP))
    assert settings.ladder == PRESETS["standard"]
    assert settings.images_seen == (6_000, 18_000, 54_000)
    assert 14e6 < settings.trained_macs < 40e6


def test_more_time_and_a_faster_machine_mean_larger_twins_until_they_are_the_real_networks() -> (
    None
):
    macs = [
        fit(Machine(speed * LAPTOP), max_seconds=hours * HOUR).trained_macs
        for speed, hours in ((1, 1), (1, 8), (10, 8))
    ]
    assert macs == sorted(set(macs))
    assert not fit(Machine(10_000 * LAPTOP)).proxy


def test_with_time_left_over_the_real_networks_train_longer() -> None:
    fast, faster = (fit(Machine(speed * LAPTOP)) for speed in (1_000, 3_000))
    assert not fast.proxy
    assert not faster.proxy
    assert fast.images_seen[-1] < faster.images_seen[-1]
    assert faster.ladder == PRESETS["thorough"]
    assert fit(Machine(1e6 * LAPTOP)).images_seen[0] == 54_000  # no image twice in the first rung


@pytest.mark.parametrize(
    ("seconds", "ladder", "images"),
    [
        (1_500, PRESETS["quick"], IMAGES_SEEN),
        (900, Ladder(rungs=1), IMAGES_SEEN),
        (600, Ladder(rungs=1, noise_degrees=4), IMAGES_SEEN),
        (420, PRESETS["flat"], IMAGES_SEEN),
        (320, PRESETS["flat"], LEAST_IMAGES),
    ],
)
def test_with_less_time_runs_have_fewer_lengths(seconds: int, ladder: Ladder, images: int) -> None:
    settings = fit(Machine(LAPTOP), max_seconds=seconds)
    assert (settings.ladder, settings.images_seen[0]) == (ladder, images)
    assert settings.trained_macs < 15e6


def test_what_no_time_is_enough_for_is_refused_with_the_least_that_is() -> None:
    with pytest.raises(RequestError, match=r"^1m is too short: .* take about [0-9hms]+;") as no:
        fit(Machine(LAPTOP), max_seconds=60)
    least = parse_duration(str(no.value).split("take about ")[1].split(";")[0], "x")
    assert fit(Machine(LAPTOP), max_seconds=least).ladder == PRESETS["flat"]
    with pytest.raises(RequestError, match="is too short"):
        fit(Machine(LAPTOP), max_seconds=least - 5)


def test_what_the_request_says_itself_stays() -> None:
    fast = Machine(1_000 * LAPTOP)
    assert fit(fast, proxy_macs=20_000_000).trained_macs == 20_000_000
    assert fit(fast, ladder=PRESETS["quick"]).ladder == PRESETS["quick"]
    assert fit(fast, train_images=9_000).images_seen[0] == 9_000
    assert not fit(fast, proxy=False).proxy


@pytest.mark.parametrize("images", [500, 2_000, 5_000, 1_000_000])
def test_data_sets_of_any_size_are_fitted(images: int) -> None:
    data = replace(FASHION, train_images=images, val_images=min(6_000, images // 9))
    for seconds in (400, HOUR // 2, HOUR, 10 * HOUR):
        asked = fitted(request(max_seconds=seconds), data, Machine(LAPTOP), lambda _: None)
        assert resolve(asked, data).images_seen[0] >= LEAST_IMAGES
        assert resolve(asked, data).images_seen[0] <= 54_000  # or all of 5,000 twice


@pytest.mark.parametrize(("target", "rungs"), [(20_000, 3), (54_000, 3), (300_000, 4)])
@pytest.mark.parametrize("speed", [8, 3_000])
def test_lengths_that_say_nothing_of_the_target_are_not_taken(
    target: int, rungs: int, speed: int
) -> None:
    settings = fit(Machine(speed * LAPTOP), target_images=target)
    assert settings.target_images == target
    assert settings.ladder.rungs >= rungs
    assert settings.images_seen[0] <= target <= 3 * settings.images_seen[-1]


def test_a_target_out_of_reach_of_all_lengths_is_refused() -> None:
    with pytest.raises(RequestError, match="times the 54,000"):
        fit(Machine(LAPTOP), target_images=1_000_000)


def test_a_limit_on_latencies_that_nothing_was_timed_for_makes_no_search_smaller() -> None:
    free, limited = fit(Machine(LAPTOP)), fit(Machine(LAPTOP), max_latency_seconds=0.1)
    assert limited.trained_macs == free.trained_macs
    assert limited.max_latency_seconds == 0.1


def test_twins_far_too_large_are_not_even_timed() -> None:
    machine = Machine(LAPTOP)
    settings = fit(machine)
    assert max(machine.timed) < 5 * settings.trained_macs


def test_twins_that_do_not_fit_into_memory_end_the_growth() -> None:
    settings = fit(Machine(10_000 * LAPTOP, largest=200e6))
    assert settings.proxy
    assert settings.trained_macs < 200e6
    with pytest.raises(RequestError, match="could not be timed"):
        fit(Machine(LAPTOP, largest=1))


def test_a_tour_stays_as_it_is() -> None:
    asked = request(data="digits", max_seconds=100)
    machine = Machine(LAPTOP)
    assert fitted(asked, FASHION, machine, lambda _: None) == asked
    assert machine.timed == []
