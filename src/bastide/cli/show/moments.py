"""Points in time: RFC 3339 to seconds, seconds to what docker prints. (`datetime` costs 3 ms to import.)"""

from __future__ import annotations

import time

from bastide.cli.grammar import CommandError
from bastide.cli.options.quantities import duration
from bastide.cli.show.units import human_duration

_NANO = 10**9


def parse(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time. Raises ValueError."""
    date, _, rest = text.replace(" ", "T", 1).partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    clock, offset = _zone(rest)
    whole, _, fraction = clock.partition(".")
    hour, minute, second = (*(int(part) for part in whole.split(":")), 0, 0)[:3] if whole else (0, 0, 0)
    seconds = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset
    return seconds * _NANO + int(fraction[:9].ljust(9, "0") or 0)


def _zone(rest: str) -> tuple[str, int]:
    """The clock without its zone, and the zone in seconds east of Greenwich."""
    if rest.endswith(("Z", "z")):
        return rest[:-1], 0
    for sign in "+-":
        clock, mark, zone = rest.partition(sign)
        if mark:
            hours, _, minutes = zone.partition(":")
            return clock, int(f"{sign}1") * (int(hours) * 3600 + int(minutes or 0) * 60)
    return rest, 0


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar (H. Hinnant, days_from_civil)."""
    year -= month <= 2
    era_year = year % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return (year // 400) * 146097 + era_year * 365 + era_year // 4 - era_year // 100 + of_year - 719468


def timestamp(word: str) -> str:
    """`42m` (ago), a date, a time or seconds, as the API takes it: `seconds.nanoseconds`. Raises CommandError."""
    if not word.replace(".", "", 1).strip("0123456789"):
        return word
    try:
        moment = time.time_ns() - duration(word)
    except ValueError:
        try:
            moment = parse(word)
        except ValueError:
            raise CommandError(f'failed to parse value as time or duration: "{word}"') from None
        if not word.endswith(("Z", "z")) and _zone(word.replace(" ", "T").partition("T")[2])[1] == 0:
            moment += _local_offset(moment)
    return f"{moment // _NANO}.{moment % _NANO:09}"


def _local_offset(moment: int) -> int:
    """What to add to a time that was read as UTC but meant this host's zone."""
    return -time.localtime(moment // _NANO).tm_gmtoff * _NANO


def local(seconds: float) -> str:
    """As Go prints a time: `2026-01-02 15:04:05 +0100 CET`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def rfc3339(seconds: float) -> str:
    """`2026-01-02T15:04:05+01:00`."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
    return text[:-5] + "Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def ago(seconds: float) -> str:
    """How long ago a time was: `2 minutes ago`."""
    return human_duration(time.time() - seconds) + " ago"
