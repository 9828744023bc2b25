"""`environment.json`, read back: each description of what a search was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmtscale.arch.errors import ResultsError
from cmtscale.record.files import read_json
from cmtscale.record.folder import ENVIRONMENT

# what is read of a description, which may hold more
_PARTS: Mapping[str, type] = {"cmtscale": str, "versions": dict, "devices": list, "data": dict}
_DATA: Mapping[str, type] = {"val": int, "commonest_class": float}


def read_environments(folder: Path) -> list[dict[str, Any]]:
    """The first description, then those that the search went on with; none where nothing trained.

    Raises `ResultsError` if the file is damaged.
    """
    path = folder / ENVIRONMENT
    try:
        first = read_json(path)
    except FileNotFoundError:
        return []
    resumed = first.get("resumed", [])
    if not isinstance(resumed, list):
        raise _damaged(path, "resumed")
    for described in (first, *resumed):
        if not isinstance(described, dict):
            raise _damaged(path, "resumed")
        _require_parts(path, described, _PARTS)
        _require_parts(path, described.get("data", {}), _DATA)
    return [first, *resumed]


def changes(environments: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What decides results and is other `now` than in the last of these; none if any is alike.

    What a description does not say is not compared.
    """
    differences = [_differences(described, now) for described in environments]
    return tuple(differences[-1]) if differences and all(differences) else ()


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    one, other = _deciding(before), _deciding(now)
    return [
        f"{name} {one[name]} is now {other[name]}"
        for name in one
        if name in other and one[name] != other[name]
    ]


def _deciding(described: Mapping[str, Any]) -> dict[str, str]:
    """What a run's result depends on, beside its settings: the code that trains, and torch."""
    torch = described.get("versions", {}).get("torch")
    parts = {
        "cmtscale": described.get("cmtscale"),
        "cmtscale's code": described.get("code"),
        "torch": torch and str(torch).partition("+")[0],  # without the build: +cpu, +cu126
    }
    return {name: str(value) for name, value in parts.items() if value is not None}


def _require_parts(path: Path, table: dict[str, Any], parts: Mapping[str, type]) -> None:
    for name, kind in parts.items():
        if name in table and not isinstance(table[name], kind):
            raise _damaged(path, name)


def _damaged(path: Path, name: str) -> ResultsError:
    return ResultsError(f"{path} is damaged: {name} is none; restore it, or remove it")
