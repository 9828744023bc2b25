"""Runs that fail: which are tried again, and when so many fail that the search must stop."""

import re
import textwrap
from collections.abc import Iterable, Mapping

MOST_TRIES = 3  # of a run in one command, each with another error
LEAST_FAILED = 2  # one that fails is no sign
MOST_FAILED = 1 / 5  # of the runs asked for; where more fail, something outside the runs is wrong
_CAUSES_NAMED = 3
_CAUSE_CHARACTERS = 160
# numbers, addresses, and names that are drawn anew each time: tmp7x_a, 3f2c-91d0
_CHANGING = re.compile(r"0x[0-9a-fA-F]+|\btmp\w+|[\w-]*\d[\w-]*")


class Failures:
    """The failures of one command.

    `recorded` are the causes, by run id, of the runs that failed in earlier commands. `for_good`
    are those of the runs that are not tried again in this one.
    """

    def __init__(self, recorded: Mapping[str, str]) -> None:
        self.for_good: dict[str, str] = {}
        self._last = dict(recorded)
        self._tries: dict[str, int] = {}

    def add(self, run_id: str, cause: str) -> bool:
        """Take in that a run has failed; whether it is tried again.

        The same error twice, in this command or the one before it, would come a third time.
        """
        self._tries[run_id] = self._tries.get(run_id, 0) + 1
        is_repeated = run_id in self._last and error_kind(self._last[run_id]) == error_kind(cause)
        self._last[run_id] = cause
        if is_repeated or self._tries[run_id] >= MOST_TRIES:
            self.for_good[run_id] = cause
            return False
        return True

    def problem(self, asked: int) -> str:
        """What to tell where more than a fifth of the runs asked for, and two, failed; else ''."""
        failed = len(self.for_good)
        if failed < LEAST_FAILED or failed <= MOST_FAILED * asked:
            return ""
        return (
            f"{failed} of {asked} runs failed, more than a fifth: "
            f"{grouped(self.for_good.values())}; mend that, and the same command tries them again"
        )


def error_kind(cause: str) -> str:
    """The cause without what differs each time: numbers, addresses, random names."""
    return _CHANGING.sub("#", cause)


def grouped(causes: Iterable[str]) -> str:
    """`4 x the worker died (exit code -9), 2 x no memory`: each kind once, the commonest first."""
    kinds: dict[str, list[str]] = {}
    for cause in causes:
        kinds.setdefault(error_kind(cause), []).append(cause)
    groups = sorted(kinds.values(), key=len, reverse=True)
    named = [
        f"{len(group)} x {textwrap.shorten(group[0], _CAUSE_CHARACTERS, placeholder=' …')}"
        for group in groups[:_CAUSES_NAMED]
    ]
    others = sum(map(len, groups[_CAUSES_NAMED:]))
    return ", ".join([*named, f"{others} x other causes"] if others else named)
