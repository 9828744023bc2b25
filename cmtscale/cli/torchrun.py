"""Which commands several processes of `torchrun` may run together."""

import os

from cmtscale.arch.errors import RequestError


def is_one_of_several() -> bool:
    """Whether this is one of several processes that `torchrun` has started."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def require_one_process(what: str) -> None:
    """Raise `RequestError` in one of several processes."""
    if is_one_of_several():
        raise RequestError(f"{what} in one process; start it without torchrun")
