"""How a search of another process goes, from its record: what its workers train, what is left."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cmtscale.record.environment import read_environments
from cmtscale.record.folder import METRICS, ROW, RUNS, TRIALS, holds_anything
from cmtscale.record.holder import Holder, read_holder
from cmtscale.record.row import Row, read_rows
from cmtscale.record.scores import Score, rankings
from cmtscale.search.candidates import Candidate, grid, recorded_candidate
from cmtscale.search.deadline import seconds_taken
from cmtscale.search.decide import read_decisions
from cmtscale.search.runs import RungRun, ended_rows, fixed_runs, run_id
from cmtscale.search.settings import Settings, required_settings
from cmtscale.search.timings import FOR_RUNS, Timings, allowance, read_timings, seconds_of
from cmtscale.search.under_way import UnderWay, run_under_way

FAILURES = 3  # the last ones that are shown


@dataclass(frozen=True, kw_only=True)
class Going:
    """How a search goes now.

    `ended` of the `runs` that are asked for so far need no more time; `under_way` goes on at each
    of the `workers` that has a run. `ranking` is of the last rung that has runs, `failures` are the
    last ones. `seconds_left` is None where a sampler has not asked for its candidates yet.
    """

    holder: Holder
    ended: int
    runs: int
    workers: int
    under_way: tuple[UnderWay, ...]
    ranking: tuple[Score, ...]
    failures: tuple[Row, ...]
    seconds_left: float | None


@dataclass(frozen=True, kw_only=True)
class Planning:
    """A search that holds its folder and has trained nothing yet, nor written what it is asked."""

    holder: Holder


class Follower:
    """Looks at a folder again and again; what has not changed is not read anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: list[Row] = []
        self._stamp: tuple[int, int] | None = None
        self._grid: tuple[str, list[Candidate]] | None = None

    def look(self) -> Going | Planning | None:
        """How it goes; None where no search is at work in the folder, or its process is gone.

        Raises `ResultsError` where what is at work there is no search.
        """
        holder = read_holder(self.folder)
        if holder is None or not is_alive(holder):
            return None
        if not holds_anything(self.folder):
            return Planning(holder=holder)
        settings, rows = required_settings(self.folder), self._read_rows()
        environments = read_environments(self.folder)
        described = environments[-1] if environments else {}
        val_images = int(described.get("data", {}).get("val", 0))
        workers = len(described.get("devices", ["cpu"]))
        wanted = self._wanted(settings, rows)
        ended = ended_rows(settings, rows)
        left = [run for run in wanted if run_id(settings, run) not in ended]
        going = self._under_way(settings, left, val_images, since(holder))[:workers]
        ranked = rankings(rows, settings.horizons)
        return Going(
            holder=holder,
            ended=len(wanted) - len(left),
            runs=len(wanted),
            workers=workers,
            under_way=tuple(going),
            ranking=tuple(next((scores for scores in reversed(ranked) if scores), [])),
            failures=tuple(self._failures(rows)),
            seconds_left=self._seconds_left(
                settings, rows, wanted, left, going, val_images, workers
            ),
        )

    def _read_rows(self) -> list[Row]:
        path = self.folder / TRIALS
        try:
            status = path.stat()
        except FileNotFoundError:
            return []
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._rows, self._stamp = read_rows(path), stamp
        return self._rows

    def _wanted(self, settings: Settings, rows: Sequence[Row]) -> list[RungRun]:
        """The runs that are asked for so far, each once."""
        candidates = self._candidates(settings, rows)
        names = {candidate.name for candidate in candidates}
        decided = [run for batch in read_decisions(self.folder, settings) for run in batch]
        certain = fixed_runs(settings, candidates)
        return list(dict.fromkeys([*certain, *(run for run in decided if run.candidate in names)]))

    def _candidates(self, settings: Settings, rows: Sequence[Row]) -> list[Candidate]:
        latencies = read_timings(self.folder).latency_seconds
        recorded = {row.candidate: row for row in rows}
        known = [recorded_candidate(settings, row, latencies) for row in recorded.values()]
        if settings.sampler != "grid":
            return known
        if self._grid is None or self._grid[0] != settings.to_toml():
            self._grid = (settings.to_toml(), grid(settings, latencies))
        return self._grid[1]

    def _under_way(
        self, settings: Settings, left: Sequence[RungRun], val_images: int, began: float
    ) -> list[UnderWay]:
        """Runs with a log that this process of the search has written to, the last one first."""
        logged: list[tuple[float, UnderWay]] = []
        for run in left:
            folder = self.folder / RUNS / run_id(settings, run)
            try:
                written = (folder / METRICS).stat().st_mtime
            except FileNotFoundError:
                continue
            if written >= began:
                recipe = settings.run_recipe(run.rung)
                logged.append((written, run_under_way(folder, recipe, val_images)))
        logged.sort(key=lambda pair: -pair[0])
        return [one for _, one in logged]

    def _failures(self, rows: Sequence[Row]) -> list[Row]:
        """The last runs that are not complete, the very last one first."""

        def when(row: Row) -> float:
            path = self.folder / RUNS / row.run_id / ROW
            return path.stat().st_mtime if path.exists() else 0.0

        return sorted((r for r in rows if r.status != "complete"), key=when)[::-1][:FAILURES]

    def _seconds_left(
        self,
        settings: Settings,
        rows: Sequence[Row],
        wanted: Sequence[RungRun],
        left: Sequence[RungRun],
        going: Sequence[UnderWay],
        val_images: int,
        workers: int,
    ) -> float | None:
        """Of what is asked for, and of what the ladder may still decide; None if nobody knows."""
        timings = read_timings(self.folder)
        parts = {one.run_id: one.part for one in going}
        most = None
        if settings.max_seconds is not None:
            taken = seconds_taken(self.folder, settings, rows, slots=workers)
            most = max(0.0, FOR_RUNS * settings.max_seconds - taken)
        if settings.sampler != "grid" or not timings.seconds_per_image:
            return most

        def seconds(run: RungRun) -> float:
            return seconds_of(settings, timings, run.candidate, run.rung, val_images)

        remaining = sum((1 - parts.get(run_id(settings, run), 0.0)) * seconds(run) for run in left)
        undecided = self._allowed(settings, timings, rows, val_images, workers)
        remaining += max(0.0, undecided - sum(map(seconds, wanted)))
        return remaining / workers if most is None else min(most, remaining / workers)

    def _allowed(
        self,
        settings: Settings,
        timings: Timings,
        rows: Sequence[Row],
        val_images: int,
        workers: int,
    ) -> float:
        """What all runs may take where the forecast decides; a flat ladder leaves it nothing."""
        last = [
            seconds_of(settings, timings, candidate.name, -1, val_images)
            for candidate in self._candidates(settings, rows)
            if candidate.role != "base"
        ]
        return allowance(settings, last, workers) if settings.ladder.spend else 0.0


def since(holder: Holder) -> float:
    """When it began to hold the folder, in seconds as files have them."""
    try:
        return datetime.fromisoformat(holder.since).timestamp()
    except ValueError:
        return 0.0


def is_alive(holder: Holder) -> bool:
    """Whether its process goes on; of another host that cannot be seen, and is believed."""
    if holder.host != socket.gethostname():
        return True
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True
