"""A benchmark as a table, and what its options mean."""

import re

from cmtscale.arch.budget import format_macs
from cmtscale.arch.errors import RequestError
from cmtscale.cli.console import Column, counted, messages, print_table, results, thousands
from cmtscale.record.bench import Bench, Conditions, Measurement

BUSY = 0.5  # load average above which a machine was not idle


def parse_batches(text: str) -> tuple[int, ...]:
    """The batch sizes of `1,32`, each once; raises `RequestError` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d*", part) for part in parts):
        raise RequestError(f"batch {text!r} is not a list of whole numbers from 1 on; write 1,32")
    return tuple(dict.fromkeys(map(int, parts)))


def parse_side(text: str | None) -> int | None:
    """The side in px of `288`; raises `RequestError` for anything else."""
    if text is not None and not re.fullmatch(r"[1-9]\d*", text):
        raise RequestError(f"resolution {text!r} is not a side in px; write 288")
    return None if text is None else int(text)


def print_left_out(bench: Bench) -> None:
    """A line on stderr for each network that was not measured at a batch size."""
    for entry in bench.left_out:
        line = f"left out {entry.name} with batch {entry.batch}: {entry.reason}"
        messages().print(line, markup=False)


def print_bench(bench: Bench) -> None:
    """The table, and what its numbers are."""
    out = results()
    columns = [
        Column("network"),
        Column("px", 5),
        Column("MACs", 2),
        Column("params", 8),
        Column("batch"),
        Column("median ms"),
        Column("p95 ms", 1),
        Column("images/s"),
        Column("GMACs/s", 3),
        Column("peak MB", 4),
        Column("accuracy", 6),
    ]
    has_memory = any(measured.peak_bytes is not None for measured in bench.measurements)
    has_accuracy = any(measured.accuracy is not None for measured in bench.measurements)
    hidden = {"peak MB": not has_memory, "accuracy": not has_accuracy}
    kept = [number for number, column in enumerate(columns) if not hidden.get(column.name)]
    rows = [[_cells(measured)[number] for number in kept] for measured in bench.measurements]
    left_out = print_table(out, [columns[number] for number in kept], rows)
    out.print()
    for line in _notes(bench, left_out):
        out.print(line, markup=False)


def _cells(measured: Measurement) -> list[str]:
    return [
        measured.name,
        str(measured.resolution_px),
        format_macs(measured.macs),
        f"{measured.params / 1e6:.1f}M",
        str(measured.batch),
        milliseconds(measured.median_seconds),
        milliseconds(measured.p95_seconds),
        _digits(measured.images_per_second),
        _digits(measured.macs_per_second / 1e9),
        "" if measured.peak_bytes is None else thousands(measured.peak_bytes / 1e6),
        "" if measured.accuracy is None else f"{100 * measured.accuracy:.1f} %",
    ]


def _notes(bench: Bench, left_out: list[str]) -> list[str]:
    conditions = bench.conditions
    notes = [
        _where(conditions),
        f"A forward pass of a batch, on the wall clock, until the device has done it. The networks "
        f"take turns after a warm-up: {counted(conditions.rounds, 'round')} of "
        f"{conditions.passes_per_round} timed passes, behind an untimed one; the process keeps the "
        f"memory that it frees. images/s and GMACs/s at the median; G = 10⁹.",
    ]
    if "peak MB" not in left_out:
        notes.append(f"peak MB (10⁶): {conditions.memory}.")
    sources = {m.accuracy_of for m in bench.measurements if m.accuracy is not None}
    if sources and "accuracy" not in left_out:
        notes.append(f"accuracy: {'; '.join(sorted(sources))}.")
    if conditions.load_average is not None and conditions.load_average > BUSY:
        notes.append(
            f"The machine was busy before (load average {conditions.load_average:.1f}): compare "
            f"the networks with each other, and measure again on an idle machine for times."
        )
    return notes


def _where(conditions: Conditions) -> str:
    dtype = conditions.dtype
    if conditions.tf32:
        dtype += " (convolutions in TF32)"
    elif dtype != "fp32":
        dtype += " (autocast)"
    threads = f", {counted(conditions.threads, 'thread')}" if conditions.device == "cpu" else ""
    compiled = ", compiled" if conditions.compiled else ""
    return (
        f"{conditions.backend}{compiled}, {dtype}, {conditions.device}{threads}: "
        f"{conditions.hardware}; {conditions.versions}."
    )


def milliseconds(seconds: float) -> str:
    """`8.31`, `83.1` or `831`: three digits."""
    return _digits(1000 * seconds)


def _digits(value: float) -> str:
    """Three digits, without an exponent."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"
