"""How many runs share a GPU: measured through the executor, once, for all of the search."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cmtscale.arch.cost import cost
from cmtscale.search import driver, sharing
from cmtscale.search.candidates import extreme_networks
from cmtscale.search.deadline import Deadline, open_deadline
from cmtscale.search.driver import search
from cmtscale.search.executors.base import Failure, Job
from cmtscale.search.executors.engine import Engine
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.jobs import CountImages
from cmtscale.search.plan import Plan
from cmtscale.search.request import SearchRequest
from cmtscale.search.settings import Settings
from cmtscale.search.sharing import GAIN, share_devices
from cmtscale.search.timings import Timings, read_timings
from cmtscale.search.watch import NullWatcher
from cmtscale.train import devices

PAYS = {1: 1_800.0, 2: 3_400.0, 4: 5_100.0, 8: 5_500.0}  # images a second of a GPU, all together


@pytest.fixture
def cards_class(fake_training_class: Any) -> Any:
    @dataclass
    class Cards(fake_training_class):  # type: ignore[misc]
        """GPUs on which so many runs together train so many images a second.

        Beyond `fitting` runs the largest network does not fit into the memory.
        """

        devices: tuple[str, ...] = ("cuda:0",)
        most_shared: int = 16
        speeds: Mapping[int, float] = field(default_factory=lambda: PAYS)
        fitting: int = 99
        counted: list[tuple[int, CountImages]] = field(default_factory=list)

        @property
        def shared_by(self) -> int:
            return len(self.devices) // len(set(self.devices))

        def outcome(self, job: Job) -> Any:
            if not isinstance(job, CountImages):
                return super().outcome(job)
            self.counted.append((self.shared_by, job))
            if self.shared_by > self.fitting:
                return Failure(cause="out of memory (CUDA: 2 GiB wanted)")
            return self.speeds[self.shared_by] / self.shared_by

    return Cards


@pytest.fixture
def many(tiny_settings: Settings) -> Settings:
    """A search of enough runs for 16 at a time."""
    return replace(tiny_settings, trials=16, seeds=1)


def shared(
    settings: Settings,
    executor: Any,
    timings: Timings = Timings(device="cuda"),  # noqa: B008
) -> tuple[float, ...]:
    """What is measured."""
    after = share_devices(settings, timings, executor, lambda _: None)
    return after.shared_images_per_second


def test_runs_are_doubled_as_long_as_that_pays(many: Settings, cards_class: Any) -> None:
    executor = cards_class()
    assert shared(many, executor) == (1_800, 3_400, 5_100, 5_500)
    assert executor.devices == ("cuda:0",) * 4


def test_where_two_gain_too_little_each_run_has_its_gpu(many: Settings, cards_class: Any) -> None:
    little = {1: 1_000.0, 2: 1_000 * (GAIN - 0.01), 4: 9_999.0}
    executor = cards_class(speeds=little)
    assert shared(many, executor) == (1_000, pytest.approx(1_140))
    assert executor.devices == ("cuda:0",)
    enough = cards_class(speeds={1: 1_000.0, 2: 1_000 * (GAIN + 0.01), 4: 1.0})
    shared(many, enough)
    assert enough.devices == ("cuda:0",) * 2


def test_what_the_largest_network_does_not_fit_into_is_not_shared(
    many: Settings, cards_class: Any
) -> None:
    executor = cards_class(fitting=2)
    notes: list[str] = []
    timings = share_devices(many, Timings(), executor, notes.append)
    assert timings.shared_images_per_second == (1_800, 3_400, 0)
    assert executor.devices == ("cuda:0",) * 2
    assert notes[1:] == ["4 at a time on a GPU do not go: out of memory (CUDA: 2 GiB wanted)"]
    largest = max(extreme_networks(many), key=lambda network: cost(network).activations)
    assert {job.network for share, job in executor.counted if share == 4} == {largest}
    too_small = cards_class(fitting=0)
    assert shared(many, too_small) == (0,)
    assert too_small.devices == ("cuda:0",)


@pytest.mark.parametrize(("most_shared", "share"), [(3, 2), (2, 2), (7, 4), (1, 1)])
def test_no_more_runs_share_a_gpu_than_the_executor_has_room_for(
    many: Settings, cards_class: Any, most_shared: int, share: int
) -> None:
    executor = cards_class(most_shared=most_shared)
    assert len(shared(many, executor)) == (0 if share == 1 else share.bit_length())
    assert executor.shared_by == share


@pytest.mark.parametrize(("trials", "seeds", "share"), [(3, 1, 1), (4, 1, 2), (4, 2, 4)])
def test_no_more_go_at_a_time_than_there_are(
    many: Settings, cards_class: Any, trials: int, seeds: int, share: int
) -> None:
    executor = cards_class(devices=("cuda:0", "cuda:1"))
    shared(replace(many, trials=trials, seeds=seeds), executor)
    assert executor.devices == ("cuda:0", "cuda:1") * share


def test_each_gpu_counts_by_itself_and_all_are_busy(many: Settings, cards_class: Any) -> None:
    executor = cards_class(devices=("cuda:0", "cuda:1"))
    assert shared(many, executor) == (1_800, 3_400, 5_100, 5_500)
    jobs = Counter(share for share, _ in executor.counted)
    assert jobs == {share: 2 * 2 * share for share in (1, 2, 4, 8)}  # two networks, two GPUs


def test_what_was_measured_is_not_measured_again(many: Settings, cards_class: Any) -> None:
    known = Timings(device="cuda", seconds_per_image={"a": 1.0}, shared_images_per_second=(9, 8))
    executor = cards_class()
    assert share_devices(many, known, executor, lambda _: None) == known
    assert (executor.counted, executor.devices) == ([], ("cuda:0",))
    more = replace(known, shared_images_per_second=(1_800, 3_400))  # of a machine with few cores
    after = share_devices(many, more, executor, lambda _: None)
    assert {share for share, _ in executor.counted} == {4, 8}
    assert after.shared_images_per_second == (1_800, 3_400, 5_100, 5_500)
    assert after.seconds_per_image == {}  # which were timed with two on a GPU
    elsewhere = cards_class()
    assert shared(many, elsewhere, replace(more, device="mps")) == (1_800, 3_400, 5_100, 5_500)
    assert {share for share, _ in elsewhere.counted} == {1, 2, 4, 8}


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch, use_executor: Callable[[Any], None]) -> Any:
    """A function that makes an executor that of a machine with one GPU and 16 cores."""
    monkeypatch.setattr(
        devices, "device_slots", lambda _device, workers: ("cuda:0",) * (workers or 1)
    )
    monkeypatch.setattr(devices, "available_cores", lambda: 16)

    def use(executor: Any) -> Any:
        use_executor(executor)
        return executor

    return use


class Plans(NullWatcher):
    """Keeps the plans."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def planned(self, plan: Plan) -> None:
        self.plans.append(plan)


def test_a_search_packs_its_gpu_and_says_so_where_it_keeps_what_it_ran_on(
    tmp_path: Path, tiny_request: SearchRequest, cards_class: Any, one_gpu: Any
) -> None:
    request = replace(tiny_request, out=tmp_path / "out", device="cuda", workers=None)
    executor = one_gpu(cards_class())
    watcher = Plans()
    search(request, watcher=watcher)
    (plan,) = watcher.plans
    assert plan.devices == ("cuda:0",) * 4
    assert read_timings(tmp_path / "out").shared_images_per_second == (1_800, 3_400, 5_100, 5_500)
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["devices"] == ["cuda:0"] * 4
    again = one_gpu(cards_class())
    search(request, watcher=watcher)
    assert again.counted == []
    assert watcher.plans[1].devices == plan.devices
    for changes in ({"workers": 2}, {"engine": Engine(workers_per_device=1)}):
        search(replace(request, **changes), watcher=watcher)  # type: ignore[arg-type]
        assert len(watcher.plans[-1].devices) == changes.get("workers", 1)
    assert executor.counted


def test_a_dry_run_measures_for_its_plan_and_writes_nothing(
    tmp_path: Path, tiny_request: SearchRequest, cards_class: Any, one_gpu: Any
) -> None:
    one_gpu(cards_class())
    watcher = Plans()
    request = replace(tiny_request, out=tmp_path / "out", device="cuda", workers=None)
    assert search(request, watcher=watcher, dry_run=True) is None
    assert watcher.plans[0].devices == ("cuda:0",) * 4
    assert list(tmp_path.iterdir()) == []


def test_a_search_with_little_time_has_it_on_all_its_slots(
    tmp_path: Path,
    tiny_request: SearchRequest,
    cards_class: Any,
    one_gpu: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deadlines: list[Deadline] = []

    def keep(*arguments: Any, **named: Any) -> Deadline:
        deadlines.append(open_deadline(*arguments, **named))
        return deadlines[-1]

    monkeypatch.setattr(driver, "open_deadline", keep)
    one_gpu(cards_class())
    request = replace(tiny_request, out=tmp_path / "out", device="cuda", workers=None)
    search(replace(request, max_seconds=3_600), dry_run=True)
    assert [deadline.slots for deadline in deadlines] == [4]


def test_workers_of_this_machine_are_measured_for_real(
    tiny_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "COUNTED_SECONDS", 0.2)
    monkeypatch.setattr(sharing, "GAIN", 0.0)  # whatever this machine does meanwhile
    with LocalExecutor(("cpu",), most_shared=2) as executor:
        alone, together = shared(tiny_settings, executor, Timings(device="cpu"))
        assert executor.devices == ("cpu", "cpu")
    assert 10 < alone < 1e6
    assert 10 < together < 1e6


@pytest.mark.gpu
def test_a_gpu_is_shared_where_that_is_faster(tiny_settings: Settings) -> None:
    cores = os.cpu_count() or 1
    with LocalExecutor(("cuda:0",), most_shared=min(4, cores)) as executor:
        speeds = shared(tiny_settings, executor)
        best = len(executor.devices)
    assert len(speeds) >= min(2, cores)
    assert best == 1 or speeds[best.bit_length() - 1] > GAIN * speeds[0]
    print(f"{torch.cuda.get_device_name()}: {speeds} images/s of 1, 2, 4 runs together")
