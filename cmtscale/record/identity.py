"""Hashes that say whether two things on disk are the same, now and in later versions.

A hash covers a schema version and the fields that differ from a frozen table of that version: what
a field meant when it did not exist yet. A field that is added with its old meaning in the table
leaves every older hash valid. The table must never follow the present defaults, which change.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from cmtscale.arch.network import Network

# Schema 1. Names are those of `flat`, positions in lists of nested fields left out. Values never
# change; entries are added, each together with its field.
RECIPE_1: Mapping[str, Any] = {
    "recipe.label_smoothing": 0.0,
    "recipe.flip": False,
    "recipe.shift_fraction": 0.0,
    "recipe.drop_path": 0.0,
    "recipe.dropout": 0.0,
    "recipe.attention": "auto",
}
NETWORK_1: Mapping[str, Any] = {}  # below each of NETWORKS, such as `stages.dim`
NETWORKS = ("network", "base", "twin_base")  # of a run; of a search
FROZEN: Mapping[int, Mapping[str, Any]] = {
    1: {
        **RECIPE_1,
        **{f"{network}.{name}": NETWORK_1[name] for network in NETWORKS for name in NETWORK_1},
    }
}
SCHEMA = 1


def identity(fields: Mapping[str, Any], *, length: int = 16, schema: int = SCHEMA) -> str:
    """A hash of nested plain values and dataclasses, over what differs from the frozen table.

    Things with equal fields share it, and only they: 1 and 1.0 are equal, True and 1 are not.
    """
    assert all("." not in name for name in fields)
    return _hash(_differing(fields, FROZEN[schema]), length, schema)


def identities(fields: Mapping[str, Any], name: str, numbers: Iterable[int]) -> list[str]:
    """The identity of the same fields with each of these numbers as the field `name`."""
    differing = _differing(fields, FROZEN[SCHEMA])
    assert name in differing
    return [_hash(differing | {name: number}, 16, SCHEMA) for number in numbers]


def network_fields(network: Network) -> dict[str, Any]:
    """What a network is, without its name."""
    return {name: value for name, value in asdict(network).items() if name != "name"}


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, sequences and dataclasses as one level: `network.stages.0.dim`.

    Empty ones stay as they are. Nested names are those of fields, never a number or with a dot.
    """
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if is_dataclass(value) and not isinstance(value, type):
            value = asdict(value)
        if isinstance(value, Mapping):
            assert not any("." in inner or inner.isdigit() for inner in value), value
        elif isinstance(value, tuple):
            value = list(value)
        if isinstance(value, list) and value:
            value = {str(position): item for position, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            values |= {f"{name}.{inner}": item for inner, item in flat(value).items()}
        else:
            is_whole = isinstance(value, float) and value.is_integer()
            values[name] = int(value) if is_whole else value
    return values


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In which fields the two differ, in brackets: ` (its lr, network differ)`; or nothing.

    Parts of a recipe are named, other nested fields as a whole. What the frozen table says of a
    field is no difference to a side that lacks it.
    """
    first, second = (_differing(fields, FROZEN[SCHEMA]) for fields in (before, now))
    parts = [
        name.removeprefix("recipe.").split(".")[0]
        for name in [*flat(now), *sorted(flat(before))]
        if (name in first) != (name in second)
        or (name in first and not _same(first[name], second[name]))
    ]
    names = list(dict.fromkeys(parts))
    if not names:
        return ""
    return f" (its {', '.join(names)} {'differs' if len(names) == 1 else 'differ'})"


def _hash(differing: Mapping[str, Any], length: int, schema: int) -> str:
    text = json.dumps([schema, differing], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _differing(fields: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """What is not in the frozen table, of `flat` fields."""
    return {
        name: value
        for name, value in flat(fields).items()
        if (frozen_name := re.sub(r"\.\d+(?=\.)", "", name)) not in frozen
        or not _same(frozen[frozen_name], value)
    }


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
