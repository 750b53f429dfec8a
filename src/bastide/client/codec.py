"""JSON for the command line: the interpreter's C scanner alone, without the `json` package.

Importing `json` costs 4 ms (it compiles regular expressions), half of what a whole `bastide exec`
may take. The scanner and the string encoder below are the very ones that `json` uses.
"""

from __future__ import annotations

from _json import encode_basestring, encode_basestring_ascii, make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SPACE = " \t\r\n"


class _Rules:
    """What the scanner asks its maker for: plain objects, Python's numbers."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}


_scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Rules)  # type: ignore[arg-type]


def decode(data: bytes | str) -> Any:
    """The value of a JSON document. Raises ValueError when it is not one."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except (StopIteration, RecursionError):
        raise ValueError("not a JSON document") from None
    if text[end:].strip(_SPACE):
        raise ValueError("more than one JSON document")
    return value


def encode(value: Any) -> bytes:
    """A value as a compact JSON document in ASCII."""
    return _compact(value, encode_basestring_ascii).encode("ascii")


def go(value: Any) -> str:
    """A value as Go's `json.Marshal` writes it: compact, and safe inside HTML."""
    text = _compact(value, encode_basestring)
    for raw, escaped in (("&", "\\u0026"), ("<", "\\u003c"), (">", "\\u003e")):
        text = text.replace(raw, escaped)
    return text


def pretty(value: Any, indent: str = "    ", level: int = 0) -> str:
    """A value as Go's `json.Indent` lays it out."""
    if not value or not isinstance(value, dict | list):
        return _compact(value, encode_basestring)
    inner, outer = indent * (level + 1), indent * level
    if isinstance(value, dict):
        items = [f"{encode_basestring(k)}: {pretty(v, indent, level + 1)}" for k, v in value.items()]
        ends = "{}"
    else:
        items = [pretty(v, indent, level + 1) for v in value]
        ends = "[]"
    return ends[0] + "\n" + ",\n".join(inner + item for item in items) + "\n" + outer + ends[1]


def _compact(value: Any, string: Callable[[str], str]) -> str:
    if isinstance(value, str):
        return string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ",".join([f"{string(str(k))}:{_compact(v, string)}" for k, v in value.items()]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_compact(v, string) for v in value]) + "]"
    return repr(value)
