"""The validation loss of each image, of each run: what noise of the images does to a choice."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cmtscale.arch.errors import ResultsError, first_line
from cmtscale.record.files import write_atomically
from cmtscale.record.folder import IMAGE_LOSSES, RUNS, VAL_LOSSES

Losses = npt.NDArray[np.float16]  # half precision moves a mean by less than 1e-4


def write_image_losses(run_folder: Path, losses: npt.NDArray[np.float64]) -> None:
    """Keep a run's losses (n,), in the order of the validation split, in its own folder."""
    halves = np.minimum(losses, np.finfo(np.float16).max).astype(np.float16)
    write_atomically(run_folder / IMAGE_LOSSES, lambda file: np.save(file, halves))


def read_losses(folder: Path) -> dict[str, Losses]:
    """The losses (n,) by run id, of a search's `val_losses.npz`; what is missing is left out."""
    try:
        return require_losses(folder)
    except ResultsError:
        return {}


def require_losses(folder: Path) -> dict[str, Losses]:
    """The same; raises `ResultsError` where the file is there and cannot be read."""
    path = folder / VAL_LOSSES
    try:
        with path.open("rb") as file, np.load(file) as stored:
            losses = {run_id: stored[run_id] for run_id in stored.files}
            if any(own.ndim != 1 or own.dtype.kind != "f" for own in losses.values()):
                raise ValueError("its arrays are not losses of images")
            return losses
    except FileNotFoundError:
        return {}
    except Exception as error:  # damage raises nearly anything, zlib.error included
        raise ResultsError(f"{path} is damaged: {first_line(error)}; restore it") from error


def current_losses(folder: Path, run_ids: Iterable[str]) -> dict[str, Losses]:
    """The losses (n,) by run id: those of the runs' folders, and of `val_losses.npz` for others."""
    return read_losses(folder) | _own_losses(folder, run_ids)


def _own_losses(folder: Path, run_ids: Iterable[str]) -> dict[str, Losses]:
    """Those that the runs' folders have."""
    losses: dict[str, Losses] = {}
    for run_id in run_ids:
        try:
            with (folder / RUNS / run_id / IMAGE_LOSSES).open("rb") as file:
                losses[run_id] = np.load(file)
        except Exception:  # missing or damaged as above: what was gathered stays
            continue
    return losses


def gather_losses(folder: Path, run_ids: Iterable[str]) -> dict[str, Losses]:
    """Bring the losses of the runs' folders into `val_losses.npz`, beside those already there."""
    kept = read_losses(folder)
    own = _own_losses(folder, run_ids)
    losses = kept | own
    is_new = any(
        run_id not in kept or not np.array_equal(own[run_id], kept[run_id], equal_nan=True)
        for run_id in own
    )
    if is_new:
        in_order = {run_id: losses[run_id] for run_id in sorted(losses)}
        write_atomically(
            folder / VAL_LOSSES,
            lambda file: np.savez_compressed(file, **in_order),  # type: ignore[arg-type]
        )
    return losses
