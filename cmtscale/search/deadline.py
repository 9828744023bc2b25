"""The end of a search that has only so much time, and what it drops to keep it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate
from cmtscale.search.runs import ended_rows, fixed_runs, run_id
from cmtscale.search.settings import Settings
from cmtscale.search.timings import FOR_RUNS


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When runs have to end, on `slots` slots. None for `max_seconds` is never.

    `seconds_before` is what runs took before this process: a search that was stopped has as much
    time left as it had then.
    """

    max_seconds: int | None
    slots: int
    seconds_before: float
    clock: Callable[[], float]
    began: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "began", self.clock())

    @property
    def seconds_left(self) -> float:
        """For runs: those that would take longer are not begun."""
        if self.max_seconds is None:
            return math.inf
        return FOR_RUNS * self.max_seconds - self.seconds_before - (self.clock() - self.began)

    @property
    def is_over(self) -> bool:
        """Whether runs that took longer than estimated have to end, too."""
        grace = (1 - FOR_RUNS) / 2 * (self.max_seconds or 0)
        return self.seconds_left < -grace


def deadline(
    settings: Settings,
    rows: Sequence[Row],
    slots: int,
    clock: Callable[[], float] = time.monotonic,
) -> Deadline:
    """That of a search with these rows behind it."""
    taken = sum(row.seconds for row in ended_rows(settings, rows).values())
    return Deadline(
        max_seconds=settings.max_seconds, slots=slots, seconds_before=taken / slots, clock=clock
    )


def shortened(
    settings: Settings,
    candidates: Sequence[Candidate],
    ended: Mapping[str, Row],
    seconds: Callable[[str, int], float],
    deadline: Deadline,
) -> Settings:
    """The settings with as many rungs as the certain runs of all of them fit into the time.

    `ended` are the rows of runs that need no more time, by run id, `seconds` what a run of a
    candidate takes at a rung.
    """

    def needed(fitting: Settings) -> float:
        left = [
            seconds(run.candidate, run.rung)
            for run in fixed_runs(fitting, candidates)
            if run_id(fitting, run) not in ended
        ]
        return max(sum(left) / deadline.slots, max(left, default=0.0))

    while settings.ladder.rungs > 1 and needed(settings) > deadline.seconds_left:
        fewer = settings.with_rungs(settings.ladder.rungs - 1)
        if fewer is None:
            break
        settings = fewer
    return settings
