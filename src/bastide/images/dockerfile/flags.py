"""Options of instructions: `--name=value`, truth values, durations, and lists of `key=value`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable

from bastide.model.errors import InvalidArgument

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False"}


class Flags:
    """The flags of one instruction. `known` are those with one value, `many` those that may be repeated."""

    def __init__(self, given: Iterable[str], known: Iterable[str], many: Iterable[str] = ()) -> None:
        self._single: dict[str, str] = {}
        self._many: dict[str, list[str]] = {}
        single, repeated = frozenset(known), frozenset(many)
        for word in given:
            name, equals, value = word[2:].partition("=")
            if name in repeated:
                self._many.setdefault(name, []).append(self._checked(name, equals, value))
            elif name not in single:
                raise InvalidArgument(f"unknown flag: --{name}")
            elif name in self._single:
                raise InvalidArgument(f"duplicate flag specified: --{name}")
            else:
                # A flag without a value is a truth value: --link.
                self._single[name] = value if equals else "true"

    def _checked(self, name: str, equals: str, value: str) -> str:
        if not equals:
            raise InvalidArgument(f"missing a value on flag: --{name}")
        return value

    def text(self, name: str) -> str:
        """A flag's value, "" when it was not given."""
        return self._single.get(name, "")

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a repeated flag."""
        return tuple(self._many.get(name, ()))

    def on(self, name: str) -> bool:
        """A truth value, false when it was not given."""
        return truth(self._single[name], f"--{name}") if name in self._single else False

    def given(self, name: str) -> bool:
        """Whether it was given."""
        return name in self._single or name in self._many


def truth(value: str, what: str) -> bool:
    """A truth value as Go reads it. Raises InvalidArgument."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidArgument(f"expecting boolean value for flag {what}, not: {value}")


def duration(text: str, what: str) -> int:
    """A duration as Go writes it (`1m30s`, `1.5h`), in nanoseconds. Raises InvalidArgument."""
    if text == "0":
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f'{what}: invalid duration "{text}"')
    return sum(int(float(number) * _UNITS[unit]) for number, unit in parts)


def pairs(text: str) -> list[tuple[str, str | None]]:
    """`type=cache,target=/x,ro` as names and values; a name alone has the value None. Quotes as in CSV."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidArgument(f"failed to parse csv mounts: {error}") from error
    found: list[tuple[str, str | None]] = []
    for field in rows[0] if rows else []:
        name, equals, value = field.partition("=")
        found.append((name.strip().lower(), value if equals else None))
    return found


_SIZES = {"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}


def size(text: str, what: str) -> int:
    """`64m` in bytes. Raises InvalidArgument."""
    match = re.fullmatch(r"(\d{1,15})([a-z]{0,2})", text.lower())
    if match is None or match[2] not in _SIZES:
        raise InvalidArgument(f"invalid size for {what}: {text!r}")
    return int(match[1]) * _SIZES[match[2]]
