"""How long a job that is carried out elsewhere has gone on, and has given no sign of life."""

import time
from dataclasses import dataclass, field

MOST_BETWEEN_LOOKS = 10.0  # seconds; more is time in which nobody looked, and so no silence


@dataclass(kw_only=True)
class Pulse:
    """Two clocks of a job, by a count of its signs of life, which was `beats` before it.

    `seconds` since it has begun, and `silent_seconds` since the last sign, or since it was
    submitted. Time in which the one who looks was stopped itself, by Ctrl-Z or a lid that was
    closed, does not count: its jobs were, too.
    """

    beats: int
    has_begun: bool = False
    seconds: float = 0.0
    silent_seconds: float = 0.0
    looked_at: float = field(default_factory=time.monotonic)

    def look(self, beats: int) -> float:
        """Let the clocks go on, now that so many signs have come; returns the silence."""
        now = time.monotonic()
        passed = min(now - self.looked_at, MOST_BETWEEN_LOOKS)
        self.looked_at = now
        self.silent_seconds += passed
        if self.has_begun:
            self.seconds += passed
        if beats != self.beats:
            self.beats, self.has_begun, self.silent_seconds = beats, True, 0.0
        return self.silent_seconds
