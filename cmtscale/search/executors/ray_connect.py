"""Ray as a package that may be missing, and the cluster that this process connects to."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cmtscale.arch.errors import RequestError
from cmtscale.train.stop import SIGNALS

ANSWER_SECONDS = 10.0


def import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported
    try:
        import ray
        import ray.util.scheduling_strategies
    except ModuleNotFoundError:
        raise RequestError("engine ray needs Ray; run pip install 'cmtscale[ray]'") from None
    return ray


def connect(ray: Any, address: str) -> bool:
    """Connect to the cluster; False if this process is connected already."""
    if ray.is_initialized():
        return False
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdecimal():  # Ray itself waits for minutes
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        with _handlers_kept():
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, RuntimeError) as error:
        where = "on this machine" if address == "auto" else f"at {address}"
        raise RequestError(
            f"no Ray cluster answers {where} ({' '.join(str(error).split())[:200]}); start "
            f"one with `ray start --head`, or give its --address"
        ) from error
    return True


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Signals act afterwards as before: Ray makes SIGTERM end the process at once."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS if is_main}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # one that is not Python's
                signal.signal(number, handler)
