"""What an engine adds to a run: seconds of it, and the part of the time that workers are busy.

    python benchmarks/engine_overhead.py [--engine local|ray] [--slots 2] [--runs 20]

Runs are stand-ins that wait: they need no core, so that other work on the machine disturbs little.
`ray` starts a cluster on this machine. Starting the workers is measured apart: a search does so
once. With Slurm what counts is its queue, and an interpreter that starts with each job.
"""

import argparse
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cmtscale.search.executors.base import carry_out_all
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.train.stop import CheckIn

RUN_SECONDS = 2.0


@dataclass(frozen=True)
class Waits:
    """Stands for a run of so many seconds."""

    seconds: float

    def carry_out(self, _device: str, _check_in: CheckIn) -> float:
        time.sleep(self.seconds)
        return self.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20, help="a multiple of the slots")
    args = parser.parse_args()
    with open_executor(args.engine, args.slots) as executor:
        start = seconds_of(executor, args.slots, 0.0)
        wall = seconds_of(executor, args.runs, RUN_SECONDS)
    ideal = args.runs * RUN_SECONDS / args.slots
    overhead = (wall - ideal) * args.slots / args.runs
    print(f"{args.engine}, {args.slots} slots: workers start in {start:.1f} s")
    print(
        f"{args.runs} runs of {RUN_SECONDS:g} s: overhead {1e3 * overhead:.0f} ms a run, workers "
        f"busy {100 * ideal / wall:.1f} % of the time"
    )


def open_executor(engine: str, slots: int) -> AbstractContextManager[Any]:
    if engine == "local":
        return LocalExecutor(("cpu",) * slots)
    import ray

    from cmtscale.search.executors.ray import RayExecutor

    ray.init(num_cpus=slots, num_gpus=0, log_to_driver=False)
    return RayExecutor()


def seconds_of(executor: Any, runs: int, seconds: float) -> float:
    """Wall time of so many runs, from the first one's start to the last one's result."""
    began = time.perf_counter()
    results = list(carry_out_all(executor, iter([Waits(seconds)] * runs)))
    assert [result for _, result in results] == [seconds] * runs
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
