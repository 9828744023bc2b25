"""The end of a search: latencies where they decide, the test split where something is decided."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.cli.next_steps import after_search
from cmtscale.record.folder import TIMINGS
from cmtscale.record.forecast import read_forecast
from cmtscale.record.reads import readings
from cmtscale.search.driver import search
from cmtscale.search.executors.base import Failure
from cmtscale.search.jobs import ReadTestSplit, TimePrediction, TrainRun
from cmtscale.search.ladder import Ladder
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import Plan
from cmtscale.search.request import SearchRequest
from cmtscale.search.timings import allowance, read_timings
from cmtscale.search.watch import NullWatcher

# the candidates of `tiny_request` that can be taken
DEPTH, WIDTH = "d4.3.3.3-w4-r64", "d1.1.1.1-w6-r64"
CLEAR = {DEPTH: (1.0, 0.0), WIDTH: (1.5, 0.0)}  # loss, and what each seed adds to it
TIE = {DEPTH: (1.0, 0.0), WIDTH: (1.001, 0.0)}
OPEN = {DEPTH: (1.0, 0.08), WIDTH: (1.01, 0.05)}


@dataclass(frozen=True, kw_only=True)
class Score:
    """A fake of what the test split says."""

    images: int = 270
    accuracy: float = 0.75


@pytest.fixture
def make_executor(fake_training_class: Callable[..., Any]) -> Callable[..., Any]:
    """Executors of runs with given losses; `predicted` and `read` list what they were asked."""

    class Executor(fake_training_class):  # type: ignore[misc]
        def __init__(self, losses: Mapping[str, tuple[float, float]], **options: Any) -> None:
            super().__init__()
            self.losses, self.options = losses, options
            self.predicted: list[str] = []
            self.read: list[str] = []

        def loss(self, job: TrainRun) -> float:
            loss, spread = self.losses.get(job.candidate, (3.0, 0.0))
            rung, replicate = divmod(job.run.seed, 100)
            return (loss + spread * (-1) ** replicate + 0.001 * (replicate % 3)) * 0.7**rung

        def outcome(self, job: Any) -> Any:
            if isinstance(job, TimePrediction):
                self.predicted += [network.name for network in job.networks]
                if "failure" in self.options:
                    return Failure(cause="no memory")
                return {n.name: 0.01 * n.depths[0] for n in job.networks}
            if isinstance(job, ReadTestSplit):
                self.read.append(job.run.run_id)
                return None if "gone" in self.options else Score()
            result = super().outcome(job)
            if isinstance(job, TrainRun) and "accuracy" in self.options:
                result = replace(result, val_accuracy=self.options["accuracy"])
            return result

    return Executor


def run(request: SearchRequest, out: Path, executor: Any, **arguments: Any) -> Outcome:
    outcome = search(replace(request, out=out), executor=executor, **arguments)
    assert outcome is not None
    assert outcome.choice is not None
    return outcome


@pytest.fixture
def by_latency(tiny_request: SearchRequest) -> SearchRequest:
    return replace(tiny_request, seeds=4, prefer="latency", tolerance=0.03)


def test_a_tie_is_decided_by_latencies_that_are_measured_once_and_kept(
    tmp_path: Path, by_latency: SearchRequest, make_executor: Any
) -> None:
    executor = make_executor(TIE)
    outcome = run(by_latency, tmp_path / "out", executor)
    assert outcome.choice.verdict == "tie"
    real = {name: outcome.candidate(name).real for name in (DEPTH, WIDTH)}
    assert sorted(executor.predicted) == sorted(network.name for network in real.values())
    costs = {name: 0.01 * network.depths[0] for name, network in real.items()}
    assert outcome.choice.costs == costs
    assert outcome.choice.taken == min(costs, key=lambda name: costs[name])
    kept = read_timings(tmp_path / "out").latency_seconds
    assert kept == {real[name].name: costs[name] for name in real}
    again = make_executor(TIE)
    assert run(by_latency, tmp_path / "out", again).choice == outcome.choice
    assert again.predicted == []


@pytest.mark.parametrize("losses", [CLEAR, OPEN], ids=["clear", "undecided"])
def test_latencies_are_not_measured_where_they_decide_nothing(
    tmp_path: Path, by_latency: SearchRequest, make_executor: Any, losses: Any
) -> None:
    executor = make_executor(losses)
    run(by_latency, tmp_path / "out", executor)
    assert executor.predicted == []
    by_params = make_executor(TIE)
    run(replace(by_latency, prefer="params"), tmp_path / "params", by_params)
    assert by_params.predicted == []


def test_where_latencies_cannot_be_measured_the_most_probable_is_taken(
    tmp_path: Path, by_latency: SearchRequest, make_executor: Any
) -> None:
    choice = run(by_latency, tmp_path / "out", make_executor(TIE, failure=True)).choice
    assert choice is not None
    assert choice.verdict == "tie"
    assert choice.taken == choice.standings[0].candidate
    assert choice.costs == {}


def test_removed_timings_are_measured_again(
    tmp_path: Path, by_latency: SearchRequest, make_executor: Any
) -> None:
    first = run(by_latency, tmp_path / "out", make_executor(TIE))
    (tmp_path / "out" / TIMINGS).unlink()
    executor = make_executor(TIE)
    assert run(by_latency, tmp_path / "out", executor).choice == first.choice
    assert len(executor.predicted) == 2
    assert executor.started == []


def test_the_test_split_is_read_once_by_each_of_the_longest_runs_of_what_is_taken(
    tmp_path: Path, tiny_request: SearchRequest, make_executor: Any
) -> None:
    climbing = replace(tiny_request, ladder=Ladder(rungs=2, noise_degrees=0, spend=0), seeds=4)
    executor = make_executor(CLEAR)
    outcome = run(climbing, tmp_path / "out", executor)
    assert outcome.choice.taken == DEPTH
    assert executor.read == [f"{DEPTH}-6x64-s100"]
    assert [reading.run_id for reading in readings(tmp_path / "out")] == executor.read
    assert outcome.readings == tuple(readings(tmp_path / "out"))
    again = make_executor(CLEAR)
    run(climbing, tmp_path / "out", again)
    assert again.read == []
    run(
        replace(climbing, ladder=Ladder(rungs=3, noise_degrees=0, spend=0)), tmp_path / "out", again
    )
    assert again.read == [f"{DEPTH}-18x64-s200"]
    assert len(readings(tmp_path / "out")) == 2


def test_every_seed_of_what_is_taken_reads_the_test_split(
    tmp_path: Path, tiny_request: SearchRequest, make_executor: Any
) -> None:
    executor = make_executor(CLEAR)
    run(replace(tiny_request, seeds=3), tmp_path / "out", executor)
    assert sorted(executor.read) == [f"{DEPTH}-2x64-s{seed}" for seed in range(3)]


def test_nothing_undecided_reads_the_test_split(
    tmp_path: Path, tiny_request: SearchRequest, make_executor: Any
) -> None:
    for name, losses, seeds in (("noisy", OPEN, 3), ("one seed", CLEAR, 1)):
        executor = make_executor(losses)
        outcome = run(replace(tiny_request, seeds=seeds), tmp_path / name, executor)
        assert outcome.choice.verdict == "undecided"
        assert executor.read == []
        assert readings(tmp_path / name) == []


def test_a_network_that_has_learned_nothing_does_not_read_the_test_split(
    tmp_path: Path, tiny_request: SearchRequest, make_executor: Any
) -> None:
    executor = make_executor(CLEAR, accuracy=0.1)  # as good as always naming one digit
    outcome = run(replace(tiny_request, seeds=4), tmp_path / "out", executor)
    assert outcome.choice.verdict == "nothing learned yet"
    assert executor.read == []


def test_a_checkpoint_that_is_gone_is_noted(
    tmp_path: Path, tiny_request: SearchRequest, make_executor: Any
) -> None:
    notes: list[str] = []

    class Watcher(NullWatcher):
        def noted(self, text: str) -> None:
            notes.append(text)

    executor = make_executor(CLEAR, gone=True)
    run(replace(tiny_request, seeds=2), tmp_path / "out", executor, watcher=Watcher())
    assert [note for note in notes if "test split" in note] == [
        f"the test split is not read by {DEPTH}-2x64-s{seed}: its checkpoint is gone"
        for seed in range(2)
    ]
    assert readings(tmp_path / "out") == []


def test_the_forecast_of_every_candidate_is_written_as_far_as_targets_may_lie(
    tmp_path: Path, tiny_request: SearchRequest, make_executor: Any
) -> None:
    run(tiny_request, tmp_path / "flat", make_executor(CLEAR))
    assert read_forecast(tmp_path / "flat") == []  # one length has no slope
    climbing = replace(tiny_request, ladder=Ladder(rungs=2, noise_degrees=0, spend=0))
    outcome = run(climbing, tmp_path / "out", make_executor(CLEAR))
    expected = read_forecast(tmp_path / "out")
    images = sorted({one.images for one in expected})
    assert (images[0], images[-1]) == (128, 3 * 3 * 128)
    forecast = {s.candidate for s in outcome.choice.standings if s.loss is not None}
    assert {one.candidate for one in expected} == forecast
    assert len(expected) == len(images) * len(forecast)
    assert all(one.low < one.loss < one.high for one in expected)
    for name in forecast:
        losses = [one.loss for one in expected if one.candidate == name]
        assert losses == sorted(losses, reverse=True)


def test_the_spend_that_is_named_pays_for_the_runs_that_would_decide(
    tmp_path: Path, tiny_request: SearchRequest, make_executor: Any
) -> None:
    ladder = Ladder(rungs=2, noise_degrees=4, spend=0.1)
    request = replace(tiny_request, ladder=ladder, seeds=1)
    outcome = run(request, tmp_path / "out", make_executor(OPEN))
    assert outcome.choice.verdict == "undecided"
    assert outcome.choice.more
    tourless = replace(outcome, settings=replace(outcome.settings, tour=False))
    words = dict(after_search(tourless, None))["surer"].split()
    spend = float(words[words.index("--spend") + 1])
    assert spend > ladder.spend
    plans: list[Plan] = []

    class Watcher(NullWatcher):
        def planned(self, plan: Plan) -> None:
            plans.append(plan)

    more = replace(request, ladder=replace(ladder, spend=spend), out=tmp_path / "out")
    search(more, executor=make_executor(OPEN), watcher=Watcher(), dry_run=True)
    (plan,) = plans
    names = [c.name for c in outcome.candidates if c.role != "base"]
    spent = sum(row.seconds for row in outcome.rows)
    last = [plan.seconds(name, -1) for name in names]
    left = allowance(plan.settings, last, slots=1) - spent
    assert left >= 0.99 * outcome.choice.more_seconds  # rows are timed to a millisecond
