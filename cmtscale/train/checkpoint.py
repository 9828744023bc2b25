"""A run's state on disk, so that a killed run goes on where it was and ends the same.

Two files stand in the folder of a run that trains, the newest and the one before it; a kill may
leave a third that is newer than both. They are zip files, as torch writes them, whose checksums
tell a damaged one.
"""

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtscale.arch.errors import TrainingError
from cmtscale.record.files import write_atomically
from cmtscale.record.folder import CHECKPOINT

WRITTEN = "checkpoint-new.pt"  # not read back yet
PREVIOUS = "checkpoint-previous.pt"
NEWEST_FIRST = (WRITTEN, CHECKPOINT, PREVIOUS)

log = logging.getLogger(__name__)


class DamagedError(Exception):
    """A file that is no whole checkpoint."""


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the generators that a training on `device` draws from, for a checkpoint."""
    states = {"torch_rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["device_rng"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["device_rng"] = torch.mps.get_rng_state()
    return states


def set_random_states(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators where `random_states` found them."""
    torch.set_rng_state(state["torch_rng"])
    if "device_rng" not in state:  # begun on a CPU
        return
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["device_rng"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state["device_rng"])


def save_checkpoint(folder: Path, identity: str, state: dict[str, Any]) -> None:
    """Make `state` (tensors, numbers, strings, containers) the newest checkpoint of the folder.

    The one before stays, the one before that goes, once the new file has been read back. Raises
    `TrainingError` if that fails, and `OSError` as it comes; what was there then stays.
    """
    # Through memory: on a full disk torch's own writer fails with a RuntimeError about positions.
    buffer = io.BytesIO()
    torch.save({"identity": identity, **state}, buffer)
    written = folder / WRITTEN
    write_atomically(written, lambda file: file.write(buffer.getbuffer()))
    try:
        _whole(written)
    except DamagedError as error:
        written.unlink()
        raise TrainingError(
            f"{folder / CHECKPOINT} cannot be read back as it was written; check its disk, then "
            "the same command goes on"
        ) from error
    _take_over(folder)


def _take_over(folder: Path) -> None:
    """Make the file that was written, and is whole, the newest; the newest so far stays."""
    if (folder / CHECKPOINT).exists():
        (folder / CHECKPOINT).replace(folder / PREVIOUS)
    (folder / WRITTEN).replace(folder / CHECKPOINT)


def keep_newest(folder: Path) -> None:
    """Drop all checkpoints but the newest, of a run that has ended."""
    for name in (PREVIOUS, WRITTEN):
        (folder / name).unlink(missing_ok=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has kept anything in the folder, be it whole or not."""
    return any((folder / name).exists() for name in NEWEST_FIRST)


def load_checkpoint(
    folder: Path, identity: str, device: torch.device | str = "cpu"
) -> dict[str, Any] | None:
    """The folder's newest checkpoint if it is whole and belongs to this run, else None.

    A disk or a memory that fails is raised as it comes: the checkpoint may be good.
    """
    try:
        state = _read(folder / CHECKPOINT, device)
    except (FileNotFoundError, DamagedError):
        return None
    return state if state.pop("identity", None) == identity else None


def resume_checkpoint(folder: Path, identity: str) -> dict[str, Any] | None:
    """What this run goes on from: its newest checkpoint that is whole; None where it begins.

    That one becomes the folder's newest file, so that the next save keeps it and not a damaged
    one. Warns of a damaged one. A disk or a memory that fails is raised as it comes.
    """
    damaged = None
    for path in (folder / name for name in NEWEST_FIRST):
        try:
            state = _read(path, "cpu")
        except FileNotFoundError:
            continue
        except DamagedError:
            damaged = damaged or path
            continue
        if state.pop("identity", None) == identity:
            if damaged is not None:
                log.warning("warning: %s is damaged; going on from the one before it", damaged)
            _settle(folder, path)
            return state
    if damaged is not None:
        log.warning("warning: %s is damaged, and there is no other to go on from", damaged)
    return None


def _settle(folder: Path, taken: Path) -> None:
    """Make the checkpoint that was `taken` the folder's newest; a newer file is damaged."""
    if taken.name == WRITTEN:  # the run was killed before it had taken over
        _take_over(folder)
        return
    if taken.name == PREVIOUS:
        taken.replace(folder / CHECKPOINT)
    (folder / WRITTEN).unlink(missing_ok=True)


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    """The state in a checkpoint; raises `DamagedError`, and `OSError` as it comes."""
    content = _whole(path)
    try:
        state: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a zip file of something else: torch.load raises a dozen types
        raise DamagedError(path) from error
    return state


def _whole(path: Path) -> io.BytesIO:
    """The content of a zip file whose checksums are right; raises `DamagedError`."""
    content = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(content) as file:
            wrong = file.testzip()
    except MemoryError:
        raise
    except Exception as error:  # zipfile and zlib raise several types
        raise DamagedError(path) from error
    if wrong is not None:
        raise DamagedError(path)
    content.seek(0)
    return content
