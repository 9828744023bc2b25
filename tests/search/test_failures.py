"""Runs that fail: the same error twice is enough, and too many of them stop the search."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import TrainingError
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row, read_rows
from cmtscale.search.driver import search
from cmtscale.search.executors.base import Failure, Stopped
from cmtscale.search.failures import Failures, error_kind, grouped
from cmtscale.search.request import SearchRequest

MakeRow = Callable[..., Row]
DIED = "the worker died (exit code {}); out of memory is the usual reason"
RUNS = 8  # of `tiny_request`
DEPTH = "d4.3.3.3-w4-r64"


@pytest.fixture
def make_failing(
    use_executor: Callable[[Any], None], fake_training_class: Any
) -> Callable[..., Any]:
    """Makes the executor of searches one whose runs fail with these causes, one after the other."""

    @dataclass
    class Failing(fake_training_class):  # type: ignore[misc]
        causes: dict[str, list[str]] = field(default_factory=dict)

        def outcome(self, job: Any) -> Any:
            left = self.causes.get(getattr(getattr(job, "run", None), "run_id", ""))
            return Failure(cause=left.pop(0)) if left else super().outcome(job)

    def make(causes: dict[str, list[str]]) -> Any:
        executor = Failing(causes=causes)
        use_executor(executor)
        return executor

    return make


def all_runs(seeds: int = 2) -> list[str]:
    names = ("d1.1.1.1-w4-r64", DEPTH, "d1.1.1.1-w6-r64", "d1.1.1.1-w4-r96")
    return [f"{name}-2x64-s{seed}" for seed in range(seeds) for name in names]


def statuses(folder: Path) -> list[str]:
    return sorted(row.status for row in read_rows(folder / "trials.csv"))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (DIED.format(-9), DIED.format(-9), True),
        (DIED.format(-9), DIED.format(-11), False),
        (DIED.format(1), DIED.format(-1), False),
        ("[Errno 5] input/output error: 'a'", "[Errno 28] input/output error: 'a'", False),
        ("[Errno 5] error: 'tmpq_x'", "[Errno 5] error: 'tmp81ka'", True),
        ("at 0x7f3a91 of step 12", "at 0x55d0ab of step 4", True),
        ("no file /tmp/tmpq_xkzjwe/a.bin", "no file /tmp/tmp81ka_2w0/a.bin", True),
        ("job 3f2c-91d0 is gone", "job 77aa-01bc is gone", True),
        ("CUDA error: an illegal access", "CUDA error: no such device", False),
        ("no file /data/one.png", "no file /data/two.png", False),
    ],
)
def test_errors_are_the_same_without_what_changes_each_time(
    one: str, other: str, is_same: bool
) -> None:
    assert (error_kind(one) == error_kind(other)) is is_same


def failed(cause: str) -> RunResult:
    return RunResult(status="failed", cause=cause)


def test_the_same_error_twice_is_enough_and_other_errors_three_times(make_row: MakeRow) -> None:
    failures = Failures([make_row(run_id="old", status="failed", cause="error 1")])
    again = failures.is_tried_again
    assert not again("old", failed("error 2"))  # as in the command before
    assert [again("same", failed(cause)) for cause in ("error 1", "error 2")] == [True, False]
    assert [again("other", failed(cause)) for cause in ("a", "b", "c")] == [True, True, False]
    assert failures.for_good == {"old": "error 2", "same": "error 2", "other": "c"}


@pytest.mark.parametrize(
    ("count", "asked", "status", "problem"),
    [
        (1, 1, "failed", ""),
        (2, 10, "failed", ""),
        (2, 9, "failed", "2 of 9 runs failed, more than a fifth: 2 x error; "),
        (2, 1000, "failed", ""),
        (3, 1000, "failed", "3 of 1000 runs failed, and none has a result: 3 x error; "),
        (3, 1000, "complete", ""),
        (3, 1000, "diverged", ""),
        (200, 1000, "complete", ""),
        (201, 1000, "complete", "201 of 1000 runs failed, more than a fifth: 201 x error; "),
    ],
)
def test_more_than_a_fifth_and_one_or_three_without_any_result_are_too_many(
    count: int, asked: int, status: str, problem: str, make_row: MakeRow
) -> None:
    failures = Failures([make_row(run_id="first", status=status, cause="")])
    for number in range(count):
        assert failures.is_tried_again(str(number), failed("error"))
    assert failures.problem(asked) == ""
    for number in range(count):
        assert not failures.is_tried_again(str(number), failed("error"))
    assert failures.problem(asked).startswith(problem)
    assert bool(failures.problem(asked)) is bool(problem)


def test_causes_are_grouped_the_commonest_first_and_long_ones_are_cut() -> None:
    causes = ["rare 1", "at step 1", "at step 2", *["w" * 9 + " word" * 90] * 3, "e", "f"]
    first, second, *others = grouped(causes).split(", ")
    assert first.startswith("3 x wwwwwwwww word")
    assert first.endswith(" …")
    assert len(first) < 170
    assert [second, *others] == ["2 x at step #", "1 x rare 1", "2 x other causes"]
    died = [DIED.format(code) for code in (-9, -11, -9)]
    assert grouped(died) == f"2 x {died[0]}, 1 x {died[1]}"


def test_a_run_is_tried_again_after_another_error_only(
    tmp_path: Path, tiny_request: SearchRequest, make_failing: Callable[..., Any]
) -> None:
    same, other, *_ = all_runs()
    wide = replace(tiny_request, out=tmp_path / "out", seeds=3)  # two of twelve runs may fail
    executor = make_failing({same: [DIED.format(-9)] * 9, other: ["disk", "network", "power"]})
    search(wide)
    assert [executor.started.count(name) for name in (same, other)] == [2, 3]
    causes = {r.run_id: r.cause for r in read_rows(tmp_path / "out" / "trials.csv") if r.cause}
    assert causes == {same: DIED.format(-9), other: "power"}

    again = make_failing({same: [DIED.format(-9)] * 9, other: ["network"]})
    search(wide)
    assert again.started.count(same) == 1  # it was so before this command
    assert again.started.count(other) == 2
    assert statuses(tmp_path / "out") == ["complete"] * 11 + ["failed"]


def test_where_more_than_a_fifth_fails_the_search_stops_with_the_causes_and_goes_on_later(
    tmp_path: Path, tiny_request: SearchRequest, make_failing: Callable[..., Any]
) -> None:
    out, causes = tmp_path / "out", {}
    for name, cause in zip(all_runs(), [DIED.format(-9), "no memory"] * 4, strict=True):
        causes[name] = [cause] * 2
    executor = make_failing(causes)
    with pytest.raises(TrainingError) as caught:
        search(replace(tiny_request, out=out))
    assert str(caught.value) == (
        f"2 of {RUNS} runs failed, more than a fifth: 1 x {DIED.format(-9)}, 1 x no memory; mend "
        "that, and the same command tries them again"
    )
    assert caught.value.exit_code == 1
    assert executor.cancelled >= 1
    assert executor.started == all_runs()[:2] * 2  # no third one starts
    assert statuses(out) == ["failed"] * 2  # what ended is recorded
    assert not (out / "choice.json").exists()
    mended = make_failing({})
    outcome = search(replace(tiny_request, out=out))
    assert len(mended.started) == RUNS
    assert statuses(out) == ["complete"] * RUNS
    assert outcome is not None
    assert outcome.choice is not None


def test_where_all_fail_alike_a_handful_of_tries_is_enough(
    tmp_path: Path, tiny_request: SearchRequest, make_failing: Callable[..., Any]
) -> None:
    runs = all_runs(seeds=6)
    executor = make_failing({name: ["no such device"] * 2 for name in runs})
    with pytest.raises(TrainingError) as caught:
        search(replace(tiny_request, out=tmp_path / "out", seeds=6))
    assert str(caught.value) == (
        "3 of 24 runs failed, and none has a result: 3 x no such device; mend that, and the same "
        "command tries them again"
    )
    assert executor.started == runs[:3] * 2


@pytest.mark.parametrize("flaky", [range(7), range(10, 20)])
def test_runs_that_fail_once_never_stop_a_search(
    flaky: range, tmp_path: Path, tiny_request: SearchRequest, make_failing: Callable[..., Any]
) -> None:
    runs = all_runs(seeds=6)
    executor = make_failing({runs[number]: ["no such device"] for number in flaky})
    search(replace(tiny_request, out=tmp_path / "out", seeds=6))
    assert len(executor.started) == len(runs) + len(flaky)
    assert statuses(tmp_path / "out") == ["complete"] * 24


def test_what_ended_together_with_the_last_failure_is_recorded(
    tmp_path: Path, tiny_request: SearchRequest, use_executor: Any, fake_training_class: Any
) -> None:
    @dataclass
    class AllAtOnce(fake_training_class):  # type: ignore[misc]
        """Hands back all runs of the search together; the first two of them fail."""

        waiting: list[Any] = field(default_factory=list)

        @property
        def free_slots(self) -> int:
            return RUNS - len(self.waiting)

        def submit(self, job: Any) -> None:
            super().submit(job)
            self._job = None
            self.waiting.append(job)

        def running(self) -> list[Any]:
            return self.waiting

        def results(self, timeout_seconds: float) -> Any:  # noqa: ARG002
            ended, self.waiting = self.waiting, []
            yield from ((job, self.outcome(job)) for job in ended)

    executor = AllAtOnce(failing=dict.fromkeys(all_runs()[:2], 9))
    use_executor(executor)
    with pytest.raises(TrainingError, match=f"2 of {RUNS} runs failed"):
        search(replace(tiny_request, out=tmp_path / "out"))
    assert statuses(tmp_path / "out") == ["complete"] * 6 + ["failed"] * 2


def test_what_goes_on_when_too_many_have_failed_keeps_its_state(
    tmp_path: Path, tiny_request: SearchRequest, use_executor: Any, fake_training_class: Any
) -> None:
    long, *others = all_runs()
    told: list[str] = []

    @dataclass
    class OneThatLasts(fake_training_class):  # type: ignore[misc]
        """Has a second slot, in which the first run goes on until it is asked to stop."""

        lasting: list[Any] = field(default_factory=list)

        def submit(self, job: Any) -> None:
            super().submit(job)
            if getattr(getattr(job, "run", None), "run_id", "") == long:
                self.lasting, self._job = [job], None

        def running(self) -> list[Any]:
            return [*super().running(), *self.lasting]

        def results(self, timeout_seconds: float) -> Any:
            if self.stopping and self.lasting:
                told.extend(job.run.run_id for job in self.lasting)
                yield self.lasting.pop(), Stopped()
            yield from super().results(timeout_seconds)

    use_executor(OneThatLasts(failing=dict.fromkeys(others[:3], 9)))
    with pytest.raises(TrainingError, match=f"2 of {RUNS} runs failed"):
        search(replace(tiny_request, out=tmp_path / "out"))
    assert told == [long]
    recorded = {row.run_id for row in read_rows(tmp_path / "out" / "trials.csv")}
    assert recorded == set(others[:2])
