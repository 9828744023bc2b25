"""How much memory a forward pass needs at its peak."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

ON_CUDA = "weights, input and one pass, by torch.cuda.max_memory_allocated"
ON_LINUX = "weights, and by how much one pass raises the peak of the resident memory"
UNSEEN = "not measured: it is kept between passes, where a process's memory does not show it"
NOWHERE = "not measured: this system gives no resettable peak of a process's memory"

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5): the peak of the resident memory becomes the present


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def cuda_growth(run: Callable[[], object], device: torch.device, *, before: int) -> int:
    """Peak bytes that are allocated on the device during `run`, above `before` bytes."""
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return torch.cuda.max_memory_allocated(device) - before


def resident_growth(run: Callable[[], object]) -> int | None:
    """Bytes by which `run` raises the peak of this process's resident memory.

    Memory that was freed before is handed back to the system first, so that it counts when it is
    used again. None elsewhere than on Linux, or where /proc does not allow it.
    """
    if sys.platform != "linux":
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is None:
        return None
    try:
        trim(0)
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
        before = _resident_bytes("VmRSS")
        run()
        return max(0, _resident_bytes("VmHWM") - before)
    except (OSError, KeyError):
        return None


def _resident_bytes(name: str) -> int:
    """`VmRSS`, the resident memory now, or `VmHWM`, its peak."""
    lines = (_PROCESS / "status").read_text().splitlines()
    sizes = {key: value for key, _, value in (line.partition(":") for line in lines)}
    return 1024 * int(sizes[name].split()[0])
