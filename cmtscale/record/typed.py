"""A record from JSON: dataclasses whose fields have the types that they declare."""

import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def record_of(kind: type[Record], table: Any) -> Record:
    """The dataclass `kind` of a JSON object, with all that it holds; raises `ValueError`.

    Fields are numbers, texts, truth values, `Literal`, `None`, tuples and dataclasses of these.
    """
    if not isinstance(table, dict):
        raise ValueError(f"{table!r} is no {kind.__name__}")
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if table.keys() != set(names):
        wrong = ", ".join(sorted(table.keys() ^ set(names)))
        raise ValueError(f"a {kind.__name__} lacks, or has no such, {wrong}")
    return kind(**{name: _value(hints[name], table[name], name) for name in names})


def _value(kind: Any, value: Any, name: str) -> Any:
    """`value` as the type of a field; raises `ValueError` where it is of another."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in get_args(kind):
            return None
        (kind,) = (part for part in get_args(kind) if part is not types.NoneType)
        return _value(kind, value, name)
    if origin is tuple:
        return _tuple(get_args(kind), value, name)
    if is_dataclass(kind):
        return record_of(kind, value)  # type: ignore[arg-type]
    if origin is Literal:
        is_right = value in get_args(kind)
    elif kind is float:
        is_right = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        is_right = type(value) is kind
    if not is_right:
        raise ValueError(f"{value!r} is no {name}")
    return value


def _tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no {name}")
    if kinds[-1] is Ellipsis:
        kinds = len(value) * kinds[:1]
    if len(kinds) != len(value):
        raise ValueError(f"{value!r} is no {name}")
    return tuple(_value(kind, part, name) for kind, part in zip(kinds, value, strict=True))
