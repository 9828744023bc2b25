"""A trained model, read back: what it is, its weights, and which of them fit a network."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cmtscale.arch.errors import ModelError
from cmtscale.record.model_folder import (
    DESCRIPTION,
    WEIGHTS,
    ModelDescription,
    find_model,
    read_description,
)
from cmtscale.record.single_file import read_content, unpack_model


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedModel:
    """A description with the state dict that it describes; `source` is the file of the weights.

    `digest` is that file's sha256.
    """

    description: ModelDescription
    weights: Mapping[str, Tensor]
    digest: str
    source: str


def read_saved(path: Path) -> SavedModel:
    """Read a model's folder, that of its training, or a single file; executes nothing in them.

    Raises `ModelError` for a path that holds no model, and for weights that were changed.
    """
    if path.is_file():
        source, content = path, read_content(path)
        description = unpack_model(content, source=str(source))
        digest = hashlib.sha256(content).hexdigest()
    else:
        folder = find_model(path)
        description, digest = read_description(folder)
        source = folder / WEIGHTS
        content = read_content(source)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ModelError(
                f"{source} is not the file that {DESCRIPTION} describes; copy both anew"
            )
    weights = parse_weights(content, source=str(source))
    return SavedModel(description=description, weights=weights, digest=digest, source=str(source))


def parse_weights(content: bytes, *, source: str) -> dict[str, Tensor]:
    """The state dict in a file of safetensors; raises `ModelError` for a damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise ModelError(
            f"{source} cannot be read: {error}; train or copy the model anew"
        ) from error


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
