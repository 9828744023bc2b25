"""How much faster is the network than a textbook's? Forward + backward in fp32, interleaved.

    python benchmarks/network_speed.py [--rounds 15] [--threads 2] [--out results/network-speed]
    python benchmarks/network_speed.py --profile cmt-ti    # where a step's time goes

Every round times one step of each implementation, in turn, so that a busy machine slows all of
them alike; the ratio is taken within each round and its median and quartiles are reported. The
process keeps freed memory, as one that trains does. Peak memory is the growth of the resident set
over the built network, each in a process of its own.
"""

import argparse
import os
import platform
import re
import resource
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles

import pandas as pd
import torch
import torch.nn.functional as F
from textbook_cmt import TextbookCMT
from torch import Tensor, nn

from cmtscale.arch.cost import cost
from cmtscale.arch.variant import Variant, variant
from cmtscale.model.cmt import build
from cmtscale.search.environment import hardware
from cmtscale.train.memory import keep_freed_memory

WORKLOADS = {"cmt-ti": 8, "cmt-s": 4}  # variant → batch, at the variant's own resolution
TARGETS = {"cmt-ti": 1.5, "cmt-s": 1.3}
WARM_UP, STEPS = 6, 8  # of a profile
OPERATORS = {  # by the names of torch's operators
    "convolutions and products": r"^aten::(convolution_backward|mkldnn_convolution|(add|b|)mm)$",
    "GELU": r"^aten::gelu",
    "norms": r"^aten::(native_)?(batch|layer)_norm",
}
IMPLEMENTATIONS = {"cmtscale": build, "textbook": TextbookCMT}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder to write network_speed.csv into")
    parser.add_argument("--profile", choices=list(WORKLOADS), help="say where the time goes")
    parser.add_argument("--peak", nargs=2, metavar=("IMPLEMENTATION", "VARIANT"), help="internal")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    if args.peak:
        print(peak_megabytes(*args.peak))
        return
    if args.profile:
        profile(args.profile)
        return
    rows = [compare(name, args.rounds, args.threads) for name in WORKLOADS]
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(args.out / "network_speed.csv", index=False)


def compare(name: str, rounds: int, threads: int) -> dict[str, object]:
    """Time both implementations of one workload; print the ratio, return the table row."""
    spec = variant(name)
    images, labels = batch(spec)
    models = {label: make(spec).train() for label, make in IMPLEMENTATIONS.items()}
    seconds: dict[str, list[float]] = {label: [] for label in models}
    for number in range(rounds + 2):
        for label, model in models.items():
            elapsed = step(model, images, labels)
            if number >= 2:  # the first two rounds warm up
                seconds[label].append(elapsed)
    ratios = [t / c for c, t in zip(seconds["cmtscale"], seconds["textbook"], strict=True)]
    low, ratio, high = quantiles(ratios, n=4)
    fastest = min(seconds["textbook"]) / min(seconds["cmtscale"])
    peak = {label: run_peak(label, name, threads) for label in models}
    print(
        f"{name} {len(images)}x{spec.resolution_px}² fp32, {threads} threads, n={rounds}: "
        f"textbook / cmtscale = {ratio:.2f} (quartiles {low:.2f}-{high:.2f}, "
        f"fastest steps {fastest:.2f}; target {TARGETS[name]}); "
        f"peak memory {peak['cmtscale']:.0f} / {peak['textbook']:.0f} MB"
    )
    return {
        "variant": name,
        "batch": len(images),
        "resolution_px": spec.resolution_px,
        "threads": threads,
        "n": rounds,
        "ratio_median": round(ratio, 3),
        "ratio_q1": round(low, 3),
        "ratio_q3": round(high, 3),
        "ratio_of_fastest": round(fastest, 3),
        **{f"{label}_median_s": round(quantiles(seconds[label])[1], 4) for label in models},
        **{f"{label}_fastest_s": round(min(seconds[label]), 4) for label in models},
        **{f"{label}_peak_mb": round(peak[label]) for label in models},
        "hardware": hardware(("cpu",)),
        "load_average": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def profile(name: str) -> None:
    """Print which operators take the time of a step of each implementation, and its products' rate.

    Dispatch is the time of a step of the same depth with almost no arithmetic.
    """
    spec = variant(name)
    images, labels = batch(spec)
    thin = replace(
        spec,
        resolution_px=64,
        stages=tuple(replace(stage, dim=8 * stage.heads) for stage in spec.stages),
    )
    few = torch.randn(2, spec.in_channels, 64, 64)
    for label, make in IMPLEMENTATIONS.items():
        model, hollow = make(spec).train(), make(thin).train()
        for _ in range(WARM_UP):
            step(model, images, labels)
            step(hollow, few, labels[:2])
        seconds = median(step(model, images, labels) for _ in range(STEPS))
        dispatch = median(step(hollow, few, labels[:2]) for _ in range(STEPS))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(STEPS):
                step(model, images, labels)
        times = dict.fromkeys([*OPERATORS, "the rest"], 0.0)
        for event in profiler.key_averages():
            kind = next((k for k, words in OPERATORS.items() if re.search(words, event.key)), None)
            times[kind or "the rest"] += event.self_cpu_time_total
        total = sum(times.values())
        shares = ", ".join(f"{kind} {100 * t / total:.0f} %" for kind, t in times.items())
        products = times["convolutions and products"] / total * seconds
        print(
            f"{name} {label}: a step takes {1e3 * seconds:.0f} ms, "
            f"{1e3 * dispatch:.0f} ms with next to no arithmetic; {shares}; convolutions and "
            f"products at {6 * len(images) * cost(spec).macs / products / 1e9:.0f} GFLOP/s"
        )


def batch(spec: Variant) -> tuple[Tensor, Tensor]:
    side = spec.resolution_px
    size = WORKLOADS[spec.name]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, spec.in_channels, side, side, generator=generator)
    return images, torch.randint(spec.num_classes, (size,), generator=generator)


def step(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    model.zero_grad()
    start = time.perf_counter()
    F.cross_entropy(model(images), labels).backward()
    return time.perf_counter() - start


def peak_megabytes(label: str, name: str) -> float:
    """Peak resident memory that three steps add to the built network, in 10^6 bytes."""
    spec = variant(name)
    images, labels = batch(spec)
    model = IMPLEMENTATIONS[label](spec).train()
    before = peak_resident()
    for _ in range(3):
        step(model, images, labels)
    return peak_resident() - before


def peak_resident() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage includes the parent's memory before exec
        return float(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def run_peak(label: str, name: str, threads: int) -> float:
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", label, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
