"""The weights in a trained model's folder."""

import hashlib
from pathlib import Path

from torch import Tensor

from cmtscale.arch.errors import ModelError
from cmtscale.record.model_folder import WEIGHTS


def read_weights(folder: Path, digest: str) -> dict[str, Tensor]:
    """The state dict in a model's folder, whose file has the sha256 `digest`; else `ModelError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ModelError(f"{path} is not the file that model.toml describes; copy both anew")
        return load(content)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}; train or copy the model anew") from error
