"""A search ends in the time that it is given."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.errors import ResultsError
from cmtscale.data.dataset import Description
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import CLOCK
from cmtscale.search.candidates import grid
from cmtscale.search.deadline import Deadline, open_deadline, shortened
from cmtscale.search.driver import search
from cmtscale.search.executors.base import Job
from cmtscale.search.jobs import TrainRun
from cmtscale.search.ladder import Ladder
from cmtscale.search.outcome import Outcome
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.runs import fixed_runs
from cmtscale.search.settings import Settings, stored_settings
from cmtscale.search.timings import FOR_RUNS
from cmtscale.search.watch import NullWatcher, Progress

DIGITS = Description(num_classes=10, channels=1, train_images=1257, val_images=270)
HOUR = 3600
Make = Callable[..., Any]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_deadline(max_seconds: int | None, clock: Clock, before: float = 0.0) -> Deadline:
    return Deadline(
        max_seconds=max_seconds, slots=2, seconds_before=before, began=clock(), clock=clock
    )


def test_time_that_runs_took_before_counts_and_runs_have_nine_tenths_of_it() -> None:
    clock = Clock()
    end = a_deadline(1_000, clock, before=300.0)
    assert end.seconds_left == pytest.approx(FOR_RUNS * 1_000 - 300)
    clock.now += 620.0
    assert end.seconds_left < 0
    assert not end.is_over  # a run may take a little longer than estimated
    clock.now += 40.0
    assert end.is_over
    assert not a_deadline(None, clock).is_over


@pytest.fixture
def climbing(tiny_request: SearchRequest) -> SearchRequest:
    """Seven candidates on three rungs, of 128, 384 and 1,152 images."""
    ladder = Ladder(rungs=3, noise_degrees=4, batch=2, enough=0.999)
    changes = {"proxy_base": None, "proxy_macs": 14_427_200, "trials": 3, "seeds": 1}
    return replace(tiny_request, **changes, ladder=ladder, tolerance=0.003)


def test_rungs_that_no_longer_fit_are_dropped_and_the_target_moves_along(
    climbing: SearchRequest,
) -> None:
    settings = resolve(replace(climbing, max_seconds=HOUR), DIGITS)
    candidates = grid(settings)

    def kept(left: float, asked: int | None = None) -> tuple[int, int]:
        now = replace(settings, target_images=asked or settings.target_images)
        end = a_deadline(HOUR, Clock(), before=FOR_RUNS * HOUR - left)
        is_asked = asked is not None
        fitting = shortened(
            now, candidates, {}, lambda _, rung: 10.0 * 3**rung, end, target_is_asked=is_asked
        )
        return fitting.ladder.rungs, fitting.target_images

    runs = [10.0 * 3**run.rung for run in fixed_runs(settings, candidates)]
    whole = (sum(runs) - 90) / 2 + 90  # should one of the longest be the last to start
    assert kept(whole + 1) == (3, 1_152)
    assert kept(whole - 1) == (2, 384)
    assert kept(1) == (1, 128)
    # a target that was asked for keeps as many rungs as it takes to reach it
    assert kept(1, asked=1_152) == (2, 1_152)
    assert kept(1, asked=2_000) == (3, 2_000)
    assert kept(1, asked=128) == (1, 128)


@dataclass
class Watch(NullWatcher):
    """Remembers what it was told."""

    notes: list[str] = field(default_factory=list)
    seconds_left: list[float] = field(default_factory=list)
    parts: list[float] = field(default_factory=list)

    def noted(self, message: str) -> None:
        self.notes.append(message)

    def progressed(self, progress: Progress) -> None:
        self.seconds_left.append(progress.seconds_left)
        self.parts.append(progress.part)


@pytest.fixture
def timed(
    climbing: SearchRequest,
    fake_training_class: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[Outcome, float, Watch]]:
    """Searches whose runs take `slowness` times what their steps say, by a clock of their own."""

    def run(max_seconds: int, slowness: float = 1.0, **arguments: Any) -> Any:
        clock, watch = Clock(), Watch()

        class Slow(fake_training_class):  # type: ignore[misc]
            def seconds(self, job: TrainRun) -> float:
                return slowness * super().seconds(job)

            def outcome(self, job: Job) -> Any:
                result = super().outcome(job)
                if isinstance(job, TrainRun):
                    clock.now += result.seconds
                return result

        def opened(folder: Path, settings: Settings, rows: Any, **rest: Any) -> Deadline:
            return replace(
                open_deadline(folder, settings, rows, **rest), clock=clock, began=clock()
            )

        monkeypatch.setattr(import_module("cmtscale.search.driver"), "open_deadline", opened)
        asked = replace(climbing, out=tmp_path / "timed", max_seconds=max_seconds)
        outcome = search(asked, executor=Slow(**arguments), watcher=watch)
        assert outcome is not None
        return outcome, clock.now, watch

    return run


def test_a_search_uses_its_time_and_ends_in_it(timed: Make) -> None:
    outcome, taken, watch = timed(100)
    assert 80 < taken <= FOR_RUNS * 100
    assert outcome.settings.ladder.rungs == 3
    assert not any("the time" in note for note in watch.notes)


def test_where_runs_are_slower_than_their_steps_it_drops_rungs_and_still_ends_in_time(
    timed: Make, tmp_path: Path
) -> None:
    outcome, taken, watch = timed(30, slowness=2.5)
    assert taken <= 30
    assert outcome.settings.ladder.rungs < 3
    assert outcome.settings.target_images == outcome.settings.images_seen[-1]
    assert any("no longer fit into the time" in note for note in watch.notes)
    assert stored_settings(tmp_path / "timed") == outcome.settings
    assert outcome.choice is not None


def test_the_time_left_is_never_more_than_the_limit_leaves(timed: Make) -> None:
    _, _, watch = timed(30, slowness=2.5)
    assert watch.seconds_left
    assert all(0 <= left <= FOR_RUNS * 30 for left in watch.seconds_left)
    assert all(0 <= part <= 1 for part in watch.parts)


def test_runs_that_would_not_end_in_time_are_left_out_and_more_time_makes_them(
    timed: Make,
) -> None:
    short, taken, watch = timed(10, slowness=6.0)
    assert taken <= 10 + short.rows[0].seconds  # a run that is under way ends, in this executor
    assert len(short.rows) < len(fixed_runs(short.settings, short.candidates))
    assert any("the time is over" in note for note in watch.notes)
    longer, more, _ = timed(100, slowness=6.0)
    assert [row.run_id for row in short.rows if row not in longer.rows] == []
    assert more <= FOR_RUNS * 100 - taken
    assert len(longer.rows) > len(short.rows)


def test_stopped_a_search_has_the_time_left_that_it_had(timed: Make, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        timed(60, stop_after=9)
    before = read_json(tmp_path / "timed" / CLOCK)["seconds"]
    assert before > 1
    outcome, taken, _ = timed(60)
    assert before + taken <= FOR_RUNS * 60
    assert sum(row.seconds for row in outcome.rows) == pytest.approx(before + taken, rel=1e-3)
    assert read_json(tmp_path / "timed" / CLOCK)["seconds"] == pytest.approx(
        before + taken, rel=1e-3
    )


def test_asked_again_after_its_time_a_search_keeps_its_rungs_and_its_answer(
    timed: Make, tmp_path: Path
) -> None:
    first, _, _ = timed(100)
    answer = (tmp_path / "timed" / "choice.json").read_bytes()
    write_json(tmp_path / "timed" / CLOCK, {"seconds": 101.0})
    again, taken, _ = timed(100)
    assert taken == 0
    assert (again.settings, again.rows) == (first.settings, first.rows)
    assert (tmp_path / "timed" / "choice.json").read_bytes() == answer


def test_where_the_clock_is_missing_runs_say_what_was_taken(timed: Make, tmp_path: Path) -> None:
    outcome, taken, _ = timed(40)
    path = tmp_path / "timed" / CLOCK
    path.unlink()
    arguments = {"slots": 1, "began": 0.0}
    end = open_deadline(path.parent, outcome.settings, outcome.rows, **arguments)
    assert end.seconds_before == pytest.approx(taken, rel=1e-3)
    path.write_text("{}")
    with pytest.raises(ResultsError, match=r"clock\.json is damaged; remove it"):
        open_deadline(path.parent, outcome.settings, outcome.rows, **arguments)


def test_a_run_that_is_too_late_leaves_time_for_shorter_ones(timed: Make) -> None:
    # slow machines: what fits at the lower rungs is still asked for
    outcome, taken, _ = timed(26, slowness=2.0)
    assert taken > 0.6 * FOR_RUNS * 26
    assert outcome.choice is not None
