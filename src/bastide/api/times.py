"""Points in time as clients write them, and spans of time as Docker prints them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from bastide.model.errors import InvalidArgument

SECOND = 1_000_000_000

# Go's time.ParseDuration.
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_UNIX = re.compile(r"(\d{1,12})(?:\.(\d{1,9})\d*)?", re.ASCII)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?)?)?(Z|[+-]\d\d:\d\d)?")


def moment(text: str, *, name: str = "timestamp") -> int:
    """A time in ns since the epoch: seconds (`1136073600.5`), RFC 3339 or a part of it, or a Go duration ago.

    Raises InvalidArgument.
    """
    if found := _UNIX.fullmatch(text):
        return int(found[1]) * SECOND + int((found[2] or "0").ljust(9, "0"))
    if _DURATION.fullmatch(text):
        ago = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
        return time.time_ns() - int(ago)
    if found := _DATE.fullmatch(text):
        year, month, day, hour, minute, second, fraction, zone = found.groups()
        try:
            parts = [int(part or 0) for part in (year, month, day, hour, minute, second)]
            zoned = datetime.fromisoformat(f"2000-01-01T00:00:00{(zone or 'Z').replace('Z', '+00:00')}").tzinfo
            whole = datetime(*parts, tzinfo=zoned or UTC)  # type: ignore[misc,arg-type]
        except ValueError:
            raise InvalidArgument(f"invalid value for {name}: {text!r}") from None
        return int(whole.timestamp()) * SECOND + int((fraction or "0").ljust(9, "0"))
    raise InvalidArgument(f"invalid value for {name}: {text!r} is neither a Unix time, nor RFC 3339, nor a duration")


def epoch(stamp: str) -> int:
    """A time of the engine's own (RFC 3339, UTC, nanoseconds) in ns since the epoch."""
    return moment(stamp)


def span(seconds: float) -> str:
    """A duration for people, in go-units' words: `About a minute`, `3 weeks`."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = int(seconds / 60)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for unit, length, limit in (("days", 24, 336), ("weeks", 168, 1440), ("months", 720, 17520)):
        if hours < limit:
            return f"{hours // length} {unit}"
    return f"{int(seconds / 3600 / 24 / 365)} years"
