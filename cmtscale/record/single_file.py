"""A trained model as one file: its weights as safetensors, whose metadata hold `model.toml`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cmtscale.arch.errors import ModelError
from cmtscale.record.model_folder import (
    DESCRIPTION,
    LARGEST_DESCRIPTION,
    ModelDescription,
    description_toml,
    parse_description,
)

SAFETENSORS = ".safetensors"  # how its name ends
LENGTH_BYTES = 8  # of the header's length, little-endian, with which the file begins


def pack_model(
    description: ModelDescription,
    weights: Mapping[str, npt.NDArray[Any]],
    *,
    more: Mapping[str, str],
) -> bytes:
    """The file's content, with `more` metadata. Its `model.toml` hashes all after the header."""
    from safetensors.numpy import save

    arrays = {name: array.copy(order="C") for name, array in weights.items()}
    _, body = _split(save(arrays))
    toml = description_toml(description, hashlib.sha256(body).hexdigest())
    return save(arrays, metadata={**more, DESCRIPTION: toml})


def unpack_model(content: bytes, *, source: str) -> ModelDescription:
    """What the file's `model.toml` says; raises `ModelError` for a file that is damaged or other.

    The weights are left to safetensors, which reads `content` as it is.
    """
    try:
        header, body = _split(content)
        if len(header) > 2 * LARGEST_DESCRIPTION:  # JSON escapes some of the text
            raise ValueError("its header is too large")
        text = json.loads(header)["__metadata__"][DESCRIPTION]
        if not isinstance(text, str):
            raise ValueError("its description is no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{source} holds no trained model with its {DESCRIPTION}; give the folder of one, or a "
            f"file that `cmtscale export --format safetensors` wrote"
        ) from error
    description, digest = parse_description(text, source=f"{DESCRIPTION} in {source}")
    if hashlib.sha256(body).hexdigest() != digest:
        raise ModelError(f"{source} is damaged: its weights were changed; export or copy it anew")
    return description


def read_content(path: Path) -> bytes:
    """The bytes of a file; raises `ModelError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Header and weights; the length of a header that is cut off gives no JSON."""
    start = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    return content[LENGTH_BYTES:start], content[start:]
