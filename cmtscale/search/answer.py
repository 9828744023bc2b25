"""What the record of a search answers now, finished or running; reads, and writes nothing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cmtscale.arch.errors import ResultsError
from cmtscale.record.environment import read_environments
from cmtscale.record.losses import current_losses
from cmtscale.record.rate_check import read_rate_check
from cmtscale.record.reads import readings
from cmtscale.record.row import Row
from cmtscale.record.twin_check import read_twin_check
from cmtscale.search.candidates import Candidate, paper_solution, recorded_candidate
from cmtscale.search.choose import Guess, choose
from cmtscale.search.deadline import seconds_taken
from cmtscale.search.evidence import gather
from cmtscale.search.family import solve_family
from cmtscale.search.ladder import REFERENCE_SEEDS
from cmtscale.search.outcome import Outcome
from cmtscale.search.runs import ended_rows, recorded_runs
from cmtscale.search.settings import Settings
from cmtscale.search.timings import FOR_RUNS, read_timings, seconds_of, with_runs

Check = TypeVar("Check")


def answer(folder: Path, settings: Settings, rows: Sequence[Row]) -> Outcome:
    """The candidates of the record, and the choice among them."""
    environment = _environment(folder)
    data = environment.get("data", {})
    val_images = int(data.get("val", 0))
    timings = with_runs(read_timings(folder), rows, settings, val_images)
    latencies = timings.latency_seconds
    losses = current_losses(folder, [row.run_id for row in rows])
    evidence = gather(settings, rows, losses, latencies)
    rungs = range(settings.ladder.rungs)
    candidates: dict[str, Candidate] = {}
    for row in sorted(rows, key=lambda row: row.sort_key):
        if row.candidate not in candidates:
            candidates[row.candidate] = recorded_candidate(settings, row, latencies)
    guess = None
    if "commonest_class" in data:
        guess = Guess(accuracy=data["commonest_class"], val_images=val_images)
    seconds = [
        [seconds_of(settings, timings, arm.name, rung, val_images) for rung in rungs]
        for arm in evidence.arms
    ]
    choice = choose(evidence, rows, guess, seconds=np.array(seconds), latencies=latencies)
    workers = len(environment.get("devices", ["cpu"]))
    spend_needed = seconds_needed = None
    if choice is not None and choice.more and settings.max_seconds is not None:
        taken = seconds_taken(folder, settings, rows, slots=workers)
        seconds_needed = (taken + choice.more_seconds / workers) / FOR_RUNS
    elif choice is not None and choice.more:
        spent = sum(
            seconds_of(settings, timings, run.candidate, run.rung, val_images)
            for run in recorded_runs(settings, ended_rows(settings, rows).values())
            if candidates[run.candidate].may_be_trained
        )
        last = [
            seconds_of(settings, timings, candidate.name, -1, val_images)
            for candidate in candidates.values()
            if candidate.role != "base" and candidate.may_be_trained
        ]
        spend_needed = (spent + choice.more_seconds) / (REFERENCE_SEEDS * sum(last))
    twin_check, twin_reason = _readable(read_twin_check, folder)
    rate_check, rate_reason = _readable(read_rate_check, folder)
    return Outcome(
        folder=folder,
        settings=settings,
        candidates=tuple(candidates.values()),
        rows=tuple(rows),
        choice=choice,
        readings=tuple(readings(folder)),
        paper=paper_solution(settings),
        workers=workers,
        spend_needed=spend_needed,
        seconds_needed=seconds_needed,
        family=solve_family(settings, candidates[choice.taken].shares) if choice else (),
        twin_check=twin_check,
        rate_check=rate_check,
        damaged=tuple(reason for reason in (twin_reason, rate_reason) if reason),
        untimed=tuple(
            candidate.name
            for candidate in candidates.values()
            if "latency" in candidate.over and candidate.real.name not in latencies
        ),
    )


def _readable(read: Callable[[Path], Check | None], folder: Path) -> tuple[Check | None, str]:
    """What a check found, and why it cannot be read: an answer does without it."""
    try:
        return read(folder), ""
    except ResultsError as error:
        return None, str(error)


def _environment(folder: Path) -> dict[str, Any]:
    """What the search was last trained on; empty where nothing says so yet."""
    environments = read_environments(folder)
    return environments[-1] if environments else {}
