"""Work that is asked to stop, by signals among others: a training keeps its state first."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from cmtscale.arch.errors import StoppedError

# Ctrl-C, the end of a job, Slurm's warning before it (`--signal=USR1@120`), a terminal that closes
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
]


IMPATIENT_SECONDS = 2.0  # torchrun passes a Ctrl-C on to processes that have it already


# Called between steps and batches: says that the work goes on; True where it shall stop.
CheckIn = Callable[[], bool]


def never() -> bool:
    """The check-in of work that nobody stops."""
    return False


def stop_if_asked(check_in: CheckIn) -> None:
    """Check in; raises `StoppedError` where the work shall stop."""
    if check_in():
        raise StoppedError


class StopRequest:
    """The last signal that has come, or 0."""

    def __init__(self) -> None:
        self.signal_number = 0
        self.heard_at = 0.0

    def hear(self, number: int, _: FrameType | None) -> None:
        """A second Ctrl-C, later, does not wait for the state to be kept."""
        if not self.signal_number:
            self.heard_at = time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.heard_at > IMPATIENT_SECONDS:
            raise KeyboardInterrupt
        self.signal_number = number


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Signals become a `StopRequest`, in a main thread; on leaving they act as before.

    Those that are ignored, as by `nohup`, stay so.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.hear) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_signals() -> Iterator[CheckIn]:
    """Yields the check-in of work that signals stop; its `StoppedError` gets the signal's code."""
    with listening() as request:
        try:
            yield lambda: request.signal_number != 0
        except StoppedError:
            raise StoppedError(request.signal_number) from None
