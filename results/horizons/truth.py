"""The trained table: every twin's runs at T, 3T, 9T and 27T images seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cmtscale.data.sources import open_source
from cmtscale.record.losses import Losses, read_losses
from cmtscale.record.row import Row, read_rows
from cmtscale.search.candidates import Candidate, grid
from cmtscale.search.curves import FloatArray
from cmtscale.search.evidence import Evidence, gather
from cmtscale.search.ladder import PRESETS
from cmtscale.search.request import SearchRequest
from cmtscale.search.resolve import resolve
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings
from cmtscale.train.run_time import run_seconds

RUNGS = ("T", "3T", "9T", "27T")
TARGET = 2  # the rung that is decided for: the last one of the standard ladder
BEYOND = 3


@dataclass(frozen=True, kw_only=True)
class TruthTable:
    """`twins` (K) and their runs; `eligible` (K,) says which may be chosen.

    `settings` are those of the standard ladder (T, 3T, 9T), `long_settings` have 27T as well.
    `seconds` (K, 4) is what a run takes, charged at the speed of the twin's fastest run: other work
    shared the cores.
    """

    settings: Settings
    long_settings: Settings
    twins: tuple[Candidate, ...]
    eligible: npt.NDArray[np.bool_]
    rows: tuple[Row, ...]
    image_losses: Mapping[str, Losses]
    seconds: FloatArray

    def cell(self, twin: int, rung: int) -> list[Row]:
        """The twin's runs at a rung, by seed."""
        horizon, name = self.long_settings.horizons[rung], self.twins[twin].name
        return [row for row in self.rows if row.candidate == name and row.horizon == horizon]

    def log_losses(self, rung: int) -> list[FloatArray]:
        """ln loss of each twin's runs at a rung, by seed."""
        return [
            np.array([np.log(row.val_loss) for row in self.cell(twin, rung)], dtype=float)
            for twin in range(len(self.twins))
        ]

    def means(self, rung: int) -> FloatArray:
        """(K,): mean ln loss of each twin at a rung; not a number where it has no run."""
        return np.array([np.nan if not len(v) else v.mean() for v in self.log_losses(rung)])

    def seeds(self, rung: int) -> npt.NDArray[np.int64]:
        """(K,): how many runs each twin has at a rung."""
        return np.array([len(values) for values in self.log_losses(rung)])

    def evidence(self, rows: Sequence[Row]) -> Evidence:
        """What a search would know from these runs; those of 27T are left out."""
        evidence = gather(self.settings, rows, self.image_losses, NOT_TIMED)
        assert [arm.name for arm in evidence.arms] == [twin.name for twin in self.twins]
        return evidence

    def part(self, images: npt.NDArray[np.int64]) -> "TruthTable":
        """The same runs, scored on some of the validation images."""
        rows, kept = [], {}
        for row in self.rows:
            assert row.val_loss is not None
            losses = self.image_losses[row.run_id].astype(float)
            # half precision moved the mean a little
            loss = float(losses[images].mean() + row.val_loss - losses.mean())
            rows.append(replace(row, val_loss=loss))
            kept[row.run_id] = self.image_losses[row.run_id][images]
        return replace(self, rows=tuple(rows), image_losses=kept)


def read_truth(folder: Path) -> TruthTable:
    """The table in a folder: `table/trials.csv` and `table/val_losses.npz`."""
    request = SearchRequest(budget_macs=4_000_000_000, data="fashion-mnist")
    settings = resolve(request, open_source(request.data).describe())
    long_settings = replace(settings, ladder=PRESETS["thorough"])
    image_losses = read_losses(folder / "table")
    rows = [row for row in read_rows(folder / "table" / "trials.csv") if row.run_id in image_losses]
    assert all(row.status == "complete" for row in rows)
    twins = tuple(candidate for candidate in grid(settings) if candidate.role != "base")
    return TruthTable(
        settings=settings,
        long_settings=long_settings,
        twins=twins,
        eligible=np.array([twin.on_budget for twin in twins]),
        rows=tuple(rows),
        image_losses=image_losses,
        seconds=_seconds(long_settings, twins, rows, len(next(iter(image_losses.values())))),
    )


def _seconds(
    settings: Settings, twins: Sequence[Candidate], rows: Sequence[Row], val_images: int
) -> FloatArray:
    """(K, 4): seconds of a run at each rung, by the fastest run of each twin."""

    def worth(rung: int) -> float:
        recipe = settings.run_recipe(rung)
        assert recipe.train_images is not None
        return run_seconds(1.0, recipe, train_images=recipe.train_images, val_images=val_images)

    worths = np.array([worth(rung) for rung in range(len(RUNGS))])
    fastest = [
        min(
            row.seconds / worths[settings.horizons.index(row.horizon)]
            for row in rows
            if row.candidate == twin.name
        )
        for twin in twins
    ]
    return np.array(fastest)[:, None] * worths


def share_label(twin: Candidate) -> str:
    """`24/33/43`: depth, width and resolution in %."""
    shares = (twin.shares.depth, twin.shares.width, twin.shares.resolution)
    return "/".join(f"{100 * share:.0f}" for share in shares)
