"""Runs that fail: which are tried again, and when so many fail that the search must stop."""

import re
import textwrap
from collections.abc import Iterable, Sequence

from cmtscale.record.result import RunResult
from cmtscale.record.row import Row
from cmtscale.search.jobs import TrainRun

MOST_TRIES = 3  # of a run in one command, each with another error
LEAST_FAILED = 2  # one that fails is no sign
MOST_FAILED = 1 / 5  # of the runs asked for; where more fail, something outside the runs is wrong
MANY_WITHOUT_RESULT = 3  # that fail are enough while no run has a result
_CAUSES_NAMED = 3
_CAUSE_CHARACTERS = 160
_SAME_CODE = r"(?:exit code|Errno) -?\d+"  # says what happened
# numbers, addresses, and names that are drawn anew each time: tmp7x_a, 3f2c-91d0
_CHANGING = re.compile(rf"({_SAME_CODE})|0x[0-9a-fA-F]+|\btmp\w+|[\w-]*\d[\w-]*")


class Failures:
    """The failures of one command, after those that `rows` record of earlier ones.

    Too many: more than a fifth of the runs asked for and at least two, or at least three while no
    run has a result. Where so many have failed once, they are tried again before other runs start;
    where so many fail for good, the search stops. What fails once, and not again, never stops it.
    `for_good` are the causes, by run id, of the runs that are not tried again in this command.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        recorded = list(rows)
        self.for_good: dict[str, str] = {}
        self._last = {row.run_id: row.cause for row in recorded if row.status == "failed"}
        self._tries: dict[str, int] = {}  # of runs without a result that have failed here
        self._has_result = any(row.status != "failed" for row in recorded)

    def is_tried_again(self, run_id: str, result: RunResult) -> bool:
        """Take in how a run has ended; whether it is tried again.

        The same error twice, in this command or the one before it, would come a third time.
        """
        if result.status != "failed":
            self._has_result = True
            self._tries.pop(run_id, None)
            return False
        self._tries[run_id] = self._tries.get(run_id, 0) + 1
        last, self._last[run_id] = self._last.get(run_id), result.cause
        is_repeated = last is not None and error_kind(last) == error_kind(result.cause)
        if is_repeated or self._tries[run_id] >= MOST_TRIES:
            self.for_good[run_id] = result.cause
            return False
        return True

    def ordered(self, waiting: Sequence[TrainRun], asked: int) -> list[TrainRun]:
        """The runs that wait; those that have failed come first where they are too many."""
        if not self._are_too_many(len(self._tries), asked):
            return list(waiting)
        return sorted(waiting, key=lambda job: job.run.run_id not in self._tries)

    def problem(self, asked: int) -> str:
        """What to tell where too many of the runs asked for failed for good; else ''."""
        failed = len(self.for_good)
        if not self._are_too_many(failed, asked):
            return ""
        more = "more than a fifth" if failed > MOST_FAILED * asked else "and none has a result"
        return (
            f"{failed} of {asked} runs failed, {more}: {grouped(self.for_good.values())}; "
            f"mend that, and the same command tries them again"
        )

    def _are_too_many(self, failed: int, asked: int) -> bool:
        if not self._has_result and failed >= MANY_WITHOUT_RESULT:
            return True
        return failed >= LEAST_FAILED and failed > MOST_FAILED * asked


def error_kind(cause: str) -> str:
    """The cause without what differs each time: numbers but for codes, addresses, random names."""
    return _CHANGING.sub(lambda match: match[1] or "#", cause)


def grouped(causes: Iterable[str]) -> str:
    """`4 x the worker died (exit code -9), 2 x no memory`: each kind once, the commonest first.

    What differs between the causes of a kind is a #.
    """
    kinds: dict[str, list[str]] = {}
    for cause in causes:
        kinds.setdefault(error_kind(cause), []).append(cause)
    groups = sorted(kinds.items(), key=lambda item: -len(item[1]))
    named = []
    for kind, group in groups[:_CAUSES_NAMED]:
        text = group[0] if len(set(group)) == 1 else kind
        shortened = textwrap.shorten(text, _CAUSE_CHARACTERS, placeholder=" …")
        named.append(f"{len(group)} x {shortened}")
    others = sum(len(group) for _, group in groups[_CAUSES_NAMED:])
    return ", ".join([*named, f"{others} x other causes"] if others else named)
