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
from cmtscale.data.dataset import Dataset
from cmtscale.data.sources import open_source
from cmtscale.search import driver, sharing
from cmtscale.search.candidates import extreme_networks
from cmtscale.search.deadline import Deadline, open_deadline
from cmtscale.search.driver import executor_for, search
from cmtscale.search.executors.base import Failure, Job
from cmtscale.search.executors.engine import Engine
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.jobs import AskCard, CountImages, MeasureMemory
from cmtscale.search.plan import Plan
from cmtscale.search.request import SearchRequest
from cmtscale.search.settings import Settings
from cmtscale.search.sharing import GAIN, share_devices
from cmtscale.search.timings import Sharing, Timings, read_timings
from cmtscale.search.watch import NullWatcher
from cmtscale.train import devices
from cmtscale.train.gpu_memory import Card

GIB = 2**30
CARD = Card(name="H100", memory_bytes=80 * GIB)
PAYS = {1: 1_800.0, 2: 3_400.0, 4: 5_100.0, 8: 5_500.0}  # images a second of a GPU, all together


@pytest.fixture
def cards_class(fake_training_class: Any) -> Any:
    @dataclass
    class Cards(fake_training_class):  # type: ignore[misc]
        """GPUs on which so many runs together train so many images a second.

        The largest network takes `run_bytes`. Some jobs may fail.
        """

        devices: tuple[str, ...] = ("cuda:0",)
        most_shared: int = 16
        speeds: Mapping[int, float] = field(default_factory=lambda: PAYS)
        card: Card = CARD
        run_bytes: int = GIB
        fails: Callable[[int, Job], bool] = lambda _share, _job: False
        counted: list[tuple[int, CountImages]] = field(default_factory=list)
        probed: list[tuple[int, MeasureMemory]] = field(default_factory=list)

        @property
        def shared_by(self) -> int:
            return len(self.devices) // len(set(self.devices))

        def outcome(self, job: Job) -> Any:
            if self.fails(self.shared_by, job):
                return Failure(cause="the worker died (exit code 1)")
            if isinstance(job, AskCard):
                return self.card
            if isinstance(job, MeasureMemory):
                self.probed.append((self.shared_by, job))
                return self.run_bytes
            if not isinstance(job, CountImages):
                return super().outcome(job)
            self.counted.append((self.shared_by, job))
            return self.speeds[self.shared_by] / self.shared_by

    return Cards


@pytest.fixture
def many(tiny_settings: Settings) -> Settings:
    """A search of enough runs for 16 at a time."""
    return replace(tiny_settings, trials=16, seeds=1)


@pytest.fixture(scope="module")
def digits(cache_dir: Path) -> Dataset:
    return open_source("digits", cache_dir=cache_dir).pack(96)


@pytest.fixture
def after(digits: Dataset) -> Any:
    """A function: the timings after runs were let share."""

    def after(
        settings: Settings,
        executor: Any,
        timings: Timings = Timings(device="cuda"),  # noqa: B008
        note: Callable[[str], None] = lambda _: None,
    ) -> Timings:
        return share_devices(settings, digits, timings, executor, note)

    return after


@pytest.fixture
def shared(after: Any) -> Any:
    """A function: the speeds that are measured."""

    def speeds(*arguments: Any) -> tuple[float, ...]:
        sharing = after(*arguments).sharing
        return sharing.images_per_second if sharing else ()

    return speeds


def of_h100(*speeds: float) -> Sharing:
    per_second = tuple(map(float, speeds))
    return Sharing(card="H100", card_bytes=80 * GIB, run_bytes=GIB, images_per_second=per_second)


def test_runs_are_doubled_as_long_as_that_pays(
    many: Settings, cards_class: Any, shared: Any
) -> None:
    executor = cards_class()
    assert shared(many, executor) == (1_800, 3_400, 5_100, 5_500)
    assert executor.devices == ("cuda:0",) * 4


def test_where_two_gain_too_little_each_run_has_its_gpu(
    many: Settings, cards_class: Any, shared: Any
) -> None:
    little = {1: 1_000.0, 2: 1_000 * (GAIN - 0.01), 4: 9_999.0}
    executor = cards_class(speeds=little)
    assert shared(many, executor) == (1_000, pytest.approx(1_140))
    assert executor.devices == ("cuda:0",)
    enough = cards_class(speeds={1: 1_000.0, 2: 1_000 * (GAIN + 0.01), 4: 1.0})
    shared(many, enough)
    assert enough.devices == ("cuda:0",) * 2


def test_no_more_runs_share_a_gpu_than_four_fifths_of_its_memory_hold(
    many: Settings, cards_class: Any, after: Any, shared: Any
) -> None:
    executor = cards_class(run_bytes=17 * GIB)  # three in 64 GiB
    notes: list[str] = []
    timings = after(many, executor, Timings(), notes.append)
    assert timings.sharing == replace(of_h100(1_800, 3_400), run_bytes=17 * GIB)
    assert executor.devices == ("cuda:0",) * 2
    assert notes[1:] == ["4 runs at a time do not fit into the memory of a GPU (H100)"]
    largest = max(extreme_networks(many), key=lambda network: cost(network).activations)
    ((alone, probe),) = executor.probed
    assert (alone, probe.network, probe.batch) == (1, largest, many.recipe.batch_size)
    assert {share for share, _ in executor.counted} == {1, 2}
    too_small = cards_class(run_bytes=80 * GIB)  # a whole batch does not fit
    assert shared(many, too_small) == (1_800,)
    assert too_small.devices == ("cuda:0",)


def test_the_images_that_runs_hold_count_with_their_memory(
    many: Settings, cards_class: Any, shared: Any, digits: Dataset
) -> None:
    recipes = [many.run_recipe(rung) for rung in range(many.ladder.rungs)]
    train_images = max(recipe.train_images or 0 for recipe in recipes)
    images_bytes = (train_images + len(digits.splits.val)) * digits.images[0].nbytes
    card = replace(CARD, memory_bytes=20 * images_bytes)  # each split is less than a quarter
    exact = cards_class(card=card, run_bytes=3 * images_bytes)  # 4 runs of 4 are 16 of 20
    shared(many, exact)
    assert exact.shared_by == 4
    more = cards_class(card=card, run_bytes=3 * images_bytes + 1)
    shared(many, more)
    assert more.shared_by == 2


@pytest.mark.parametrize(("kind", "share"), [(AskCard, 1), (MeasureMemory, 1), (CountImages, 4)])
def test_a_job_that_fails_decides_nothing_for_the_next_search(
    many: Settings, cards_class: Any, after: Any, kind: type, share: int
) -> None:
    executor = cards_class(fails=lambda runs, job: runs == share and isinstance(job, kind))
    notes: list[str] = []
    timings = after(many, executor, note=notes.append)
    speeds = timings.sharing.images_per_second if timings.sharing else ()
    assert speeds == ((1_800, 3_400) if kind is CountImages else ())
    assert executor.shared_by == (2 if kind is CountImages else 1)
    assert notes[-1] == (
        "whether more runs can share a GPU is not known: the worker died (exit code 1)"
    )
    mended = cards_class()
    again = after(many, mended, timings)
    assert again.sharing == of_h100(1_800, 3_400, 5_100, 5_500)
    assert mended.shared_by == 4


@pytest.mark.parametrize("card", [replace(CARD, name="A100"), replace(CARD, memory_bytes=40 * GIB)])
def test_another_card_is_measured_anew(
    many: Settings, cards_class: Any, after: Any, card: Card
) -> None:
    steps = {"a": 1.0}
    known = Timings(device="cuda", seconds_per_image=steps, sharing=of_h100(1_800, 3_400, 9_999))
    executor = cards_class(card=card, speeds={1: 700.0, 2: 701.0})
    timings = after(many, executor, known)
    assert timings == Timings(
        device="cuda",
        sharing=Sharing(
            card=card.name,
            card_bytes=card.memory_bytes,
            run_bytes=GIB,
            images_per_second=(700.0, 701.0),
        ),
    )
    assert executor.shared_by == 1


def test_of_several_cards_the_smallest_one_limits_all(
    many: Settings, cards_class: Any, after: Any
) -> None:
    cards = iter([CARD, replace(CARD, name="A10", memory_bytes=24 * GIB)])
    executor = cards_class(devices=("cuda:0", "cuda:1"), run_bytes=9 * GIB)
    plain = executor.outcome
    executor.outcome = lambda job: next(cards) if isinstance(job, AskCard) else plain(job)
    sharing = after(many, executor).sharing
    assert (sharing.card, sharing.card_bytes) == ("A10, H100", 24 * GIB)
    assert executor.shared_by == 2


@pytest.mark.parametrize(("most_shared", "share"), [(3, 2), (2, 2), (7, 4), (1, 1)])
def test_no_more_runs_share_a_gpu_than_the_executor_has_room_for(
    many: Settings, cards_class: Any, shared: Any, most_shared: int, share: int
) -> None:
    executor = cards_class(most_shared=most_shared)
    assert len(shared(many, executor)) == (0 if share == 1 else share.bit_length())
    assert executor.shared_by == share


@pytest.mark.parametrize(("trials", "seeds", "share"), [(3, 1, 1), (4, 1, 2), (4, 2, 4)])
def test_no_more_go_at_a_time_than_there_are(
    many: Settings, cards_class: Any, shared: Any, trials: int, seeds: int, share: int
) -> None:
    executor = cards_class(devices=("cuda:0", "cuda:1"))
    shared(replace(many, trials=trials, seeds=seeds), executor)
    assert executor.devices == ("cuda:0", "cuda:1") * share


def test_each_gpu_counts_by_itself_and_all_are_busy(
    many: Settings, cards_class: Any, shared: Any
) -> None:
    executor = cards_class(devices=("cuda:0", "cuda:1"))
    assert shared(many, executor) == (1_800, 3_400, 5_100, 5_500)
    jobs = Counter(share for share, _ in executor.counted)
    assert jobs == {share: 2 * 2 * share for share in (1, 2, 4, 8)}  # two networks, two GPUs


def test_what_was_measured_is_not_measured_again(
    many: Settings, cards_class: Any, after: Any, shared: Any
) -> None:
    known = Timings(device="cuda", seconds_per_image={"a": 1.0}, sharing=of_h100(9.0, 8.0))
    executor = cards_class()
    assert after(many, executor, known) == known
    assert (executor.counted, executor.probed) == ([], [])
    assert executor.devices == ("cuda:0",)
    # of a machine with few cores
    more = replace(known, share=2, sharing=of_h100(1_800.0, 3_400.0))
    later = after(many, executor, more)
    assert {share for share, _ in executor.counted} == {4, 8}
    assert later.sharing == of_h100(1_800, 3_400, 5_100, 5_500)
    assert (later.share, later.seconds_per_image) == (4, {})  # they were timed with two on a GPU
    kept = replace(later, seconds_per_image={"a": 2.0})
    assert after(many, cards_class(), kept) == kept
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
    assert read_timings(tmp_path / "out").sharing == of_h100(1_800, 3_400, 5_100, 5_500)
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


def test_a_given_executor_has_one_run_on_each_device_again(cards_class: Any) -> None:
    executor = cards_class()
    executor.share(4)  # by an earlier search
    with executor_for(SearchRequest(budget_macs=10**9), executor) as given:
        assert given.devices == ("cuda:0",)


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
    tiny_settings: Settings, shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "COUNTED_SECONDS", 0.2)
    monkeypatch.setattr(sharing, "GAIN", 0.0)  # whatever this machine does meanwhile
    with LocalExecutor(("cpu",), most_shared=2) as executor:
        alone, together = shared(tiny_settings, executor, Timings(device="cpu"))
        assert executor.devices == ("cpu", "cpu")
    assert 10 < alone < 1e6
    assert 10 < together < 1e6


@pytest.mark.gpu
def test_a_gpu_is_shared_where_that_is_faster(tiny_settings: Settings, shared: Any) -> None:
    cores = os.cpu_count() or 1
    with LocalExecutor(("cuda:0",), most_shared=min(4, cores)) as executor:
        speeds = shared(tiny_settings, executor)
        best = len(executor.devices)
    assert len(speeds) >= min(2, cores)
    assert best == 1 or speeds[best.bit_length() - 1] > GAIN * speeds[0]
    print(f"{torch.cuda.get_device_name()}: {speeds} images/s of 1, 2, 4 runs together")
