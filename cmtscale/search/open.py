"""Opening a run folder: whose it is, and what it has fixed, in one place and under its lock."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.environment import read_environments
from cmtscale.record.folder import TRIALS, held, holds_anything, require_folder
from cmtscale.record.identity import difference, identities
from cmtscale.record.reads import readings
from cmtscale.record.row import Row, read_rows
from cmtscale.record.table import Table, open_table
from cmtscale.search.candidates import recorded_candidate
from cmtscale.search.executors.left_over import end_left_over
from cmtscale.search.mend import mend
from cmtscale.search.second_cost import NOT_TIMED
from cmtscale.search.settings import Settings, stored_settings
from cmtscale.search.store import database_errors
from cmtscale.train.recipe import run_fields


@dataclass(frozen=True, kw_only=True)
class OpenFolder:
    """A folder that this process holds: the search's settings and its record."""

    path: Path
    settings: Settings
    table: Table


def settings_in(folder: Path, settings: Settings) -> Settings:
    """`settings` with what the folder has fixed: its precision and the side it packs for.

    Raises `ResultsError` if the folder holds another search, other images or other things.
    """
    require_folder(folder)
    stored = stored_settings(folder)
    if stored is None:
        if holds_anything(folder):
            raise ResultsError(
                f"{folder} is not empty and holds no search; use another --out, or an empty folder"
            )
        return settings
    if stored.identity != settings.identity:
        before, now = stored.identity_fields(), settings.identity_fields()
        only_images = before | {"images": settings.data_hash} == now
        if only_images and stored.split_seed == settings.split_seed:
            raise ResultsError(
                f"the images have changed since the runs in {folder}; use another --out"
            )
        if stored.split_seed != settings.split_seed:
            before["split_seed"], now["split_seed"] = stored.split_seed, settings.split_seed
            del before["images"], now["images"]
        raise ResultsError(
            f"{folder} holds another search{difference(before, now)}; use another --out"
        )
    return replace(settings, precision=stored.precision, pack_px=stored.pack_px)


def inspected(folder: Path, settings: Settings) -> OpenFolder:
    """The folder as it is, without holding it or mending anything in it."""
    settings = settings_in(folder, settings)
    try:
        rows = read_rows(folder / TRIALS)
    except FileNotFoundError:
        rows = []
    _require_own_rows(folder, settings, rows)
    table = Table(folder, rows)
    return OpenFolder(path=folder, settings=settings, table=table)


@contextmanager
def opened(folder: Path, settings: Settings, note: Callable[[str], None]) -> Iterator[OpenFolder]:
    """Hold the folder for this search alone; `note` hears of what had to be mended.

    Raises `ResultsError` where it cannot be this search's folder; a new folder is then removed.
    """
    settings_in(folder, settings)  # before a lock is put into somebody else's folder
    with held(folder):
        settings = settings_in(folder, settings)
        end_left_over(folder, note)
        read_environments(folder)  # what is read only later is refused before anything trains
        readings(folder)
        table = open_table(folder, note)
        mend(folder, note)
        _require_own_rows(folder, settings, table.rows)
        with database_errors(folder):
            yield OpenFolder(path=folder, settings=settings, table=table)


def _require_own_rows(folder: Path, settings: Settings, rows: Iterable[Row]) -> None:
    """Raise `ResultsError` for a run of another search, which a merge may have brought."""
    alike: dict[tuple[object, ...], list[Row]] = {}  # but for their seeds, of thousands a few
    for row in rows:
        real = (row.dims, row.depths, row.resolution_px)
        twin = (row.proxy_dims, row.proxy_depths, row.proxy_resolution_px)
        alike.setdefault((row.role, real, twin, row.horizon), []).append(row)
    for own in alike.values():
        network = recorded_candidate(settings, own[0], NOT_TIMED).trained
        epochs, train_images = own[0].horizon
        recipe = replace(settings.run_recipe(0), epochs=epochs, train_images=train_images)
        fields = run_fields(network, recipe, settings.data_hash, own[0].seed)
        expected = identities(fields, "seed", [row.seed for row in own])
        for row, its_identity in zip(own, expected, strict=True):
            if row.identity != its_identity:
                raise ResultsError(
                    f"{folder / TRIALS}: {row.run_id} (identity {row.identity}) is a run of "
                    f"another search; this one's would be {its_identity}; remove its line"
                )
