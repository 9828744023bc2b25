"""What the record of a search answers now, finished or running; reads, and writes nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmtscale.record.files import read_json
from cmtscale.record.folder import ENVIRONMENT
from cmtscale.record.losses import read_losses
from cmtscale.record.reads import readings
from cmtscale.record.row import Row
from cmtscale.search.candidates import Candidate, paper_solution, recorded_candidate
from cmtscale.search.choose import Guess, choose
from cmtscale.search.evidence import gather
from cmtscale.search.ladder import REFERENCE_SEEDS
from cmtscale.search.outcome import Outcome
from cmtscale.search.runs import ended_rows
from cmtscale.search.settings import Settings
from cmtscale.search.timings import read_timings, seconds_of, with_runs


def answer(folder: Path, settings: Settings, rows: Sequence[Row]) -> Outcome:
    """The candidates of the record, and the choice among them."""
    environment = _environment(folder)
    data = environment.get("data", {})
    val_images = int(data.get("val", 0))
    timings = with_runs(read_timings(folder), rows, settings, val_images)
    evidence = gather(settings, rows, read_losses(folder))
    rungs = range(settings.ladder.rungs)
    candidates: dict[str, Candidate] = {}
    for row in sorted(rows, key=lambda row: row.sort_key):
        candidates.setdefault(row.candidate, recorded_candidate(settings, row))
    guess = None
    if "commonest_class" in data:
        guess = Guess(accuracy=data["commonest_class"], val_images=val_images)
    seconds = [
        [seconds_of(settings, timings, arm.name, rung, val_images) for rung in rungs]
        for arm in evidence.arms
    ]
    choice = choose(
        evidence, rows, guess, seconds=np.array(seconds), latencies=timings.latency_seconds
    )
    spend_needed = None
    if choice is not None and choice.more:
        taken = [
            seconds_of(
                settings, timings, row.candidate, settings.horizons.index(row.horizon), val_images
            )
            for row in ended_rows(settings, rows).values()
        ]
        whole = REFERENCE_SEEDS * sum(rung_seconds[-1] for rung_seconds in seconds)
        spend_needed = (sum(taken) + choice.more_seconds) / whole
    return Outcome(
        folder=folder,
        settings=settings,
        candidates=tuple(candidates.values()),
        rows=tuple(rows),
        choice=choice,
        readings=tuple(readings(folder)),
        paper=paper_solution(settings),
        workers=len(environment.get("devices", ["cpu"])),
        spend_needed=spend_needed,
    )


def _environment(folder: Path) -> dict[str, Any]:
    """What the search runs on; empty where nothing says so yet."""
    try:
        return read_json(folder / ENVIRONMENT)
    except FileNotFoundError:
        return {}
