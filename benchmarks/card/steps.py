"""Training steps as a search takes them, in every way a card can execute them, and their speed.

Forward in mixed precision, backward, clipping and fused AdamW, on a batch that lies on the card.
"""

import gc
import math
import re
import time
from collections.abc import Callable
from functools import lru_cache
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from card.cells import Outcome, Precision, Setting
from card.parity import switch_tf32_off
from cmtscale.arch.cost import cost
from cmtscale.model.cmt import build

WARM_UP, CHUNKS = 3, 5
LR = 1e-4  # small, as one batch is used for hundreds of steps
STEPS_PER_WAIT = 10  # a search reads its losses every 20 steps

# Dense TFLOP/s of cards by name, from NVIDIA's data sheets: bf16 tensor cores adding in fp32, and
# fp32 without tensor cores. Laptop cards and MIG slices have longer names, which do not match.
# None for bf16: the card has no bf16 tensor cores.
PEAKS: dict[str, tuple[float | None, float]] = {
    r"GH200 \d+GB": (989, 67),
    r"H200": (989, 67),
    r"H200 NVL": (835, 60),
    r"H100 80GB HBM3": (989, 67),  # SXM
    r"H100 NVL": (835, 60),
    r"H100 PCIe": (756, 51),
    r"A100.(SXM4|PCIE).[48]0GB|A100 80GB PCIe": (312, 19.5),
    r"L40S": (362, 91.6),
    r"L4": (121, 30.3),
    r"A10": (125, 31.2),
    r"V100.SXM2.(16|32)GB": (None, 15.7),
    r"V100.PCIE.(16|32)GB": (None, 14.0),
    r"T4": (None, 8.1),
    r"RTX 5090": (209.5, 104.8),
    r"RTX 4090": (165.2, 82.6),
    r"RTX 3090": (71.2, 35.6),
}

Step = Callable[[], Tensor]


def peak_tflops(card: str, precision: Precision) -> float | None:
    """The card's peak, None if it is not known; `card` is the name that its driver gives it."""
    name = re.sub(r"^(NVIDIA|Tesla|GeForce| )+", "", card)
    for pattern, (bf16, fp32) in PEAKS.items():
        if re.fullmatch(pattern, name):
            return bf16 if precision == "bf16" else fp32
    return None


def measure_steps(setting: Setting, device: str, chunk_seconds: float) -> Outcome:
    """The speed of the cell's steps in chunks of about `chunk_seconds`, synchronised at the end."""
    if device == "cuda":
        _reset_memory()
    step = training_step(setting, device)
    started = time.perf_counter()
    step = _prepare(step, setting, device)
    prepare_seconds = time.perf_counter() - started
    steps = max(1, math.ceil(chunk_seconds / _seconds(step, 1, device)))
    rates = [setting.batch * steps / _seconds(step, steps, device) for _ in range(CHUNKS)]
    if not math.isfinite(loss := step().item()):
        return Outcome(cause=f"the loss became {loss}")
    return Outcome(
        images_per_second=median(rates),
        slowest=min(rates),
        fastest=max(rates),
        steps=CHUNKS * steps,
        prepare_seconds=prepare_seconds,
        memory_gb=torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
        **_use_of_card(setting, median(rates), device),
    )


def prepare_steps(setting: Setting, device: str) -> Outcome:
    """Warm up the step that `train_for` then uses in the same process."""
    _prepared(setting, device)
    return Outcome()


def train_for(setting: Setting, device: str, window_seconds: float) -> Outcome:
    """Images per second of this process over a window in which other processes may train too."""
    step = _prepared(setting, device)
    seconds, steps = 0.0, 0
    while seconds < window_seconds:
        seconds += _seconds(step, STEPS_PER_WAIT, device)
        steps += STEPS_PER_WAIT
    return Outcome(images_per_second=setting.batch * steps / seconds, steps=steps)


def training_step(setting: Setting, device: str) -> Step:
    """One step of the cell's network, not captured; it returns the loss."""
    assert setting.network is not None
    network = setting.network
    switch_tf32_off()
    torch.backends.cudnn.benchmark = setting.autotuned
    if device == "cpu":
        torch.set_num_threads(1)  # as a search's workers
    if setting.compiled:
        torch.compiler.reset()  # drops what earlier cells compiled
    torch.manual_seed(0)
    model = build(network, attention=setting.attention).to(device).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=LR, weight_decay=0.05, fused=True, capturable=setting.cuda_graph
    )
    forward = torch.compile(model, dynamic=False) if setting.compiled else model
    side = network.resolution_px
    images = torch.randn(setting.batch, network.in_channels, side, side, device=device)
    labels = torch.randint(network.num_classes, (setting.batch,), device=device)
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=setting.precision == "bf16")

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = F.cross_entropy(forward(images), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.detach()

    return step


@lru_cache(maxsize=1)
def _prepared(setting: Setting, device: str) -> Step:
    return _prepare(training_step(setting, device), setting, device)


def _prepare(step: Step, setting: Setting, device: str) -> Step:
    """The step after its warm-up, which compiles and allocates; captured if the cell says so."""
    if setting.cuda_graph:
        return _captured(step)
    for _ in range(WARM_UP):
        step()
    _wait(device)
    return step


def _captured(step: Step) -> Step:
    """The step as a CUDA graph, warmed up on a side stream, as captures require."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    replay()
    torch.cuda.synchronize()
    return replay


def _seconds(step: Step, steps: int, device: str) -> float:
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _use_of_card(
    setting: Setting, images_per_second: float, device: str
) -> dict[str, float | None]:
    """Achieved TFLOP/s and their share of the peak; backward costs twice what forward does."""
    assert setting.network is not None
    tflops = 6 * cost(setting.network).macs * images_per_second / 1e12
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    peak = peak_tflops(card, setting.precision)
    return {"tflops": tflops, "peak_share": None if peak is None else tflops / peak}


def _reset_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
