"""Which errors say that memory was too small, and after which of them a process can go on."""

import gc
import re
import traceback

import torch

# Of libraries that allocate on a GPU by themselves (cuBLAS, cuDNN, cuSOLVER, those of ROCm), and of
# Apple's GPUs: torch passes them on as a RuntimeError.
_ON_DEVICE = re.compile(
    r"_STATUS_ALLOC_FAILED|_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
    r"|BLAS_STATUS_NOT_INITIALIZED when calling .?\w*[cC]reate"  # its first allocation
    r"|MPS backend out of memory"
)
# Of CUDA's or ROCm's runtime, and of the host (torch, ONNX Runtime).
_ELSEWHERE = re.compile(
    r"(CUDA|HIP) error: out of memory|allocate memory|DefaultCPUAllocator: not enough memory"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was too small, the host's or a device's."""
    if isinstance(error, MemoryError) or may_fit_when_smaller(error):
        return True
    return isinstance(error, RuntimeError) and _ELSEWHERE.search(str(error)) is not None


def may_fit_when_smaller(error: BaseException) -> bool:
    """Whether a device refused an allocation, and the process can go on with a smaller one.

    Not where CUDA's runtime itself is out of memory (`torch.AcceleratorError`): that may come late,
    of a kernel that ran before, and torch does not promise that the device is of use after it.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _ON_DEVICE.search(str(error)) is not None


def spoils_process(error: BaseException) -> bool:
    """Whether a kernel has failed: CUDA refuses all that its process asks for then."""
    if not isinstance(error, RuntimeError) or may_fit_when_smaller(error):
        return False
    return re.search("(CUDA|HIP) error:", str(error)) is not None


def give_back(error: BaseException) -> None:
    """Free what the failed attempt held: a network, and a half-built graph."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    torch.cuda.empty_cache()
