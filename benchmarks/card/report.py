"""The report of the GPU benchmark: README.md, with the verdict of each criterion, and gpu.csv."""

import csv
import io
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import torch

from card.cells import Outcome, Outcomes, Setting
from card.criteria import CRITERIA, Criterion, Results, UnmeasuredError
from card.steps import peak_tflops


def write_report(folder: Path, results: Results, *, device: str, commit: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.csv").write_text(to_csv(results.outcomes), encoding="utf-8")
    text = readme(results, device=device, commit=commit)
    (folder / "README.md").write_text(text, encoding="utf-8")


def to_csv(outcomes: Outcomes) -> str:
    """One row per cell: its settings, then its numbers, floats in full."""
    of_setting, of_outcome = ([f.name for f in fields(c)] for c in (Setting, Outcome))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*of_setting, "resolution_px", "status", *of_outcome])
    for setting, outcome in outcomes.items():
        network = setting.network
        cells = {**vars(setting), "network": network.name if network else "twins of a search"}
        status = "not measured" if outcome.cause else "measured"
        resolution_px = network.resolution_px if network else None
        writer.writerow([*cells.values(), resolution_px, status, *vars(outcome).values()])
    return text.getvalue()


def readme(results: Results, *, device: str, commit: str) -> str:
    plan, outcomes = results.plan, results.outcomes
    measured = sum(not outcome.cause for outcome in outcomes.values())
    reduced = " --reduced" if plan.is_reduced else ""
    parts = [
        f"# What does CMT training do on a card? {card_name(device)}",
        f"    python benchmarks/gpu.py --device {device}{reduced}",
        _verdict(results),
        f"{_hardware(device)}; {_versions()}; commit {commit}; {datetime.now(UTC).date()}. "
        f"{measured} of {len(outcomes)} cells measured in {results.seconds:.0f} s; all are in "
        f"`gpu.csv`. This page is generated.",
        "## Criteria",
        "Fixed before the first run.",
        _criteria_table(results),
        _criteria_reasons(),
        "## Parity",
        "Errors are relative to float64 on the CPU.",
        _parity_table(outcomes),
        "## Training steps",
        "Forward, backward, clipping and fused AdamW on a channels-last batch that lies on the "
        "device: medians of chunks of steps, with the slowest and the fastest chunk. A share of "
        "the peak counts 6 FLOPs per MAC and image.",
        _steps_table(outcomes),
        "## Runs at a time on one card",
        "Processes that train the same twin, all together.",
        _runs_table(outcomes),
        "## A whole small search",
        _search_table(outcomes),
        "## Cells without a number",
        _causes(outcomes),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def card_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def _judge(criterion: Criterion, results: Results) -> tuple[str, str]:
    """The measured value and the verdict, as text."""
    try:
        value = criterion.value(results)
    except UnmeasuredError as error:
        return "", f"not measured: {error}"
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if results.plan.is_reduced:
        return shown, "none"
    return shown, "pass" if criterion.holds(value) else "fail"


def _verdict(results: Results) -> str:
    if results.plan.is_reduced:
        return "The reduced form: it shows that the benchmark works, and its numbers say nothing."
    verdicts = {criterion.name: _judge(criterion, results)[1] for criterion in CRITERIA}
    failed = [name for name, verdict in verdicts.items() if verdict == "fail"]
    passed = [name for name, verdict in verdicts.items() if verdict == "pass"]
    return (
        f"**Verdict: of {len(verdicts)} criteria {len(passed)} pass, {len(failed)} fail "
        f"({', '.join(failed) or 'none'}), {len(verdicts) - len(passed) - len(failed)} could not "
        f"be measured.**"
    )


def _criteria_table(results: Results) -> str:
    return _table(
        ["criterion", "good", "measured", "verdict"],
        [[c.name, f"{c.bound} {c.limit:,g}", *_judge(c, results)] for c in CRITERIA],
    )


def _criteria_reasons() -> str:
    return "".join(
        f"- **{c.name}**: {c.says}. Why {c.limit:,g}: {c.reason}. Decides {c.decides}.\n"
        for c in CRITERIA
    )


def _parity_table(outcomes: Outcomes) -> str:
    return _table(
        ["quantity", "network", "precision", "attention", "error", "tolerance"],
        [
            [s.quantity, _name(s), s.precision, s.attention, f"{o.error:.1e}", f"{o.tolerance:g}"]
            for s, o in _measured(outcomes, "parity")
        ],
    )


def _steps_table(outcomes: Outcomes) -> str:
    header = ["network", "px", "batch", "precision", "attention", "execution"]
    header += ["images/s", "share of peak", "memory, GB", "prepared in, s"]
    rows = []
    for setting, outcome in _measured(outcomes, "steps"):
        assert setting.network is not None
        share, memory = outcome.peak_share, outcome.memory_gb
        rows.append(
            [
                _name(setting),
                str(setting.network.resolution_px),
                str(setting.batch),
                setting.precision,
                setting.attention,
                setting.execution,
                f"{outcome.images_per_second:,.0f} ({outcome.slowest:,.0f}-{outcome.fastest:,.0f})",
                "not known" if share is None else f"{100 * share:.1f} %",
                "" if memory is None else f"{memory:.1f}",
                f"{outcome.prepare_seconds:.1f}",
            ]
        )
    return _table(header, rows)


def _runs_table(outcomes: Outcomes) -> str:
    return _table(
        ["network", "batch", "execution", "processes", "images/s"],
        [
            [_name(s), str(s.batch), s.execution, str(s.processes), f"{o.images_per_second:,.0f}"]
            for s, o in _measured(outcomes, "runs")
        ],
    )


def _search_table(outcomes: Outcomes) -> str:
    return _table(
        ["workers", "seconds", "images/s, start-up included"],
        [
            [str(s.processes), f"{o.seconds:.1f}", f"{o.images_per_second:,.0f}"]
            for s, o in _measured(outcomes, "search")
        ],
    )


def _causes(outcomes: Outcomes) -> str:
    """The cells without a number, grouped by cause."""
    cells: dict[str, list[str]] = {}
    for setting, outcome in outcomes.items():
        if outcome.cause:
            cells.setdefault(outcome.cause, []).append(describe(setting))
    lines = [f"- {cause}: {'; '.join(names)}\n" for cause, names in cells.items()]
    return "".join(lines) or "None.\n"


def describe(setting: Setting) -> str:
    if setting.section == "search":
        return f"search with {setting.processes} workers"
    what = f"{_name(setting)} x {setting.batch}, {setting.precision}, {setting.attention}"
    if setting.section == "parity":
        return f"{setting.quantity} of {what}"
    count = f", {setting.processes} at a time" if setting.section == "runs" else ""
    return f"{what}, {setting.execution}{count}"


def _name(setting: Setting) -> str:
    assert setting.network is not None
    return setting.network.name


def _measured(outcomes: Outcomes, section: str) -> list[tuple[Setting, Outcome]]:
    return [(s, o) for s, o in outcomes.items() if s.section == section and not o.cause]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Nothing was measured.\n"
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _hardware(device: str) -> str:
    if device == "cpu":
        return platform.processor() or platform.machine()
    card = torch.cuda.get_device_properties(0)
    peaks = {precision: peak_tflops(card.name, precision) for precision in ("bf16", "fp32")}
    dense = [f"{tflops:g} TFLOP/s {precision}" for precision, tflops in peaks.items() if tflops]
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return (
        f"{card.name}, {card.total_memory / 1e9:.0f} GB, {card.multi_processor_count} "
        f"multiprocessors, dense peak {', '.join(dense) or 'not known'}, "
        f"driver {first_line_of(query)}"
    )


def _versions() -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    if torch.version.cuda is None:
        return versions
    return f"{versions}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


def first_line_of(command: list[str]) -> str:
    """The first line that a command prints; "not known" if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "not known"
    return (done.stdout.splitlines() or ["not known"])[0]
