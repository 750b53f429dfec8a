"""Whether a JSON value has a shape of `schemas`: for tests, and for whoever doubts an answer."""

from __future__ import annotations

from typing import Any

import msgspec

from bastide.api.http import NEWEST
from bastide.api.openapi.schemas import SHAPES, STRUCTS, field

_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "any": object,
}


def problems(value: Any, shape: str, *, exact: bool = True, minor: int = NEWEST[1], where: str = "") -> list[str]:
    """What is wrong with `value`, each with its place; nothing when it has the shape.

    `exact`: a field that the shape does not know is wrong too. `minor`: the answer is one of API version 1.`minor`.
    """
    if shape.endswith("?"):
        return [] if value is None else problems(value, shape[:-1], exact=exact, minor=minor, where=where)
    if shape.startswith("["):
        if not isinstance(value, list):
            return [f"{where or '.'}: {shape} expected, {type(value).__name__} found"]
        return [
            p
            for number, item in enumerate(value)
            for p in problems(item, shape[1:-1], exact=exact, minor=minor, where=f"{where}[{number}]")
        ]
    if shape.startswith("{"):
        if not isinstance(value, dict):
            return [f"{where or '.'}: {shape} expected, {type(value).__name__} found"]
        return [
            p
            for name, item in value.items()
            for p in problems(item, shape[1:-1], exact=exact, minor=minor, where=f"{where}.{name}")
        ]
    if shape in _KINDS:
        wrong = not isinstance(value, _KINDS[shape]) or (isinstance(value, bool) and shape in ("integer", "number"))
        return [f"{where or '.'}: {shape} expected, {value!r} found"] if wrong else []
    if shape in STRUCTS:
        return _struct_problems(value, STRUCTS[shape], exact=exact, where=where)
    return _object_problems(value, SHAPES[shape], exact=exact, minor=minor, where=where)


def _object_problems(value: Any, fields: dict[str, str], *, exact: bool, minor: int, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where or '.'}: object expected, {value!r} found"]
    found = []
    known = set()
    for written, shape in fields.items():
        one = field(written)
        known.add(one.name)
        if one.name in value and not one.there(minor):
            found.append(f"{where}.{one.name}: not in version 1.{minor}")
        elif one.name in value:
            found += problems(value[one.name], shape, exact=exact, minor=minor, where=f"{where}.{one.name}")
        elif one.there(minor) and not one.optional:
            found.append(f"{where}.{one.name}: missing")
    if exact:
        found += [f"{where}.{name}: not in the description" for name in value if name not in known]
    return found


def _struct_problems(value: Any, kind: type[msgspec.Struct], *, exact: bool, where: str) -> list[str]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return [f"{where or '.'}: {error}"]
    names = {field.encode_name for field in msgspec.structs.fields(kind)}
    return [f"{where}.{name}: not in the description" for name in value if name not in names] if exact else []
