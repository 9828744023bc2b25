"""Trains the twins of the grid at T, 3T, 9T and 27T images; see README.md.

python results/horizons/run.py    # goes on where it was stopped
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cmtscale.data.sources import open_source
from cmtscale.record.folder import RUNS
from cmtscale.record.losses import gather_losses
from cmtscale.record.row import horizon_name
from cmtscale.record.table import open_table
from cmtscale.search.candidates import grid
from cmtscale.search.executors.base import Failure, carry_out_all
from cmtscale.search.executors.local import LocalExecutor
from cmtscale.search.jobs import TrainRun
from cmtscale.search.recording import make_row
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.samplers import Asked
from cmtscale.train.devices import device_slots
from cmtscale.train.recipe import Run

TABLE = Path(__file__).parent / "table"
T = 6_000
HORIZONS = ((1, T), (1, 3 * T), (1, 9 * T), (3, 9 * T))  # epochs, images; 9 T is one pass
CORNERS = ("width", "resolution", "depth")
# (horizon, seed, how many twins): what matters most comes first
ORDER = [
    *((rung, seed, None) for seed in (0, 1) for rung in (0, 1, 2)),
    (3, 0, 3),
    *((rung, 2, 5) for rung in (0, 1, 2)),
]


def main() -> None:
    request = SearchRequest(budget_macs=4_000_000_000, data="fashion-mnist")
    source = open_source(request.data)
    settings = resolve(request, source.describe())
    data = source.pack(160).ref
    twins = [
        Asked(candidate=candidate, number=number, after=0, by="grid")
        for number, candidate in enumerate(grid(settings))
        if candidate.role != "base"
    ]
    # the anchors first, so that they have most seeds: three corners, and the first of the mixed
    # ones, which is the centre
    mixed = [twin for twin in twins if twin.candidate.role == "compound"]
    width, resolution, depth = (
        next(twin for twin in twins if twin.candidate.role == role) for role in CORNERS
    )
    twins = [width, resolution, mixed[0], depth, *mixed[1:]]
    by_name = {twin.candidate.name: twin for twin in twins}
    table = open_table(TABLE, print)
    done = {row.run_id for row in table.rows if row.status != "failed"}

    def jobs() -> Iterator[TrainRun]:
        for rung, replicate, count in ORDER:
            epochs, images = HORIZONS[rung]
            for twin in twins[:count]:
                seed = 100 * rung + replicate  # no two rungs share a seed
                name = f"{twin.candidate.name}-{horizon_name((epochs, images))}-s{seed}"
                if name not in done:
                    recipe = replace(settings.run_recipe(0), epochs=epochs, train_images=images)
                    network = twin.candidate.trained
                    run = Run(run_id=name, variant=network, recipe=recipe, seed=seed, data=data)
                    folder = TABLE / RUNS / name
                    yield TrainRun(run=run, folder=folder, candidate=twin.candidate.name)

    with LocalExecutor(device_slots("cpu")) as executor:
        for ended, result in carry_out_all(executor, jobs()):
            assert isinstance(ended, TrainRun)
            if isinstance(result, Failure):
                sys.exit(f"{ended.run.run_id}: {result.cause}")
            row = make_row(by_name[ended.candidate], ended.run, result)
            table.add(row)
            gather_losses(TABLE, [row.run_id])
            print(row.run_id, row.val_loss, row.val_accuracy, row.seconds, flush=True)


if __name__ == "__main__":
    main()
