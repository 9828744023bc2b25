"""What networks take on this machine: timed through the executor, within a limit, and kept."""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.cost import cost
from cmtscale.arch.errors import RequestError, ResultsError
from cmtscale.arch.variant import Variant
from cmtscale.record.row import Row
from cmtscale.search.executors.base import Failure, Job
from cmtscale.search.jobs import TimePrediction, TimeSteps
from cmtscale.search.ladder import PRESETS
from cmtscale.search.settings import Settings
from cmtscale.search.timings import (
    Sharing,
    Timings,
    of_slots,
    read_timings,
    seconds_of,
    with_latencies,
    with_runs,
    with_steps,
)


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
def times(clock: Clock, tiny_settings: Settings, in_process_class: Any) -> Any:
    """A function: the seconds per image of a training step of each network."""

    class Timer(in_process_class):  # type: ignore[misc]
        def outcome(self, job: Job) -> Any:
            assert isinstance(job, TimeSteps)
            clock.now += 8
            clock.batches.append(job.batch)
            if job.network.name in clock.too_large:
                return Failure(cause="OutOfMemoryError: CUDA out of memory")
            return 0.001

    def times(networks: list[Variant], **recipe: Any) -> list[float]:
        settings = replace(tiny_settings, recipe=replace(tiny_settings.recipe, **recipe))
        timings = with_steps(Timings(), networks, settings, Timer())
        return [timings.seconds_per_image[network.name] for network in networks]

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
    with pytest.raises(RequestError, match=r"CUDA out of memory\).*search with smaller twins"):
        times([tiny_base], batch_size=64)


def test_where_only_networks_that_fit_no_more_lack_a_time_they_get_the_longest_one(
    tiny_settings: Settings, fake_training_class: Any, tiny_base: Variant
) -> None:
    executor = fake_training_class()
    executor.outcome = lambda _job: Failure(cause="out of memory")
    known = Timings(seconds_per_image={"one": 5.0, "other": 7.0})
    timings = with_steps(known, [tiny_base], tiny_settings, executor)
    assert timings.seconds_per_image == {"one": 5.0, "other": 7.0, tiny_base.name: 7.0}


def test_a_network_that_has_a_time_is_not_timed_again(
    tiny_settings: Settings, fake_training_class: Any, tiny_base: Variant
) -> None:
    executor = fake_training_class()
    known = Timings(seconds_per_image={tiny_base.name: 5.0})
    assert with_steps(known, [tiny_base], tiny_settings, executor) == known
    other = replace(tiny_base, name="other")
    timings = with_steps(known, [tiny_base, other], tiny_settings, executor)
    assert timings.seconds_per_image == {tiny_base.name: 5.0, "other": 0.001}
    assert executor.timed == ["other"]


def test_a_run_takes_its_network_s_time_at_its_rung_and_the_mean_where_that_is_not_known(
    tiny_settings: Settings,
) -> None:
    settings = replace(tiny_settings, ladder=PRESETS["quick"])  # 2, then 6 epochs of 64 images
    timings = Timings(seconds_per_image={"a": 0.001, "b": 0.003})
    # after each epoch 270 images are evaluated, and the 64 once more, each for a third of a step
    images = 64 + (270 + 64) / 3
    for name, rung, seconds in (
        ("a", 0, 2 * 0.001 * images),
        ("b", 0, 2 * 0.003 * images),
        ("b", 1, 6 * 0.003 * images),
        ("c", 1, 6 * 0.002 * images),
    ):
        assert seconds_of(settings, timings, name, rung, 270) == pytest.approx(seconds)


def test_whole_runs_say_better_than_steps_what_a_network_takes(
    tiny_settings: Settings, make_row: Callable[..., Row]
) -> None:
    settings = replace(tiny_settings, ladder=PRESETS["quick"])
    rows = [
        make_row(candidate="a", epochs=2, train_images=64, seconds=1.0),
        make_row(candidate="a", epochs=6, train_images=64, seconds=5.0, seed=100),
        make_row(candidate="b", epochs=2, train_images=64, seconds=9.0, status="diverged"),
        make_row(candidate="b", epochs=3, train_images=64, seconds=9.0),  # on no rung
    ]
    timed = Timings(seconds_per_image={"a": 1.0, "b": 2.0}, latency_seconds={"a": 3.0})
    timings = with_runs(timed, rows, settings, 270)
    # an epoch's 64 images, and a third of a step for each of the 270 + 64 evaluated
    images = (2 + 6) * (64 + (270 + 64) / 3)
    assert timings.seconds_per_image == pytest.approx({"a": (1.0 + 5.0) / images, "b": 2.0})
    assert timings.latency_seconds == timed.latency_seconds
    assert with_runs(timed, [], settings, 270) == timed


@pytest.fixture
def predicted(in_process_class: Any) -> Any:
    """An executor whose predictions take a second per letter; `asked` has the networks' names."""

    class Predictor(in_process_class):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[tuple[str, ...]] = []

        def outcome(self, job: Job) -> Any:
            assert isinstance(job, TimePrediction)
            self.asked.append(tuple(network.name for network in job.networks))
            if "too-large" in self.asked[-1]:
                return Failure(cause="no memory")
            return {network.name: float(len(network.name)) for network in job.networks}

    return Predictor()


def named(tiny_base: Variant, names: Sequence[str]) -> list[Variant]:
    return [replace(tiny_base, name=name) for name in names]


def test_latencies_are_measured_together_once_and_kept(
    tmp_path: Path, tiny_settings: Settings, tiny_base: Variant, predicted: Any
) -> None:
    first = with_latencies(Timings(), named(tiny_base, ["a", "bb"]), tiny_settings, predicted)
    first.save(tmp_path)
    kept = read_timings(tmp_path)
    assert kept == first == Timings(latency_seconds={"a": 1.0, "bb": 2.0})
    assert with_latencies(kept, named(tiny_base, ["bb"]), tiny_settings, predicted) == kept
    more = with_latencies(kept, named(tiny_base, ["bb", "ccc"]), tiny_settings, predicted)
    assert more.latency_seconds == {"a": 1.0, "bb": 2.0, "ccc": 3.0}
    assert predicted.asked == [("a", "bb"), ("bb", "ccc")]  # all that are compared, at once


def test_networks_that_cannot_be_run_here_have_no_latency(
    tiny_settings: Settings, tiny_base: Variant, predicted: Any
) -> None:
    networks = named(tiny_base, ["too-large"])
    assert with_latencies(Timings(), networks, tiny_settings, predicted) == Timings()


def test_steps_are_known_only_with_as_many_runs_on_a_gpu() -> None:
    known = Timings(
        device="cuda",
        share=2,
        seconds_per_image={"a": 0.1},
        latency_seconds={"a": 0.2},
        sharing=SHARING,
    )
    assert of_slots(known, ("cuda:0", "cuda:1") * 2) == known
    alone = replace(known, share=1, seconds_per_image={})
    assert of_slots(known, ("cuda:0", "cuda:1")) == alone
    assert of_slots(known, ("cuda:0", "cuda:1", "cuda:0")) == known  # two on one of them
    assert of_slots(known, ("cpu",)) == Timings(device="cpu")
    of_cpu = Timings(device="cpu", seconds_per_image={"a": 0.1})
    assert of_slots(of_cpu, ("cpu",) * 4) == of_cpu


def test_a_folder_without_timings_has_none(tmp_path: Path) -> None:
    assert read_timings(tmp_path) == Timings()


def test_a_file_from_before_runs_shared_a_device_is_read(tmp_path: Path) -> None:
    text = '{"device": "cuda", "seconds_per_image": {"a": 0.1}, "latency_seconds": {}}'
    (tmp_path / "timings.json").write_text(text)
    assert read_timings(tmp_path) == Timings(device="cuda", seconds_per_image={"a": 0.1})


SHARING = Sharing(card="H100", card_bytes=80, run_bytes=7, images_per_second=(7.5, 9.0))


def test_what_sharing_was_chosen_by_is_kept(tmp_path: Path) -> None:
    timings = Timings(device="cuda", share=2, seconds_per_image={"a": 0.1}, sharing=SHARING)
    timings.save(tmp_path)
    assert read_timings(tmp_path) == timings


@pytest.mark.parametrize(
    "part",
    [
        *[f'{{"images_per_second": {s}}}' for s in ("1", "[-1.0]", '["fast"]', "[NaN]", "[1]")],
        '{"card": 1}',
        '{"card_bytes": -1}',
        '{"run_bytes": "few"}',
        '{"more": 1}',
    ],
)
def test_a_sharing_that_is_none_is_damage(tmp_path: Path, part: str) -> None:
    Timings(device="cuda", sharing=SHARING).save(tmp_path)
    path = tmp_path / "timings.json"
    whole = json.loads(path.read_text())
    whole["sharing"] |= json.loads(part)
    path.write_text(json.dumps(whole))
    with pytest.raises(ResultsError, match=r"timings\.json is damaged"):
        read_timings(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"seconds_per_image": {}}',
        '{"seconds_per_image": {"a": 0.1}, "latency_seconds": []}',
        '{"seconds_per_image": {"a": "fast"}, "latency_seconds": {}}',
        '{"seconds_per_image": {"a": 0.0}, "latency_seconds": {}}',
        '{"seconds_per_image": {"a": -1.0}, "latency_seconds": {}}',
    ],
    ids=["empty", "list", "nothing", "part", "no table", "text", "zero", "negative"],
)
def test_damaged_timings_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "timings.json").write_text(text)
    with pytest.raises(ResultsError, match=r"timings\.json is damaged.*remove it") as caught:
        read_timings(tmp_path)
    assert "\n" not in str(caught.value)
