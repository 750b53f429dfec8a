"""Times as Docker writes them: RFC 3339 in UTC with nanoseconds."""

from __future__ import annotations

import time


def now() -> str:
    """The present as `2026-01-02T03:04:05.678901234Z`."""
    return text(time.time_ns())


def text(nanoseconds: int) -> str:
    """A time in nanoseconds since the epoch, written out."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}Z"
