"""The weights in a trained model's folder, and what of them does not fit a network."""

import hashlib
from collections.abc import Iterable, Mapping
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


def differing(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """The names that one of two state dicts lacks, or whose shapes differ; sorted."""
    return sorted(
        name
        for name in weights.keys() | expected.keys()
        if name not in weights
        or name not in expected
        or weights[name].shape != expected[name].shape
    )


def listed(names: Iterable[str], most: int = 5) -> str:
    """`a, b and 7 more`, for an error."""
    named = list(names)
    rest = len(named) - most
    return ", ".join(named[:most]) + (f" and {rest} more" if rest > 0 else "")
