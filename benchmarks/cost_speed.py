"""How fast is the arithmetic? Exact costs per second on one core, and the time of one `solve`.

    python benchmarks/cost_speed.py [--variants 1000000] [--points 1000] [--out results/cost-speed]

Costs are counted many at a time, every field of every variant, in repeats of `--variants`.
Solutions are timed one at a time over random points: any published base, shares uniform on the
simplex, budgets log-uniform from 0.2 G to 40 G MACs; points without a solution apart, because
their error computes the nearest budget. The fastest of three solves of a point counts, so that
the slowest point is a hard one and not one that was interrupted. Times are CPU seconds of this
process, pinned to one core where the system allows it, so that a busy machine changes them little.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cmtscale.arch.errors import BudgetError
from cmtscale.arch.growth import count_many
from cmtscale.arch.scaling import Shares
from cmtscale.arch.solve import solve
from cmtscale.arch.variant import published_variants, variant
from cmtscale.search.environment import hardware

COSTS_PER_SECOND_GOAL = 1e6
SOLVE_MS_GOAL = 10.0
REPEATS = 7
SOLVE_REPEATS = 3  # the fastest counts: others may have been interrupted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", type=int, default=1_000_000, help="costs per repeat")
    parser.add_argument("--points", type=int, default=1000, help="solutions to time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to write cost_speed.json into")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rng = np.random.default_rng(args.seed)
    results = {**time_costs(args.variants, rng), **time_solve(args.points, rng)}
    print(
        f"{results['costs_per_second_median'] / 1e6:.2f} million exact costs per second "
        f"(best {results['costs_per_second_best'] / 1e6:.2f}, "
        f"goal {COSTS_PER_SECOND_GOAL / 1e6:g}), "
        f"n={REPEATS} repeats of {args.variants:,} on one core"
    )
    print(
        f"solve: median {results['solve_ms_median']:.2f} ms, p99 {results['solve_ms_p99']:.2f} ms, "
        f"slowest {results['solve_ms_max']:.2f} ms (goal {SOLVE_MS_GOAL:g}), "
        f"n={results['solve_n']} random points; {results['impossible_n']} impossible ones "
        f"said so in {results['impossible_ms_median']} ms (median)"
    )
    if args.out:
        described = {
            **results,
            "seed": args.seed,
            "hardware": hardware(("cpu",)),
            "load_average": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "date": datetime.now(UTC).date().isoformat(),
        }
        args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(described, indent=1) + "\n"
        (args.out / "cost_speed.json").write_text(text, encoding="utf-8")


def time_costs(count: int, rng: np.random.Generator) -> dict[str, float]:
    """Costs per second of `count_many` over random CMT-S-like variants."""
    base = variant("cmt-s")
    dim1 = 2 * rng.integers(4, 128, count)
    sizes = {
        "dims": dim1[:, None] * np.array([1, 2, 4, 8]),
        "depths": rng.integers(1, 40, (count, 4)),
        "stem_channels": 2 * rng.integers(4, 64, count),
        "resolution_px": 32 * rng.integers(2, 17, count),
    }
    count_many(base, **sizes)  # the first one warms up
    rates = [count / seconds(lambda: count_many(base, **sizes)) for _ in range(REPEATS)]
    return {
        "costs_n": count,
        "costs_repeats": REPEATS,
        "costs_per_second_median": round(float(np.median(rates))),
        "costs_per_second_best": round(max(rates)),
    }


def time_solve(points: int, rng: np.random.Generator) -> dict[str, float | None]:
    """Milliseconds of `solve` at random points, those without a solution apart."""
    bases = published_variants()
    solved: list[float] = []
    impossible: list[float] = []
    for _ in range(points):
        depth, width, resolution = rng.dirichlet([1, 1, 1])
        shares = Shares(depth=depth, width=width, resolution=resolution)
        request: dict[str, Any] = {
            "alpha": shares.alpha,
            "beta": shares.beta,
            "gamma": shares.gamma,
            "budget_macs": float(np.exp(rng.uniform(np.log(0.2e9), np.log(40e9)))),
        }
        base = bases[rng.integers(len(bases))]
        repeats = []
        for _ in range(SOLVE_REPEATS):
            start = time.process_time()
            try:
                solve(base, **request)
                times = solved
            except BudgetError:
                times = impossible
            repeats.append(1e3 * (time.process_time() - start))
        times.append(min(repeats))
    return {
        "solve_n": len(solved),
        "solve_ms_median": round(float(np.median(solved)), 3),
        "solve_ms_p99": round(float(np.percentile(solved, 99)), 3),
        "solve_ms_max": round(max(solved), 3),
        "impossible_n": len(impossible),
        "impossible_ms_median": round(float(np.median(impossible)), 1) if impossible else None,
        "impossible_ms_max": round(max(impossible), 1) if impossible else None,
    }


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
