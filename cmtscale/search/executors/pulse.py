"""Whether a job that is carried out elsewhere still gives signs of life."""

import time
from dataclasses import dataclass, field

MOST_BETWEEN_LOOKS = 10.0  # seconds; more is time in which nobody looked, and so no silence


@dataclass(kw_only=True)
class Pulse:
    """How long a job has been silent, by a count of its signs of life, which was `beats`.

    Time in which the one who looks was stopped itself, by Ctrl-Z or a lid that was closed, does not
    count: its jobs were, too.
    """

    beats: int
    has_begun: bool = False
    silent_seconds: float = 0.0
    looked_at: float = field(default_factory=time.monotonic)

    def look(self, beats: int) -> float:
        """Seconds of silence, now that so many signs have come."""
        now = time.monotonic()
        self.silent_seconds += min(now - self.looked_at, MOST_BETWEEN_LOOKS)
        self.looked_at = now
        if beats != self.beats:
            self.beats, self.has_begun, self.silent_seconds = beats, True, 0.0
        return self.silent_seconds
