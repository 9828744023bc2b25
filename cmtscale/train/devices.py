"""Which devices train (`auto`, `cpu`, `cuda`, `cuda:0,1`, `mps`), and how to keep their memory."""

import ctypes
import re
import sys

import torch

from cmtscale.arch.errors import RequestError

# glibc's malloc.h, for mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def device_slots(device: str, workers: int = 0) -> tuple[str, ...]:
    """The device of each worker: one per GPU, or one per core of a CPU.

    `auto` is CUDA if there is any, else MPS, else the CPU. `workers` (0: as said) overrides how
    many share a CPU or a GPU. Raises `RequestError` for a device that is not there.
    """
    if workers < 0:
        raise RequestError(f"workers {workers} is negative; use 0 for one per core or GPU")
    match = re.fullmatch(r"auto|cpu|mps|cuda(?::(\d+(?:,\d+)*))?", device)
    if match is None:
        raise RequestError(f"device {device!r} is not one of auto, cpu, cuda, cuda:0,1, mps")
    if device == "auto":
        device = best_device()
    if device == "cpu":
        return ("cpu",) * (workers or available_cores())
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise RequestError("device mps is not available on this machine; use cpu")
        return ("mps",) * (workers or 1)
    gpus = torch.cuda.device_count()
    wanted = [int(n) for n in match[1].split(",")] if match[1] else list(range(gpus))
    if not wanted or max(wanted) >= gpus:
        there = f"there are {gpus} CUDA devices" if gpus else "there is no CUDA device"
        raise RequestError(f"device {device}: {there} on this machine; use cpu or auto")
    slots = tuple(f"cuda:{number}" for number in dict.fromkeys(wanted))
    return tuple(slots[index % len(slots)] for index in range(workers)) if workers else slots


def best_device() -> str:
    """CUDA if there is any, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def available_cores() -> int:
    """Cores this process may use: fewer than the machine's under taskset or a container's quota."""
    import joblib  # costs a third of a second, and GPUs do not need it

    return int(joblib.cpu_count())


def keep_freed_memory() -> None:
    """Let this process keep the memory that a training step frees, for the next step.

    Left alone, glibc hands it back to the system after each step, which then has to clear every
    page again: up to a sixth of a step on a CPU, for a peak up to 4 % lower
    (`results/freed-memory`).
    For processes that train and do little else; elsewhere than on glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)  # as unsigned the largest: the heap is never cut back
        mallopt(_M_MMAP_MAX, 0)  # large tensors lie on the heap too
