"""What does it gain to keep freed memory between steps? Training steps of proxy twins on one core.

    python benchmarks/freed_memory.py [--rounds 3] [--steps 6] [--out results/freed-memory]

Each round trains every twin twice, in turn and in a process of its own: with the defaults of
glibc, and after `keep_freed_memory`, as workers and `cmtscale train` do. The ratio is taken within
each round.
"""

import argparse
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pandas as pd
import torch

from cmtscale.arch.variant import Stage, Variant
from cmtscale.model.cmt import build
from cmtscale.search.environment import hardware
from cmtscale.train.memory import keep_freed_memory
from cmtscale.train.optimizer import make_optimizer
from cmtscale.train.recipe import Recipe

BATCH = 32  # as a search trains
MODES = ("default", "kept")


def twin(dim: int, depths: tuple[int, ...], resolution_px: int) -> Variant:
    """About 10 MMACs, shaped as the twins of a search are."""
    shape = zip(depths, (1, 2, 4, 8), (8, 4, 2, 1), strict=True)
    stages = (
        Stage(dim=dim * heads, depth=depth, heads=heads, reduction=k, expansion=3.77)
        for depth, heads, k in shape
    )
    return Variant(
        name="twin",
        resolution_px=resolution_px,
        stem_channels=dim // 2,
        num_classes=10,
        in_channels=1,
        stages=tuple(stages),
    )


TWINS = {
    "wide": twin(20, (1, 1, 4, 1), 64),
    "deep": twin(8, (6, 6, 24, 6), 64),
    "high resolution": twin(8, (1, 1, 4, 1), 128),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--out", type=Path, help="folder to write freed_memory.csv into")
    parser.add_argument("--measure", nargs=2, metavar=("TWIN", "MODE"), help="internal")
    args = parser.parse_args()
    if args.measure:
        print(*measure(*args.measure, args.steps))
        return
    rows = [compare(name, args.rounds, args.steps) for name in TWINS]
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(args.out / "freed_memory.csv", index=False)


def compare(name: str, rounds: int, steps: int) -> dict[str, object]:
    """Time both modes of one twin; print the ratio, return the table row."""
    rows: dict[str, list[list[float]]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            command = [sys.executable, __file__, "--steps", str(steps), "--measure", name, mode]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[mode].append([float(number) for number in run.stdout.split()])
    seconds, faults, peak_mb = (
        {mode: [row[column] for row in rows[mode]] for mode in MODES} for column in range(3)
    )
    ratios = [d / k for d, k in zip(seconds["default"], seconds["kept"], strict=True)]
    print(
        f"{name}: default / kept = {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}, "
        f"n={rounds}); page faults a step {median(faults['default']):.0f} and "
        f"{median(faults['kept']):.0f}; peak {median(peak_mb['default']):.0f} and "
        f"{median(peak_mb['kept']):.0f} MB"
    )
    return {
        "twin": name,
        "n": rounds,
        "ratio_median": round(median(ratios), 3),
        "ratio_least": round(min(ratios), 3),
        "ratio_most": round(max(ratios), 3),
        **{f"{mode}_step_s": round(median(seconds[mode]), 4) for mode in MODES},
        **{f"{mode}_page_faults": round(median(faults[mode])) for mode in MODES},
        **{f"{mode}_peak_mb": round(median(peak_mb[mode])) for mode in MODES},
        "hardware": hardware(("cpu",)),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def measure(name: str, mode: str, steps: int) -> tuple[float, float, float]:
    """Median seconds and mean page faults of a step, and the process's peak memory, 10^6 bytes."""
    if mode == "kept":
        keep_freed_memory()
    torch.set_num_threads(1)
    network = build(TWINS[name]).train()
    optimizer = make_optimizer(network, Recipe())
    side = TWINS[name].resolution_px
    images, labels = torch.randn(BATCH, 1, side, side), torch.zeros(BATCH, dtype=torch.long)
    seconds: list[float] = []
    faults: list[int] = []
    for number in range(steps + 3):
        faults_before, began = (
            resource.getrusage(resource.RUSAGE_SELF).ru_minflt,
            time.perf_counter(),
        )
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        if number >= 3:  # the first steps warm up
            seconds.append(time.perf_counter() - began)
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults_before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return median(seconds), sum(faults) / steps, peak


if __name__ == "__main__":
    main()
