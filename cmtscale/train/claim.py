"""Whose folder it is: a training goes on in its own and touches no other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cmtscale.arch.errors import RequestError
from cmtscale.record.files import read_json, write_json, write_text_atomically
from cmtscale.record.folder import ANOTHER_OUT, RUN, holds_anything, require_folder
from cmtscale.record.identity import difference, flat

VARIANT, RECIPE = "variant.toml", "recipe.toml"


class Described(Protocol):
    """A training that says what decides its result."""

    @property
    def identity(self) -> str:
        """A hash of `identity_fields`."""
        ...

    def identity_fields(self) -> dict[str, Any]:
        """What decides the result."""
        ...


def require_ours(
    folder: Path,
    run: Described,
    *,
    instead: str = ANOTHER_OUT,
) -> bool:
    """Whether the folder is this run's already; raises a `CmtscaleError` if it is another's.

    `instead` says what to do where it cannot be this run's.
    """
    require_folder(folder, instead=instead)
    try:
        described = read_json(folder / RUN)
    except FileNotFoundError:
        if holds_anything(folder):
            raise RequestError(f"{folder} is not empty and holds no training; {instead}") from None
        return False
    if "identity" not in described:
        raise RequestError(f"{folder} holds another training, or one of cmtscale 0.1.0; {instead}")
    if described["identity"] != run.identity:
        differs = difference(described.get("run") or {}, run.identity_fields())
        raise RequestError(
            f"{folder} holds another training{differs}; {instead}, or the command it began with"
        )
    return True


def claim(
    folder: Path, run: Described, source: Mapping[str, Any], texts: Mapping[str, str]
) -> None:
    """Write what the folder is for; first whose it is, so that a killed start can be repeated.

    `source` says for people where the images come from; `texts` are files beside it, by name.
    """
    if not require_ours(folder, run):
        described = {"identity": run.identity, **source, "run": flat(run.identity_fields())}
        write_json(folder / RUN, described)
    for name, text in texts.items():
        write_text_atomically(folder / name, text)
