"""What to train after the fixed runs: decided a few runs at a time, recorded, and replayed.

`decisions.json` has each batch before its first run starts. A search that goes on trains what is
recorded there and decides anew only after it, so that it ends as it would have without the stop.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import DECISIONS
from cmtscale.search.beside import DRAWS
from cmtscale.search.candidates import Candidate
from cmtscale.search.curves import FloatArray
from cmtscale.search.evidence import Evidence
from cmtscale.search.forecast import forecast
from cmtscale.search.ladder import SEEDS_A_RUNG, seed_of
from cmtscale.search.policy import near_best, next_runs
from cmtscale.search.runs import RungRun, next_seed
from cmtscale.search.settings import Settings

Batch = tuple[RungRun, ...]


def read_decisions(folder: Path) -> list[Batch]:
    """The batches of a folder's search, in order; raises `ResultsError` if they are damaged."""
    path = folder / DECISIONS
    try:
        table = read_json(path)
    except FileNotFoundError:
        return []
    try:
        batches = [tuple(RungRun(**run) for run in batch) for batch in table["batches"]]
        if not all(_is_run(run) for batch in batches for run in batch):
            raise TypeError("a candidate is no text, or a rung or a seed no number")
        return batches
    except (KeyError, TypeError) as error:
        raise ResultsError(
            f"{path} is damaged; restore it, or remove it (what is trained next is decided anew)"
        ) from error


def _is_run(run: RungRun) -> bool:
    """Whether what was read has the types of a run."""
    numbers = (run.rung, run.seed)
    return isinstance(run.candidate, str) and all(
        isinstance(number, int) and number >= 0 for number in numbers
    )


def write_decisions(folder: Path, batches: Sequence[Batch]) -> None:
    """Write them, atomically."""
    write_json(
        folder / DECISIONS, {"batches": [[asdict(run) for run in batch] for batch in batches]}
    )


def possible(settings: Settings, candidates: Sequence[Candidate], batch: Batch) -> Batch:
    """The runs of a batch that a search can still make: it may ask for fewer rungs now."""
    names = {candidate.name for candidate in candidates}
    return tuple(r for r in batch if r.candidate in names and r.rung < settings.ladder.rungs)


def next_batch(
    settings: Settings,
    evidence: Evidence,
    asked: Sequence[RungRun],
    seconds: FloatArray,
    allowance_seconds: float,
) -> Batch:
    """The next few runs; none where the answer is sure enough or the allowance is spent.

    `asked` are all runs so far, whatever became of them; `seconds` (arms, rungs) is what a run
    takes. Runs that would go beyond the allowance are left out.
    """
    if evidence.trained is None or evidence.eligible.sum() < 2 or allowance_seconds <= 0:
        return ()
    known = forecast(evidence.trained, seed=settings.seed)
    eligible = np.append(evidence.eligible, False)  # the paper's constants come last
    target = evidence.time(settings.target_images)
    draws = known.draws(target, count=DRAWS, seed=settings.seed)
    if near_best(draws, eligible, settings.tolerance).max() >= settings.ladder.enough:
        return ()
    named = next_runs(
        known,
        target=target,
        times=evidence.times,
        eligible=eligible,
        seconds=np.vstack([seconds, np.full(seconds.shape[1], np.inf)]),
        size=settings.ladder.batch,
        seed=settings.seed + len(asked),
    )
    batch: list[RungRun] = []
    for arm, rung in named:
        name = evidence.arms[arm].name
        seed = next_seed([*asked, *batch], name, rung)
        allowance_seconds -= seconds[arm, rung]
        if allowance_seconds < 0 or seed >= seed_of(rung, 0) + SEEDS_A_RUNG:
            break
        batch.append(RungRun(candidate=name, rung=rung, seed=seed))
    return tuple(batch)
