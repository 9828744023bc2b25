"""Ten thousand runs: gone on with in 15 seconds, shown and drawn in 10, of one idle core.

Without the losses of single images, on which the forecast rests: what it takes grows with the cube
of the runs that it is made from.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmtscale.cli.app import run as cli
from cmtscale.data.dataset import DataRef
from cmtscale.data.sources import open_source
from cmtscale.record.folder import ENVIRONMENT, REQUEST, TRIALS
from cmtscale.record.result import RunResult
from cmtscale.record.row import Row, read_rows, to_csv
from cmtscale.search.candidates import grid, largest_resolution
from cmtscale.search.driver import search
from cmtscale.search.environment import save_environment
from cmtscale.search.ladder import PRESETS, seed_of
from cmtscale.search.recording import job_of, make_row
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.runs import RungRun
from cmtscale.search.samplers import Asked
from cmtscale.search.settings import Settings

ROWS = 10_000
RESUMED_SECONDS, SHOWN_SECONDS = 15.0, 10.0


def made_up(settings: Settings, data: DataRef, folder: Path) -> list[Row]:
    """Complete runs of every candidate at every rung, one seed after the other."""
    rows: list[Row] = []
    candidates = list(enumerate(grid(settings)))
    for replicate in range(100):
        for rung in range(settings.ladder.rungs):
            for number, candidate in candidates:
                seed = seed_of(rung, replicate)
                run = RungRun(candidate=candidate.name, rung=rung, seed=seed)
                noise = np.random.default_rng([number, seed]).normal(0, 0.01)
                loss = (1.0 + 0.01 * number) * 0.8**rung * float(np.exp(noise))
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
    (request.out / TRIALS).write_text(to_csv(made_up(settings, dataset.ref, request.out)))
    return request


def seconds_of(call: Callable[[], Any]) -> float:
    """Of one core, whatever else the machine does."""
    began = time.process_time()
    call()
    return time.process_time() - began


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
    times = {
        "resumed": seconds_of(lambda: search(request_of_many, executor=executor)),
        "shown": seconds_of(lambda: cli(["show", str(folder)])),
        "drawn": seconds_of(lambda: cli(["plot", str(folder)])),
    }
    print(f"with study.db made anew {first:.1f} s; {times}")
    assert executor.started == []
    assert (folder / TRIALS).read_bytes() == before
    assert len(read_rows(folder / TRIALS)) == ROWS
    assert (folder / "figures").is_dir()
    assert times["resumed"] < RESUMED_SECONDS
    assert times["shown"] < SHOWN_SECONDS
    assert times["drawn"] < SHOWN_SECONDS
