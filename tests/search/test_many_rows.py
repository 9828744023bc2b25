"""Ten thousand runs: gone on with in 15 seconds, shown and drawn in 10, of one idle core."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from cmtscale.data.dataset import DataRef
from cmtscale.data.sources import open_source
from cmtscale.record.folder import CHOICE, ENVIRONMENT, REQUEST, TRIALS, VAL_LOSSES
from cmtscale.record.result import RunResult, Status
from cmtscale.record.row import Row, read_rows, to_csv
from cmtscale.search.candidates import grid, largest_resolution
from cmtscale.search.decide import write_decisions
from cmtscale.search.driver import search
from cmtscale.search.environment import save_environment
from cmtscale.search.ladder import PRESETS, seed_of
from cmtscale.search.recording import job_of, make_row
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.runs import RungRun, ended_rows, recorded_runs
from cmtscale.search.samplers import Asked
from cmtscale.search.settings import Settings
from cmtscale.search.store import Index

ROWS, VAL_IMAGES = 10_000, 1_000
RESUMED_SECONDS, SHOWN_SECONDS, DATABASE_SECONDS = 15.0, 10.0, 90.0
SHOWN_BYTES = 600e6  # the losses of single images take 20 MB in a file
COMMAND = """
import sys, time
from pathlib import Path
from cmtscale.cli.app import run

code = run(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
(peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
print(time.process_time(), peak, file=sys.stderr)
sys.exit(code)
"""


def made_up(settings: Settings, data: DataRef, folder: Path) -> list[Row]:
    """Complete runs of every candidate at every rung, one seed after the other.

    Each candidate's loss is 3 % above that of the one before it.
    """
    rows: list[Row] = []
    candidates = list(enumerate(grid(settings)))
    for replicate in range(100):
        for rung in range(settings.ladder.rungs):
            for number, candidate in candidates:
                seed = seed_of(rung, replicate)
                run = RungRun(candidate=candidate.name, rung=rung, seed=seed)
                noise = np.random.default_rng([number, seed]).normal(0, 0.01)
                loss = 1.03**number * 0.8**rung * float(np.exp(noise))
                result = RunResult(
                    status="complete",
                    val_loss=loss,
                    val_loss_raw=1.1 * loss,
                    val_accuracy=0.5,
                    temperature=1.0,
                    train_loss=loss,
                    images_per_second=100.0,
                    seconds=10.0 * 3**rung,
                )
                asked = Asked(candidate=candidate, number=number, after=0, by="grid")
                job = job_of(settings, folder, data, candidate, run)
                rows.append(make_row(asked, job.run, result))
    assert len(rows) >= ROWS, len(rows)
    return rows[:ROWS]


def with_other_ends(rows: list[Row]) -> list[Row]:
    """A fifth of the runs of the last candidate diverged; some of the later half failed."""
    *_, last = dict.fromkeys(row.candidate for row in rows)
    own = [row.run_id for row in rows if row.candidate == last][::5]
    ends: dict[str, Status] = {row.run_id: "failed" for row in rows[ROWS // 2 :: 50]}
    ends |= dict.fromkeys(own, "diverged")
    return [ended(row, ends[row.run_id]) if row.run_id in ends else row for row in rows]


def ended(row: Row, status: Status) -> Row:
    """The run without a result."""
    names = ("val_loss", "val_loss_raw", "val_accuracy", "train_loss", "images_per_second")
    nothing = dict.fromkeys((*names, "temperature"))
    return replace(row, status=status, cause=f"{status}, as made up", **nothing)


def image_losses(rows: list[Row]) -> dict[str, np.ndarray]:
    """Of every run: some images are harder, for all networks and a little more for some."""
    random = np.random.default_rng(0)
    difficulty = random.gamma(0.25, 4.0, VAL_IMAGES)
    own = {name: random.normal(0, 0.05, VAL_IMAGES) for name in {r.candidate: 0 for r in rows}}
    losses = {}
    for row in (row for row in rows if row.status == "complete"):
        churn = random.normal(0, 0.05, VAL_IMAGES)
        relative = difficulty * np.exp(own[row.candidate] + churn)
        assert row.val_loss is not None
        losses[row.run_id] = (row.val_loss * relative / relative.mean()).astype(np.float16)
    return losses


@pytest.fixture
def request_of_many(tmp_path: Path, cache_dir: Path) -> SearchRequest:
    """A search on the digits whose folder holds ten thousand runs."""
    request = SearchRequest(
        budget_macs=4_000_000_000,
        proxy_macs=60_000_000,
        trials=60,
        epochs=2,
        train_images=64,
        batch_size=64,
        ladder=PRESETS["standard"],
        prefer="params",
        device="cpu",
        workers=2,
        cache_dir=cache_dir,
        out=tmp_path / "many",
    )
    assert request.out is not None
    source = open_source("digits", cache_dir=cache_dir)
    settings = resolve(request, source.describe())
    pack_px = largest_resolution(settings)
    dataset = source.pack(pack_px)
    settings = replace(settings, data_hash=dataset.content_hash, pack_px=pack_px)
    request.out.mkdir()
    settings.save(request.out / REQUEST)
    save_environment(
        request.out / ENVIRONMENT, dataset, source="digits", split_seed=0, devices=("cpu", "cpu")
    )
    rows = with_other_ends(made_up(settings, dataset.ref, request.out))
    (request.out / TRIALS).write_text(to_csv(rows))
    decided = recorded_runs(settings, ended_rows(settings, rows).values())[500:]
    batches = [tuple(decided[start : start + 4]) for start in range(0, len(decided), 4)]
    write_decisions(request.out, settings, batches)
    with (request.out / VAL_LOSSES).open("wb") as file:
        np.savez(file, **image_losses(rows))  # type: ignore[arg-type]
    return request


def seconds_of(call: Callable[[], Any]) -> float:
    """Of one core, whatever else the machine does."""
    with threadpool_limits(1):  # threads that wait for others spin, and that counts
        began = time.process_time()
        call()
        return time.process_time() - began


def spent_by(*arguments: str) -> tuple[float, int]:
    """Seconds of one core and peak bytes of the command in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, "-P", "-c", COMMAND, *arguments]
    run = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    seconds, kibibytes = run.stderr.splitlines()[-1].split()
    return float(seconds), 1024 * int(kibibytes)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_runs_are_gone_on_with_and_shown_in_seconds(
    request_of_many: SearchRequest, fake_training_class: Any
) -> None:
    folder = request_of_many.out
    assert folder is not None
    before = (folder / TRIALS).read_bytes()
    executor = fake_training_class()
    first = seconds_of(lambda: search(request_of_many, executor=executor))  # makes study.db
    index = Index(folder)
    for row in read_rows(folder / TRIALS)[::50]:
        index.add(ended(row, "failed"))  # a try before the one in the table
    index.close()
    tries = [seconds_of(lambda: search(request_of_many, executor=executor)) for _ in range(2)]
    resumed = min(tries)  # what else the machine does slows a core, too
    shown, bytes_shown = spent_by("show", str(folder))
    drawn, bytes_drawn = spent_by("plot", str(folder))
    print(f"with study.db made anew {first:.1f} s; resumed {resumed:.1f} s")
    print(f"shown {shown:.1f} s, {bytes_shown / 1e6:.0f} MB; ", end="")
    print(f"drawn {drawn:.1f} s, {bytes_drawn / 1e6:.0f} MB")
    assert executor.started == []
    assert (folder / TRIALS).read_bytes() == before
    assert len(read_rows(folder / TRIALS)) == ROWS
    assert (folder / "figures").is_dir()
    choice = json.loads((folder / CHOICE).read_text())
    eligible = [standing for standing in choice["standings"] if standing["may_win"]]
    names = list(dict.fromkeys(row.candidate for row in read_rows(folder / TRIALS)))
    assert choice["taken"] == min((s["candidate"] for s in eligible), key=names.index)
    assert choice["probability"] > 0.95
    # 70 runs of each; what seeds do to one, as it was made up
    assert choice["noise"]["seeds"] == pytest.approx([0.01] * 3, rel=0.05)
    assert resumed < RESUMED_SECONDS
    assert shown < SHOWN_SECONDS
    assert drawn < SHOWN_SECONDS
    assert first < resumed + DATABASE_SECONDS
    assert max(bytes_shown, bytes_drawn) < SHOWN_BYTES
