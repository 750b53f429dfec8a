"""Sizes, durations and numbers of CPUs as users write them."""

from __future__ import annotations

_SUFFIXES = "bkmgtp"
# Go's time.ParseDuration.
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DIGITS = "0123456789."


def size(word: str) -> int:
    """Bytes of `512`, `64k`, `1.5g`, `2GiB` (powers of 1024, as docker/go-units reads them); -1 stays."""
    if word == "-1":
        return -1
    number = word.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    suffix = word[len(number) :].strip().lower()
    if not number or number.strip(_DIGITS) or number.count(".") > 1:
        raise ValueError(f"invalid size: '{word}'")
    power = _SUFFIXES.find(suffix[0]) if suffix else 0
    if power < 0 or suffix[1:] not in ("", "b", "ib") or (suffix[:1] == "b" and len(suffix) > 1):
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(float(number) * 1024**power)


def nanocpus(word: str) -> int:
    """`1.5` CPUs as 1 500 000 000."""
    whole, _, part = word.partition(".")
    if not (whole + part).isdecimal():
        raise ValueError(f"failed to parse {word} as a rational number")
    if len(part.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return int(whole or "0") * 10**9 + int(part[:9].ljust(9, "0"))


def duration(word: str) -> int:
    """Nanoseconds of `300ms`, `1m30s`, `1.5h`, `0` (Go's time.ParseDuration)."""
    if word == "0":
        return 0
    rest, total = word.removeprefix("-").removeprefix("+"), 0.0
    if not rest:
        raise ValueError(f'time: invalid duration "{word}"')
    while rest:
        tail = rest.lstrip(_DIGITS)
        number = rest[: len(rest) - len(tail)]
        unit = tail[: len(tail) - len(tail.lstrip("nuµμmsh"))]
        if number.count(".") > 1 or not number.strip("."):
            raise ValueError(f'time: invalid duration "{word}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{word}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{word}"')
        total += float(number) * _UNITS[unit]
        rest = tail[len(unit) :]
    return -round(total) if word.startswith("-") else round(total)
