"""The end of a search that has only so much time, and what it drops to keep it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import CLOCK
from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate
from cmtscale.search.runs import ended_rows, fixed_runs, run_id
from cmtscale.search.settings import Settings
from cmtscale.search.timings import FOR_RUNS


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When a search has to end whose runs go on `slots` slots. None for `max_seconds` is never.

    `seconds_before` is what it took before this process, so that one that was stopped has the time
    left that it had; `began` is when this process began, by the same `clock`.
    """

    max_seconds: int | None
    slots: int
    seconds_before: float
    began: float
    clock: Callable[[], float] = time.monotonic

    @property
    def seconds_taken(self) -> float:
        """In all, by the clock on the wall."""
        return self.seconds_before + self.clock() - self.began

    @property
    def seconds_left(self) -> float:
        """For runs: those that would take longer are not begun."""
        if self.max_seconds is None:
            return math.inf
        return FOR_RUNS * self.max_seconds - self.seconds_taken

    @property
    def is_over(self) -> bool:
        """Whether runs that took longer than estimated have to end, too."""
        grace = (1 - FOR_RUNS) / 2 * (self.max_seconds or 0)
        return self.seconds_left < -grace

    def save(self, folder: Path) -> None:
        """Write `clock.json`, atomically, where there is an end."""
        if self.max_seconds is not None:
            write_json(folder / CLOCK, {"seconds": self.seconds_taken})


def open_deadline(
    folder: Path, settings: Settings, rows: Sequence[Row], *, slots: int, began: float
) -> Deadline:
    """That of the search in a folder, which has the time left that it had."""
    before = seconds_taken(folder, settings, rows, slots=slots)
    return Deadline(
        max_seconds=settings.max_seconds, slots=slots, seconds_before=before, began=began
    )


def seconds_taken(folder: Path, settings: Settings, rows: Sequence[Row], *, slots: int) -> float:
    """What the search in a folder took, by its `clock.json`, or else by its runs."""
    try:
        ((name, seconds),) = read_json(folder / CLOCK).items()
        if name != "seconds" or seconds is True or not 0 <= seconds < math.inf:
            raise ValueError(seconds)
        return float(seconds)
    except FileNotFoundError:
        return sum(row.seconds for row in ended_rows(settings, rows).values()) / slots
    except (TypeError, ValueError) as error:
        raise ResultsError(
            f"{folder / CLOCK} is damaged; remove it (runs then say what they took)"
        ) from error


def shortened(
    settings: Settings,
    candidates: Sequence[Candidate],
    ended: Mapping[str, Row],
    seconds: Callable[[str, int], float],
    deadline: Deadline,
    *,
    target_is_asked: bool,
) -> Settings:
    """The settings with as many rungs as the certain runs of all of them fit into the time.

    `ended` are the rows of runs that need no more time, by run id, `seconds` what a run of a
    candidate takes at a rung. A target that was asked for keeps the rungs that it takes.
    """

    def needed(fitting: Settings) -> float:
        missing = [
            seconds(run.candidate, run.rung)
            for run in fixed_runs(fitting, candidates)
            if run_id(fitting, run) not in ended
        ]
        longest = max(missing, default=0.0)
        return (sum(missing) - longest) / deadline.slots + longest  # in whatever order they run

    left = max(0.0, deadline.seconds_left)  # over: a search that has all its runs stays as it is
    while settings.ladder.rungs > 1 and needed(settings) > left:
        fewer = settings.with_rungs(settings.ladder.rungs - 1, keep_target=target_is_asked)
        if fewer is None:
            break
        settings = fewer
    return settings
