"""Which devices compute, `auto`, `cpu`, `cuda`, `cuda:0,1` or `mps`, and what they are."""

import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from cmtscale.arch.errors import RequestError
from cmtscale.train.recipe import require_count


def device_slots(device: str, workers: int | None = None) -> tuple[str, ...]:
    """The device of each worker: one per GPU, or one per core of a CPU.

    `auto` is CUDA if there is any, else MPS, else the CPU. `workers` (None: as said) overrides how
    many share a CPU or a GPU. Raises `RequestError` for a device that this machine lacks.
    """
    if workers is not None:
        require_count("workers", workers)
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
        count = f"there are {gpus} CUDA devices" if gpus else "there is no CUDA device"
        raise RequestError(f"device {device}: {count} on this machine; use cpu or auto")
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


def hardware(devices: Sequence[str]) -> str:
    """The GPUs or the processor that these devices are, with their number."""
    if devices[0].startswith("cuda"):
        here = {"cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))}
        if not torch.cuda.is_available() or not here.issuperset(devices):  # they are elsewhere
            return f"{len(set(devices))} x cuda"
        names = sorted({torch.cuda.get_device_name(device) for device in devices})
        return f"{len(set(devices))} x {', '.join(names)}"
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
