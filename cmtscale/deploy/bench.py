"""How fast networks are: they take turns in one run, so that other load slows all of them alike."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata

import torch

from cmtscale.arch.errors import CmtscaleError, first_line
from cmtscale.deploy import memory
from cmtscale.deploy.bench_request import TIMED, Backend, BenchRequest
from cmtscale.deploy.passes import Pass, build_for_timing, onnx_pass, torch_pass
from cmtscale.deploy.subjects import Subject
from cmtscale.record.bench import Bench, Conditions, LeftOut, Measurement
from cmtscale.record.model_folder import Size
from cmtscale.train.devices import available_cores, hardware
from cmtscale.train.memory import keep_freed_memory
from cmtscale.train.out_of_memory import is_out_of_memory
from cmtscale.train.save_model import size_of

WARM_UP = 3  # passes that compile, choose kernels and fill caches
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_COMPILED_SHAPES = 1000  # networks times batch sizes; beyond its limit of 8 torch runs eagerly


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One network with one batch size, ready to be timed."""

    subject: Subject
    size: Size
    batch: int
    run: Pass
    peak_bytes: int | None


def bench(
    subjects: Sequence[Subject],
    request: BenchRequest,
    *,
    clock: Callable[[], float] = time.perf_counter,
    watch: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Time forward passes of all subjects at all batch sizes, in turn; `watch` hears what goes on.

    A network that fails at a batch size, for lack of memory or otherwise, is left out with the
    cause, and the others go on. From the first timed pass on, this process keeps the memory that it
    frees (`train/memory.py`): what glibc does by default made EfficientNet-B4 1.7 times as slow in
    batches of 8 (`results/bench`). Raises `RequestError` for a request that this machine cannot do.
    """
    device = request.torch_device()
    sizes = [size_of(subject.network) for subject in subjects]
    load = _load_average()
    cells: list[_Cell] = []
    left_out: list[LeftOut] = []
    with _computing(request, device) as threads:
        for subject, size in zip(subjects, sizes, strict=True):
            watch(f"preparing {subject.name}")
            for outcome in _prepared(subject, size, request, device, threads):
                if isinstance(outcome, LeftOut):
                    left_out.append(outcome)
                else:
                    cells.append(outcome)
        keep_freed_memory()  # as trainings do, and after memory was measured
        seconds = take_turns(
            [cell.run for cell in cells], rounds=request.rounds, clock=clock, watch=watch
        )
    measurements = []
    for cell, times in zip(cells, seconds, strict=True):
        if isinstance(times, str):
            left_out.append(LeftOut(name=cell.subject.name, batch=cell.batch, reason=times))
        else:
            measurements.append(_measurement(cell, times))
    conditions = Conditions(
        backend=request.backend,
        dtype=request.dtype,
        device=str(device),
        hardware=hardware((str(device),)),
        threads=threads,
        tf32=device.type == "cuda" and request.dtype == "fp32" and torch.backends.cudnn.allow_tf32,
        compiled=request.compiled,
        rounds=request.rounds,
        passes_per_round=TIMED,
        load_average=load,
        memory=_memory_words(request, device, measurements),
        versions=_versions(request.backend),
    )
    return Bench(conditions=conditions, measurements=tuple(measurements), left_out=tuple(left_out))


def take_turns(
    passes: Sequence[Pass],
    *,
    rounds: int,
    clock: Callable[[], float],
    watch: Callable[[str], None] = lambda _: None,
) -> list[tuple[float, ...] | str]:
    """The seconds of `TIMED` passes of each in every round, or why one failed."""
    seconds: list[list[float]] = [[] for _ in passes]
    failed: dict[int, str] = {}
    started = clock()
    for number in range(rounds):
        for index, run in enumerate(passes):
            if index in failed:
                continue
            try:
                run()
                for _ in range(TIMED):
                    begun = clock()
                    run()
                    seconds[index].append(clock() - begun)
            except (MemoryError, RuntimeError) as error:
                failed[index] = cause(error)
        left = (clock() - started) / (number + 1) * (rounds - number - 1)
        watch(f"round {number + 1} of {rounds}, about {left:.0f} s left")
    return [failed.get(index) or tuple(times) for index, times in enumerate(seconds)]


def cause(error: BaseException) -> str:
    """Why a pass failed, in one line."""
    if is_out_of_memory(error):
        return "it runs out of memory beside the others; use a smaller batch, or fewer networks"
    return first_line(error)


def _prepared(
    subject: Subject, size: Size, request: BenchRequest, device: torch.device, threads: int
) -> Iterator[_Cell | LeftOut]:
    """The subject at each batch size, smallest first, warmed up."""
    on_cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if on_cuda else 0
    model = None
    for batch in sorted(request.batches):
        try:
            if model is None:
                model = build_for_timing(subject.network, device)
                compiled = torch.compile(model, dynamic=False) if request.compiled else model
            if request.backend == "onnxruntime":
                run = onnx_pass(model, subject.network, batch, threads=threads)
            else:
                run = torch_pass(compiled, subject.network, batch, device)
            for _ in range(WARM_UP):
                run()
            peak: int | None = None
            if on_cuda:
                peak = memory.cuda_growth(run, device, before=before)
            elif _is_resident_memory(request, device):
                growth = memory.resident_growth(run)
                peak = None if growth is None else growth + memory.weight_bytes(model)
        except (MemoryError, RuntimeError, TypeError, CmtscaleError) as error:
            yield LeftOut(name=subject.name, batch=batch, reason=cause(error))
            continue
        yield _Cell(subject=subject, size=size, batch=batch, run=run, peak_bytes=peak)


@contextmanager
def _computing(request: BenchRequest, device: torch.device) -> Iterator[int]:
    """Set threads, precision and inference mode; gives the number of threads."""
    before = torch.get_num_threads()
    threads = request.threads or min(before, available_cores())
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(threads)
        if request.backend == "torch":
            stack.enter_context(torch.inference_mode())
            low = request.dtype != "fp32"
            dtype = _DTYPES[request.dtype] if low else torch.bfloat16
            stack.enter_context(torch.autocast(device.type, dtype=dtype, enabled=low))
        if request.compiled:
            import torch._dynamo.config as dynamo

            stack.enter_context(dynamo.patch(cache_size_limit=_COMPILED_SHAPES))
        yield threads


def _measurement(cell: _Cell, seconds: tuple[float, ...]) -> Measurement:
    subject = cell.subject
    return Measurement(
        name=subject.name,
        resolution_px=subject.network.resolution_px,
        macs=cell.size.macs,
        params=cell.size.params,
        batch=cell.batch,
        seconds=seconds,
        peak_bytes=cell.peak_bytes,
        accuracy=subject.accuracy,
        accuracy_of=subject.accuracy_of,
    )


def _is_resident_memory(request: BenchRequest, device: torch.device) -> bool:
    """Whether the peak is weights and a pass: no copies of the weights, no memory kept unseen."""
    return device.type == "cpu" and request.backend == "torch" and request.dtype == "fp32"


def _memory_words(
    request: BenchRequest, device: torch.device, measurements: Sequence[Measurement]
) -> str:
    if device.type == "cuda":
        return memory.ON_CUDA
    if not _is_resident_memory(request, device):
        return memory.UNSEEN
    if any(measured.peak_bytes is not None for measured in measurements):
        return memory.ON_LINUX
    return memory.NOWHERE


def _versions(backend: Backend) -> str:
    packages = ["cmtscale", "torch", "timm", *(["onnxruntime"] if backend != "torch" else [])]
    return ", ".join(f"{package} {metadata.version(package)}" for package in packages)


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return None
