"""What to train after the fixed runs: decided a few runs at a time, recorded, and replayed.

`decisions.json` has each batch before its first run starts. A search that goes on trains what is
recorded there and decides anew only after it, so that it ends as it would have without the stop.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, write_json
from cmtscale.record.folder import DECISIONS
from cmtscale.search.beside import DRAWS
from cmtscale.search.curves import FloatArray
from cmtscale.search.evidence import Evidence
from cmtscale.search.forecast import forecast
from cmtscale.search.ladder import SEEDS_A_RUNG, seed_of
from cmtscale.search.policy import near_best, next_runs
from cmtscale.search.runs import RungRun, next_seed
from cmtscale.search.settings import Settings

Batch = tuple[RungRun, ...]


def read_decisions(folder: Path, settings: Settings) -> list[Batch]:
    """The batches of a folder's search, in order, without runs that are not on the ladder now.

    Raises `ResultsError` if they are damaged.
    """
    path = folder / DECISIONS
    try:
        table = read_json(path)
    except FileNotFoundError:
        return []
    rungs = {horizon: rung for rung, horizon in enumerate(settings.horizons)}
    batches: list[Batch] = []
    try:
        if table.keys() != {"batches"}:
            raise ValueError("it holds more than batches, or less")
        for batch in table["batches"]:
            decided = [_Decided(**run) for run in batch]
            batches.append(
                tuple(
                    RungRun(candidate=run.candidate, rung=rungs[run.horizon], seed=run.seed)
                    for run in decided
                    if run.horizon in rungs
                )
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{path} is damaged; restore it, or remove it (what is trained next is decided anew)"
        ) from error
    return batches


def write_decisions(folder: Path, settings: Settings, batches: Sequence[Batch]) -> None:
    """Write them, atomically."""
    table = [[asdict(_decided(settings, run)) for run in batch] for batch in batches]
    write_json(folder / DECISIONS, {"batches": table})


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """A run as `decisions.json` names it: rungs are numbered by the request, lengths are not."""

    candidate: str
    epochs: int
    train_images: int
    seed: int

    def __post_init__(self) -> None:
        numbers = (self.epochs, self.train_images, self.seed)
        if not isinstance(self.candidate, str) or any(
            isinstance(number, bool) or not isinstance(number, int) or number < 0
            for number in numbers
        ):
            raise ValueError(f"{self} is no run")

    @property
    def horizon(self) -> tuple[int, int]:
        return self.epochs, self.train_images


def _decided(settings: Settings, run: RungRun) -> _Decided:
    epochs, train_images = settings.horizons[run.rung]
    return _Decided(
        candidate=run.candidate, epochs=epochs, train_images=train_images, seed=run.seed
    )


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
    eligible = evidence.eligible_curves
    target = evidence.time(settings.target_images)
    draws = known.draws(target, count=DRAWS, seed=settings.seed)
    if near_best(draws, eligible, settings.tolerance).max() >= settings.ladder.enough:
        return ()
    named = next_runs(
        known,
        target=target,
        times=evidence.times,
        eligible=eligible,
        seconds=evidence.seconds_of_curves(seconds),
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
