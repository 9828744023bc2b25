"""Which commands several processes of `torchrun` may run together."""

import os

from cmtscale.arch.errors import RequestError


def require_one_process(what: str) -> None:
    """Raise `RequestError` in one of several processes that `torchrun` has started."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RequestError(f"{what} in one process; start it without torchrun")
