"""What a plan says of the disk is what the search comes to take."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmtscale.arch.cost import cost
from cmtscale.record.folder import CHECKPOINT
from cmtscale.record.row import Row
from cmtscale.search.candidates import grid
from cmtscale.search.driver import search
from cmtscale.search.ladder import PRESETS
from cmtscale.search.outcome import Outcome
from cmtscale.search.plan import Plan
from cmtscale.search.request import SearchRequest
from cmtscale.search.settings import Settings
from cmtscale.search.space import INDEX_BYTES, checkpoint_bytes
from cmtscale.search.watch import NullWatcher


def taken(folder: Path) -> int:
    """Bytes of the disk's blocks, of all files in a folder."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            sizes.append(512 * path.stat().st_blocks)
        except FileNotFoundError:  # replaced meanwhile
            continue
    return sum(sizes)


class Measuring(NullWatcher):
    """Keeps the plan, and the most that the folder took while the search went on."""

    def __init__(self) -> None:
        self.most = 0
        self.plans: list[Plan] = []

    def planned(self, plan: Plan) -> None:
        self.plans.append(plan)

    def ended(self, row: Row) -> None:  # noqa: ARG002
        self.most = max(self.most, taken(self.plans[0].folder))


def test_the_plan_is_right_about_a_real_search_and_has_nothing_to_say_when_it_is_over(
    tmp_path: Path, tiny_request: SearchRequest, in_process: Any
) -> None:
    watcher = Measuring()
    request = replace(tiny_request, out=tmp_path / "out", workers=1, seeds=1)
    search(request, watcher=watcher)
    assert len(in_process.started) == 4
    (plan,) = watcher.plans
    most = max(watcher.most, taken(tmp_path / "out"))
    # never too little; the most that running copies and the database's log can add is not always
    # on the disk, and of runs of a second these are half
    fixed = INDEX_BYTES + 2 * max(checkpoint_bytes(c.trained) for c in plan.candidates)
    assert plan.disk_bytes - fixed < 1.05 * most
    assert most < plan.disk_bytes
    again = Measuring()
    search(request, watcher=again)
    assert again.plans[0].disk_bytes == 0


@pytest.mark.parametrize("number", [1, 3])
def test_a_checkpoint_has_the_size_that_is_computed(
    number: int, tiny_settings: Settings, finished: Outcome
) -> None:
    network = grid(tiny_settings)[number].trained
    written = (finished.folder / "runs" / f"{network.name}-2x64-s0" / CHECKPOINT).stat().st_size
    assert checkpoint_bytes(network) == pytest.approx(written, rel=0.1)


def test_what_the_forecast_may_ask_for_counts_and_what_has_ended_does_not(
    tmp_path: Path, tiny_request: SearchRequest, fake_training: Any
) -> None:
    def planned(request: SearchRequest) -> Plan:
        watcher = Measuring()
        search(replace(request, out=tmp_path / "out"), watcher=watcher, dry_run=True)
        return watcher.plans[0]

    flat = planned(tiny_request)
    climbing = replace(tiny_request, ladder=PRESETS["standard"], seeds=1)
    decided, spent = (
        planned(climbing),
        planned(replace(climbing, ladder=replace(PRESETS["standard"], spend=0.9))),
    )
    assert flat.disk_bytes > 0
    assert decided.disk_bytes < spent.disk_bytes
    more = replace(tiny_request, workers=4)
    largest = max(checkpoint_bytes(candidate.trained) for candidate in flat.candidates)
    assert planned(more).disk_bytes == flat.disk_bytes + 2 * 2 * largest
    sampled = planned(replace(tiny_request, sampler="random"))
    assert sampled.disk_bytes > 4 * 2 * 12 * min(cost(c.trained).params for c in flat.candidates)
    search(replace(tiny_request, out=tmp_path / "out"))
    assert len(fake_training.started) == 8
    left = planned(replace(tiny_request, seeds=3))
    assert left.runs - left.runs_done == 4
    assert left.disk_bytes < flat.disk_bytes
