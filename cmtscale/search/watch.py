"""What a search tells whoever watches it."""

from dataclasses import dataclass
from typing import Protocol

from cmtscale.record.row import Row
from cmtscale.record.scores import Score
from cmtscale.search.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search is: ended and all runs so far, the part of its time, and what runs now.

    `best` has the lowest mean loss at the last rung that any candidate has reached.
    """

    done: int
    runs: int
    part: float
    running: tuple[tuple[str, float], ...]  # run id, part done
    images_per_second: float
    seconds_left: float
    best: Score | None


class Watcher(Protocol):
    """Hears how a search goes."""

    def planned(self, plan: Plan) -> None:
        """Before anything is trained."""
        ...

    def progressed(self, progress: Progress) -> None:
        """About once a second."""
        ...

    def ended(self, row: Row) -> None:
        """A run has ended and is recorded."""
        ...

    def noted(self, text: str) -> None:
        """Something worth a line."""
        ...


class NullWatcher:
    """Shows nothing."""

    def planned(self, plan: Plan) -> None: ...

    def progressed(self, progress: Progress) -> None: ...

    def ended(self, row: Row) -> None: ...

    def noted(self, text: str) -> None: ...
