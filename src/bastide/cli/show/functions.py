"""The functions that a template may call: Go's own and those that Docker adds; and Go's `%v`."""

from __future__ import annotations

from bastide.cli.show.template import TemplateError
from bastide.client import codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LAZY = ("and", "or")


def show(value: Any, top: bool = False) -> str:
    """A value as Go's `%v` prints it; a bare null is `<no value>` at the top of a template, `<nil>` inside."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>" if top else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + " ".join([show(item) for item in value]) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join([f"{key}:{show(item)}" for key, item in sorted(value.items())]) + "]"
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    return str(getattr(value, "text", value))


def _json(value: Any) -> str:
    if hasattr(value, "values") and not isinstance(value, dict):
        value = value.values()
    return codec.go(None if hasattr(value, "text") else value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise TemplateError(f"index out of range: {key}")
            value = value[key]
        elif value is None or hasattr(value, "text"):
            raise TemplateError("index of untyped nil")
        else:
            raise TemplateError(f"can't index item of type {type(value).__name__}")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    low, high = (*bounds, len(value))[:2] if bounds else (0, len(value))
    if not 0 <= low <= high <= len(value):
        raise TemplateError(f"index out of range: {high if high > len(value) else low}")
    return value[low:high]


def _len(value: Any) -> int:
    if hasattr(value, "text"):
        return 0
    return len(value.encode()) if isinstance(value, str) else len(value)


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("missing argument for comparison")
    for other in others:
        if isinstance(first, str) != isinstance(other, str) and None not in (first, other):
            raise TemplateError("incompatible types for comparison")
    return any(first == other for other in others)


def _join(items: Any, separator: str = "") -> str:
    if hasattr(items, "text") or items is None:
        return ""
    if isinstance(items, str):
        raise TemplateError("expected a list to join")
    return separator.join([show(item) for item in items])


def _title(text: str) -> str:
    """Each word with a capital, the rest as it is."""
    result, start = "", True
    for letter in text:
        result += letter.upper() if start else letter
        start = not (letter.isalnum() or letter in "_'")
    return result


def _print(*items: Any) -> str:
    """As Go's Sprint: a space between operands when neither is a string."""
    result = ""
    for index, item in enumerate(items):
        if index and not isinstance(item, str) and not isinstance(items[index - 1], str):
            result += " "
        result += show(item)
    return result


def _printf(form: str, *items: Any) -> str:
    result, position, rest = "", 0, list(items)
    while position < len(form):
        letter = form[position]
        position += 1
        if letter != "%":
            result += letter
            continue
        start = position
        while position < len(form) and form[position] in "+-# 0123456789.":
            position += 1
        flags, verb = form[start:position], form[position : position + 1]
        position += 1
        if verb == "%":
            result += "%"
        elif not rest:
            result += f"%!{verb}(MISSING)"
        else:
            result += _verb(flags, verb, rest.pop(0))
    return result + "".join([f"%!(EXTRA {show(item)})" for item in rest])


def _verb(flags: str, verb: str, value: Any) -> str:
    if verb in ("s", "v"):
        return f"%{flags}s" % show(value)
    if verb == "q":
        return f"%{flags}s" % codec.pretty(show(value))
    if verb == "t" and isinstance(value, bool):
        return f"%{flags}s" % show(value)
    if verb in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return f"%{flags}s" % (text.upper() if verb == "X" else text)
    if verb in "dxXoc" and isinstance(value, int) and not isinstance(value, bool):
        return f"%{flags}{verb}" % value
    if verb in "feEgG" and isinstance(value, int | float):
        return f"%{flags}{verb}" % value
    if verb == "T":
        return type(value).__name__
    return f"%!{verb}({show(value)})"


def _truncate(text: str, limit: int) -> str:
    return text if len(text) < limit else text[:limit]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


BUILTIN: dict[str, Callable[..., Any]] = {
    "eq": _equal,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "index": _index,
    "join": _join,
    "json": _json,
    "le": lambda a, b: a <= b,
    "len": _len,
    "lower": str.lower,
    "lt": lambda a, b: a < b,
    "ne": lambda a, b: not _equal(a, b),
    "not": lambda value: not value,
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": lambda *items: " ".join([show(item) for item in items]) + "\n",
    "slice": _slice,
    "split": lambda text, separator: text.split(separator) if separator else list(text),
    "title": _title,
    "truncate": _truncate,
    "upper": str.upper,
}
