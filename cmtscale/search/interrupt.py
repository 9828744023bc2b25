"""Signals that ask a search to stop, none of which can be lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cmtscale.arch.errors import StoppedError
from cmtscale.train.stop import SIGNALS


class Interrupts:
    """The first signal that has come, or 0. It breaks off what goes on, unless that is `deferred`.

    Python drops an exception that is raised in a weakref callback, and SQLAlchemy has many of
    these: one Ctrl-C in some fifteen, pressed while a run was recorded, went unheard. So `check`
    raises it again.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._is_deferred = False

    def hear(self, number: int, _: FrameType | None) -> None:
        """What a signal does: the first breaks off what goes on, unless that is deferred.

        Later ones do not break off the end that it makes, but for Ctrl-C, which ends at once.
        """
        is_first = not self.signal_number
        self.signal_number = self.signal_number or number
        if number == signal.SIGINT and not is_first:
            raise KeyboardInterrupt
        if is_first and not self._is_deferred:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal has come."""
        if self.signal_number:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """What is done in here looks for a signal itself, and ends in its own way.

        One that comes as it ends is raised then.
        """
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        self.check()


@contextmanager
def lasting_interrupts() -> Iterator[Interrupts]:
    """Ctrl-C, the end of a job and Slurm's warning before it, in a main thread.

    Signals that are ignored (`nohup`), or that the program hears itself, are left alone. Raises
    `StoppedError` after another signal than Ctrl-C.
    """
    interrupts = Interrupts()
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if is_main}
    ours = [n for n in before if before[n] in (signal.SIG_DFL, signal.default_int_handler)]
    for number in ours:
        signal.signal(number, interrupts.hear)
    try:
        yield interrupts
    except KeyboardInterrupt:
        if interrupts.signal_number in (0, signal.SIGINT):
            raise
        raise StoppedError(interrupts.signal_number) from None
    finally:
        for number in ours:
            signal.signal(number, before[number])
