"""What of a folder can be made again: where it cannot be read, it is kept aside first."""

from collections.abc import Callable
from pathlib import Path

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json, set_aside
from cmtscale.record.folder import CHOICE, CURVES, FORECAST, TIMINGS, VAL_LOSSES
from cmtscale.record.forecast import read_forecast
from cmtscale.record.losses import require_losses
from cmtscale.record.metrics import read_curves, require_curves, write_curves
from cmtscale.search.timings import read_timings


def mend(folder: Path, note: Callable[[str], None]) -> None:
    """Rename what is damaged or of another version, and say so; the search makes it anew.

    What the search cannot make again is refused where it is read.
    """
    _keep_aside(folder, TIMINGS, read_timings, "it is measured again", note)
    _keep_aside(folder, VAL_LOSSES, require_losses, "it is made again from runs/", note)
    lines = _whole_lines(folder)
    if _keep_aside(folder, CURVES, require_curves, "it is made again from runs/", note):
        write_curves(folder, lines)
    _keep_aside(folder, FORECAST, read_forecast, "it is made again from trials.csv", note)
    _keep_aside(folder, CHOICE, _read_choice, "it is made again from trials.csv", note)


def _keep_aside(
    folder: Path,
    name: str,
    read: Callable[[Path], object],
    remedy: str,
    note: Callable[[str], None],
) -> bool:
    """Whether it had to be."""
    try:
        read(folder)
        return False
    except ResultsError:
        kept = set_aside(folder / name)
        note(f"{folder / name} cannot be read; it is kept as {kept.name}, and {remedy}")
        return True


def _whole_lines(folder: Path) -> list[dict[str, str]]:
    """Of damaged curves; they may be all that is left of runs whose logs are gone."""
    try:
        return read_curves(folder)
    except ResultsError:
        return []


def _read_choice(folder: Path) -> None:
    if (folder / CHOICE).exists():
        read_json(folder / CHOICE)
