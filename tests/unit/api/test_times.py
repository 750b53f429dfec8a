from __future__ import annotations

import time

import pytest

from bastide.api.times import SECOND, moment, span
from bastide.model.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1136073845", 1136073845 * SECOND),
        ("1136073845.000000001", 1136073845 * SECOND + 1),
        ("1136073845.5", 1136073845 * SECOND + SECOND // 2),
        ("2006-01-02T15:04:05Z", 1136214245 * SECOND),
        ("2006-01-02T15:04:05.000000007Z", 1136214245 * SECOND + 7),
        ("2006-01-02T15:04:05+07:00", (1136214245 - 7 * 3600) * SECOND),
        ("2006-01-02T15:04", 1136214240 * SECOND),
        ("2006-01-02", 1136160000 * SECOND),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert moment(text) == expected


def test_durations_are_ago() -> None:
    assert abs(moment("1h30m") - (time.time_ns() - 5400 * SECOND)) < SECOND
    assert abs(moment("1.5s") - (time.time_ns() - 3 * SECOND // 2)) < SECOND


@pytest.mark.parametrize("text", ["", "x", "2006-13-01", "1h x", "2006-01-02T25:00:00Z", "-5", "\uff19", "1e5"])
def test_no_moments(text: str) -> None:
    with pytest.raises(InvalidArgument):
        moment(text)


# Expected: github.com/docker/go-units, duration_test.go.
@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.45, "Less than a second"),
        (1, "1 second"),
        (47, "47 seconds"),
        (60, "About a minute"),
        (180, "3 minutes"),
        (35 * 60, "35 minutes"),
        (60 * 60, "About an hour"),
        (60 * 60 + 45 * 60, "2 hours"),
        (3 * 3600, "3 hours"),
        (35 * 3600, "35 hours"),
        (48 * 3600, "2 days"),
        (5 * 86400, "5 days"),
        (14 * 86400, "2 weeks"),
        (4 * 7 * 86400, "4 weeks"),
        (90 * 86400, "3 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_spans(seconds: float, expected: str) -> None:
    assert span(seconds) == expected
