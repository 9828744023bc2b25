"""A run's state on disk, so that a killed run goes on where it was and ends the same."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmtscale.record.files import write_atomically
from cmtscale.record.folder import CHECKPOINT


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
    """Replace the folder's checkpoint by `state` (tensors, numbers, strings, containers)."""
    # Through memory: on a full disk torch's own writer fails with a RuntimeError about positions.
    buffer = io.BytesIO()
    torch.save({"identity": identity, **state}, buffer)
    write_atomically(folder / CHECKPOINT, lambda file: file.write(buffer.getbuffer()))


def load_checkpoint(
    folder: Path, identity: str, device: torch.device | str = "cpu"
) -> dict[str, Any] | None:
    """The folder's checkpoint if it is whole and belongs to this run, else None.

    A disk or a memory that fails is raised as it comes: the checkpoint may be good.
    """
    try:
        state: dict[str, Any] = torch.load(
            folder / CHECKPOINT, map_location=device, weights_only=True
        )
    except FileNotFoundError:
        return None
    except (OSError, MemoryError):
        raise
    except Exception:
        # torch.load raises a dozen types for a damaged file; such a run starts again
        return None
    return state if state.pop("identity", None) == identity else None
