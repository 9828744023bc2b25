"""What does CMT training do on a card? Parity, speed, runs at a time, a whole search: 9 minutes.

    python benchmarks/gpu.py [--minutes 9] [--out results/gpu-<card>]
    python benchmarks/gpu.py --device cpu --reduced --out DIR    # checks that it works, in seconds

Pre-registered: this file and `card/` said before any card was at hand what is measured and what
counts as good (`card/criteria.py`: limits, their reasons, and what each decides).

1. Parity with float64 on the CPU, in fp32 (TF32 off) and bf16, with explicit attention and SDPA:
   the logits of the authors' CMT-Ti, and loss, gradient and update of one AdamW step of a twin.
2. Training steps, channels-last: images per second, share of the card's peak and memory of three
   twins and the four published variants at several batches; eager, as a CUDA graph, compiled, both,
   with cuDNN's autotuning, in fp32, with explicit attention and SDPA.
3. One to eight processes at a time that train the same twin on one card, eager and as CUDA graphs.
4. A whole small search from the command line, with one worker and with four.

Every cell becomes a row of `gpu.csv`: with its numbers, or with the cause if it has none (out of
memory, a compilation that failed or took too long, no time left, a missing package). Each section
ends at its share of the time, finished or not. 1 and 2 need torch, NumPy and tomli-w alone.
"""

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from card.cells import Outcome, Outcomes, Plan, Section, Setting, full_plan, reduced_plan, settings
from card.criteria import Results
from card.parity import measure_parity
from card.report import card_name, describe, first_line_of, write_report
from card.steps import measure_steps, prepare_steps, train_for
from card.worker import Work, Worker, attempt, seconds_until

# Where each section must have ended, as a share of all the time. Compiling takes most of it.
ENDS: dict[Section, float] = {"parity": 0.1, "steps": 0.6, "runs": 0.74, "search": 1.0}
CELL_SECONDS = 120.0  # a cell that takes longer is stopped; compiling CMT-S may take a minute
NOT_YET = "the benchmark ended before"
NEEDS_CUDA = "needs CUDA"
NO_TIME = "left out, its section's time was over"
SEARCH_NEEDS = ("optuna", "pebble", "fvcore")
COMMIT = ["describe", "--match=", "--always", "--abbrev=40", "--dirty"]
SEARCH = "from cmtscale.cli.app import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--reduced", action="store_true", help="tiny networks and few steps")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it")
    parser.add_argument("--out", type=Path, help="by default results/gpu-<card>")
    parser.add_argument("--commit", help="of this tree, where git cannot tell it")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; use --device cpu --reduced --out DIR")
    if args.device == "cpu" and not (args.reduced and args.out):
        parser.error(
            "a CPU runs the reduced form only, and is no evidence: add --reduced --out DIR"
        )
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as compiled:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = compiled  # an empty cache: nothing is precompiled
        results = run(
            reduced_plan() if args.reduced else full_plan(),
            args.device,
            out=args.out or root / "results" / f"gpu-{slug(card_name(args.device))}",
            minutes=args.minutes,
            commit=args.commit or first_line_of(["git", "-C", str(root), *COMMIT]),
        )
    missing = sum(bool(outcome.cause) for outcome in results.outcomes.values())
    print(f"{len(results.outcomes)} cells, {missing} without a number, {results.seconds:.0f} s")


def run(plan: Plan, device: str, *, out: Path, minutes: float, commit: str) -> Results:
    """Measure each cell of the plan that there is time for; `out` is written after each section."""
    began = time.monotonic()
    sections = settings(plan)
    impossible = {"cpu": NEEDS_CUDA, "cuda": NOT_YET}[device]
    outcomes = {
        cell: Outcome(cause=impossible if cell.needs_cuda else NOT_YET)
        for cells in sections.values()
        for cell in cells
    }
    for section, planned in sections.items():
        cells = [cell for cell in planned if outcomes[cell].cause == NOT_YET]
        deadline = began + 60 * minutes * ENDS[section]
        match section:
            case "parity":
                outcomes |= measure(cells, deadline, Worker(), measure_parity, device)
            case "steps":
                arguments = (device, plan.chunk_seconds)
                outcomes |= measure(cells, deadline, Worker(), measure_steps, *arguments)
            case "runs":
                outcomes |= measure_runs(cells, deadline, device, plan.window_seconds)
            case "search":
                outcomes |= measure_searches(cells, deadline, device, plan)
        results = Results(plan=plan, outcomes=outcomes, seconds=time.monotonic() - began)
        write_report(out, results, device=device, commit=commit)
    return results


def measure(
    cells: Sequence[Setting], deadline: float, worker: Worker, work: Work, *arguments: object
) -> Outcomes:
    """Each cell in turn on one worker."""

    def outcome(cell: Setting) -> Outcome:
        worker.ask(work, cell, *arguments)
        return worker.answer(min(CELL_SECONDS, seconds_until(deadline)))

    outcomes = {cell: _in_time(cell, deadline, outcome) for cell in cells}
    worker.stop()
    return outcomes


def measure_runs(
    cells: Sequence[Setting], deadline: float, device: str, window_seconds: float
) -> Outcomes:
    """Each cell on as many workers as it has processes: all warm up, then all train."""
    workers: list[Worker] = []

    def ask_all(count: int, work: Work, *arguments: object) -> list[Outcome]:
        for worker in workers[:count]:
            worker.ask(work, *arguments)
        limit = time.monotonic() + min(CELL_SECONDS, seconds_until(deadline))
        return [worker.answer(seconds_until(limit)) for worker in workers[:count]]

    def outcome(cell: Setting) -> Outcome:
        workers.extend(Worker() for _ in range(cell.processes - len(workers)))
        answers = ask_all(cell.processes, prepare_steps, cell, device)
        if not any(answer.cause for answer in answers):
            answers = ask_all(cell.processes, train_for, cell, device, window_seconds)
        for answer in answers:
            if answer.cause:
                return replace(answer, cause=f"in one of the processes: {answer.cause}")
        return Outcome(images_per_second=sum(answer.images_per_second or 0 for answer in answers))

    outcomes = {cell: _in_time(cell, deadline, outcome) for cell in cells}
    for worker in workers:
        worker.stop()
    return outcomes


def measure_searches(
    cells: Sequence[Setting], deadline: float, device: str, plan: Plan
) -> Outcomes:
    """Each cell as a search from the command line, in a folder of its own."""

    def outcome(cell: Setting) -> Outcome:
        if missing := [name for name in SEARCH_NEEDS if importlib.util.find_spec(name) is None]:
            return Outcome(cause=f"{missing[0]} is not installed")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            seconds = seconds_until(deadline)
            result, _ = attempt(search, cell, plan, device, Path(folder), seconds)
        return result

    return {cell: _in_time(cell, deadline, outcome) for cell in cells}


def search(cell: Setting, plan: Plan, device: str, folder: Path, seconds: float) -> Outcome:
    """Seconds of a whole search, and its images seen in training per second of them."""
    from cmtscale.record.row import read_rows

    one_device = "cuda:0" if device == "cuda" else device
    command = [sys.executable, "-c", SEARCH, "search", *plan.search_flags]
    command += ["--device", one_device, "--workers", str(cell.processes)]
    command += ["--out", str(folder / "search"), "--cache-dir", str(folder / "cache")]
    if plan.search_base is not None:
        base = folder / "base.toml"
        base.write_text(plan.search_base.to_toml(), encoding="utf-8")
        command += ["--base", str(base)]
    log = folder / "log.txt"
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return Outcome(cause=f"stopped after {seconds:.0f} s")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with its workers
                process.wait()
    elapsed = time.monotonic() - started
    if code:
        log_lines = log.read_text(encoding="utf-8").strip().splitlines() or ["nothing"]
        return Outcome(cause=f"the search ended with code {code}: {log_lines[-1][:200]}")
    rows = read_rows(folder / "search" / "trials.csv")
    if failed := [row for row in rows if row.status != "complete"]:
        return Outcome(cause=f"{len(failed)} of {len(rows)} runs failed: {failed[0].cause}")
    return Outcome(
        seconds=elapsed, images_per_second=sum(row.images_seen for row in rows) / elapsed
    )


def _in_time(cell: Setting, deadline: float, outcome: Callable[[Setting], Outcome]) -> Outcome:
    """The cell's outcome, if there is time for it."""
    if seconds_until(deadline) <= 0:
        return Outcome(cause=NO_TIME)
    result = outcome(cell)
    print(f"{describe(cell)}: {result.cause or 'done'}", flush=True)
    return result


def slug(card: str) -> str:
    """`NVIDIA H100 80GB HBM3` as `h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-").removeprefix("nvidia-")


if __name__ == "__main__":
    main()
