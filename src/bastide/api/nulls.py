"""Go reads a JSON null as a field that was left out; this takes such fields away for stricter types."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any

import msgspec


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}


def without_nulls(value: Any, kind: Any) -> Any:
    """`value` (decoded JSON) without the null fields of the structs that `kind` is made of.

    Entries of maps keep their nulls: `{"80/tcp": null}` says something.
    """
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        for choice in typing.get_args(kind):
            if choice is not types.NoneType and _matches(value, choice):
                return without_nulls(value, choice)
        return value
    if isinstance(value, dict):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            fields = _fields(kind)
            return {
                name: without_nulls(item, fields.get(name, Any)) for name, item in value.items() if item is not None
            }
        if origin is dict:
            inner = typing.get_args(kind)[1]
            return {name: without_nulls(item, inner) for name, item in value.items()}
    if isinstance(value, list) and origin is list:
        inner = typing.get_args(kind)[0]
        return [without_nulls(item, inner) for item in value]
    return value


def _matches(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    if isinstance(value, dict):
        return origin is dict or (isinstance(origin, type) and issubclass(origin, msgspec.Struct))
    return isinstance(value, list) and origin is list
