"""Device strings to worker slots, with fake hardware."""

import io
import os
import platform
import subprocess
import sys
import textwrap

import pytest
import torch

from cmtscale.arch.errors import RequestError
from cmtscale.train.devices import available_cores, best_device, device_slots, hardware


@pytest.fixture
def machine(monkeypatch):
    """Fake a machine with this many GPUs and cores."""

    def pretend(*, gpus: int = 0, cores: int = 3, mps: bool = False):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: cores)

    return pretend


@pytest.mark.parametrize(
    ("device", "hardware", "slots"),
    [
        ("cpu", {}, ("cpu", "cpu", "cpu")),
        ("cpu", {"gpus": 2, "cores": 1}, ("cpu",)),
        ("auto", {}, ("cpu", "cpu", "cpu")),
        ("auto", {"gpus": 2}, ("cuda:0", "cuda:1")),
        ("auto", {"gpus": 1, "mps": True}, ("cuda:0",)),
        ("auto", {"mps": True}, ("mps",)),
        ("mps", {"mps": True}, ("mps",)),
        ("cuda", {"gpus": 3}, ("cuda:0", "cuda:1", "cuda:2")),
        ("cuda:0,1", {"gpus": 4}, ("cuda:0", "cuda:1")),
        ("cuda:2,0", {"gpus": 4}, ("cuda:2", "cuda:0")),
        ("cuda:1,1", {"gpus": 2}, ("cuda:1",)),
    ],
)
def test_one_worker_per_gpu_or_core(machine, device, hardware, slots):
    machine(**hardware)
    assert device_slots(device) == slots


@pytest.mark.parametrize(
    ("device", "workers", "slots"),
    [
        ("cpu", 5, ("cpu",) * 5),
        ("cpu", 1, ("cpu",)),
        ("cuda", 1, ("cuda:0",)),
        ("cuda", 5, ("cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0")),
        ("cuda:1", 2, ("cuda:1", "cuda:1")),
        ("auto", 4, ("cuda:0", "cuda:1", "cuda:0", "cuda:1")),
        ("mps", 2, ("mps", "mps")),
    ],
)
def test_workers_override_and_share_the_devices_evenly(machine, device, workers, slots):
    machine(gpus=2, mps=True)
    assert device_slots(device, workers) == slots


@pytest.mark.parametrize(
    ("device", "hardware", "message"),
    [
        ("cuda", {}, "device cuda: there is no CUDA device on this machine; use cpu or auto"),
        ("cuda:0", {}, "device cuda:0: there is no CUDA device on this machine; use cpu or auto"),
        ("cuda:7", {"gpus": 2}, "device cuda:7: there are 2 CUDA devices on this machine"),
        ("cuda:0,2", {"gpus": 2}, "device cuda:0,2: there are 2 CUDA devices on this machine"),
        ("mps", {"gpus": 2}, "device mps is not available on this machine; use cpu"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(machine, device, hardware, message):
    machine(**hardware)
    with pytest.raises(RequestError) as caught:
        device_slots(device)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "device",
    ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:a", "cuda:0,", "cuda:-1", "cuda 0", "cpu\n"],
)
def test_what_is_no_device_says_what_is(machine, device):
    machine(gpus=2)
    with pytest.raises(RequestError, match="is not one of auto, cpu, cuda, cuda:0,1, mps"):
        device_slots(device)


def test_negative_workers_are_refused():
    with pytest.raises(RequestError, match="workers -1 is not a whole number from 1 on"):
        device_slots("cpu", -1)


def test_best_device_is_the_first_of_cuda_mps_and_cpu(machine):
    machine(gpus=1, mps=True)
    assert best_device() == "cuda"
    machine(mps=True)
    assert best_device() == "mps"
    machine()
    assert best_device() == "cpu"


def test_cores_are_those_this_process_may_use_where_the_system_says(machine, monkeypatch):
    machine(cores=2)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setitem(sys.modules, "psutil", None)  # used where os.sched_getaffinity is missing
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "64")
    assert available_cores() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


def test_cores_are_no_more_than_the_quota_of_a_container(machine, monkeypatch):
    machine(cores=8)
    real_exists, real_open = os.path.exists, open
    quota = "/sys/fs/cgroup/cpu.max"
    monkeypatch.setattr(os.path, "exists", lambda path: path == quota or real_exists(path))
    monkeypatch.setattr(
        "builtins.open",
        lambda path, *args, **kwargs: (
            io.StringIO("150000 100000") if path == quota else real_open(path, *args, **kwargs)
        ),
    )
    assert available_cores() == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told so")
def test_freed_memory_is_not_faulted_in_again_once_it_is_kept():
    program = textwrap.dedent(
        """
        import ctypes, resource, sys
        from cmtscale.train.memory import keep_freed_memory

        if sys.argv[1] == "keep":
            keep_freed_memory()
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        faults = []
        for step in range(4):
            place = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(64 << 20)))
            libc.memset(place, 1, ctypes.c_size_t(64 << 20))
            libc.free(place)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        print(faults[-1] - faults[0])
        """
    )
    default, kept = (
        int(
            subprocess.run(
                [sys.executable, "-c", program, mode], check=True, capture_output=True, text=True
            ).stdout
        )
        for mode in ("default", "keep")
    )
    assert kept < default / 10  # 3 x 16,384 pages of 4 KiB, or 96 huge ones


@pytest.mark.parametrize(
    ("gpus", "description"), [(0, "3 x cuda"), (2, "3 x cuda"), (4, "3 x A card")]
)
def test_gpus_of_other_machines_are_counted_and_not_asked_for_their_name(
    machine, monkeypatch, gpus, description
):
    machine(gpus=gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A card")
    assert hardware(("cuda:0", "cuda:1", "cuda:3", "cuda:3")) == description
