"""A Ctrl-C that cannot be lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def lasting_interrupt() -> Iterator[Callable[[], None]]:
    """Yields a check that raises `KeyboardInterrupt` if Ctrl-C was pressed since.

    Python drops an exception that is raised in a weakref callback, and SQLAlchemy has many of
    these: one Ctrl-C in some fifteen, pressed while a run was recorded, went unheard.
    """
    pressed = threading.Event()

    def interrupt(*_: object) -> None:
        pressed.set()
        raise KeyboardInterrupt

    def check() -> None:
        if pressed.is_set():
            raise KeyboardInterrupt

    is_python_s = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (is_python_s and threading.current_thread() is threading.main_thread()):
        yield check
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
