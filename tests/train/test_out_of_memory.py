"""Errors of a memory that is too small: which ones they are, and after which work goes on."""

import pytest
import torch

from cmtscale.search.executors.outcome import outcome_of
from cmtscale.train.micro_batches import AtOnce, halved_until_it_fits
from cmtscale.train.out_of_memory import is_out_of_memory, may_fit_when_smaller, spoils_process

REFUSED = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.1 GB)"),
]
PERHAPS_BROKEN = [
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported late"),
    RuntimeError("CUDA error: out of memory"),  # of torch before 2.8
    RuntimeError("HIP error: out of memory"),
]
OF_THE_HOST = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 9"),
    RuntimeError("Failed to allocate memory for requested buffer of size 9"),
]
OTHERS = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ValueError("cannot allocate memory"),
]


@pytest.mark.parametrize("error", REFUSED, ids=str)
def test_a_smaller_attempt_follows_what_a_device_refused(error):
    at_once, asked = AtOnce(images=8), []

    def attempt():
        asked.append(at_once.images)
        if at_once.images > 2:
            raise error
        return "fits"

    assert halved_until_it_fits(attempt, at_once) == "fits"
    assert asked == [8, 4, 2]


@pytest.mark.parametrize("error", [*PERHAPS_BROKEN, *OF_THE_HOST, *OTHERS], ids=str)
def test_none_follows_other_errors(error):
    at_once, asked = AtOnce(images=8), []

    def attempt():
        asked.append(at_once.images)
        raise error

    with pytest.raises(type(error)) as caught:
        halved_until_it_fits(attempt, at_once)
    assert caught.value is error
    assert asked == [8]


def test_what_no_halving_makes_fit_is_one_type_of_error():
    def attempt():
        raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")

    with pytest.raises(torch.OutOfMemoryError, match="CUDNN_STATUS_ALLOC_FAILED"):
        halved_until_it_fits(attempt, AtOnce(images=4))


@pytest.mark.parametrize("error", [*REFUSED, *PERHAPS_BROKEN, *OF_THE_HOST], ids=str)
def test_a_job_that_failed_for_want_of_memory_says_so(error):
    assert is_out_of_memory(error)
    assert outcome_of(error).cause.startswith("out of memory (")


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)
    assert not may_fit_when_smaller(error)
    assert not outcome_of(error).cause.startswith("out of memory")


@pytest.mark.parametrize("error", REFUSED, ids=str)
def test_a_process_that_can_go_on_is_not_spoilt(error):
    assert not spoils_process(error)


@pytest.mark.parametrize("error", PERHAPS_BROKEN, ids=str)
def test_a_process_whose_kernel_failed_is_spoilt(error):
    assert spoils_process(error)
    assert outcome_of(error).spoils_process
