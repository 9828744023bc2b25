"""Memory that a training keeps between its steps."""

import ctypes
import sys

# glibc's malloc.h, for mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process keep the memory that a training step frees, for the next step.

    Left alone, glibc hands it back to the system after each step, which then has to clear every
    page again: up to a fifth of a step on a CPU, for a peak that is hardly lower
    (`results/freed-memory`).
    For processes that train and do little else; elsewhere than on glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)  # as unsigned the largest: the heap is never cut back
        mallopt(_M_MMAP_MAX, 0)  # large tensors lie on the heap too
