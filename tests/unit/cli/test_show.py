"""Units, times, tables and safe text."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable
from typing import Any

import pytest

from bastide.cli.grammar import CommandError
from bastide.cli.show import moments, table, text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs import ps


@pytest.mark.parametrize(
    ("size", "precision", "expected"),
    [
        (0, 4, "0B"),
        (999, 4, "999B"),
        (1982000, 3, "1.98MB"),
        (1982000, 4, "1.982MB"),
        (1e9, 4, "1GB"),
        (123456, 3, "123kB"),
    ],
)
def test_sizes(size: float, precision: int, expected: str) -> None:
    assert units.human_size(size, precision) == expected


def test_binary_sizes() -> None:
    assert units.binary_size(424 << 10) == "424KiB"
    assert units.binary_size(25276063744) == "23.54GiB"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert units.human_duration(seconds) == expected


@pytest.mark.parametrize(
    ("text_form", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-24T10:52:28.806114659Z", 1795517548806114659),
        ("2026-11-24T12:52:28+02:00", 1795517548000000000),
        ("2000-02-29T00:00:00Z", 951782400 * 10**9),
        ("2026-11-24", 1795478400 * 10**9),
    ],
)
def test_times(text_form: str, expected: int) -> None:
    assert moments.parse(text_form) == expected


def test_timestamps() -> None:
    assert moments.timestamp("1234.5") == "1234.5"
    assert moments.timestamp("2026-11-24T10:52:28Z") == "1795517548.000000000"
    assert float(moments.timestamp("1h")) < float(moments.timestamp("1m"))
    with pytest.raises(CommandError, match='failed to parse value as time or duration: "x"'):
        moments.timestamp("x")


def test_local_times(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert moments.local(1795517548) == "2026-11-24 11:52:28 +0100 CET"
        assert moments.rfc3339(1795517548) == "2026-11-24T11:52:28+01:00"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_columns_are_ten_wide_at_least() -> None:
    lines = table.align([["A", "B", "C"], ["x", "0123456789", "y"]]).split("\n")
    assert lines == ["A         B            C", "x         0123456789   y"]


def test_a_name_cannot_forge_a_row(capfd: pytest.CaptureFixture[str]) -> None:
    table.columns(["NAME", "TAG"], [["web\nfake\trow", "x"]])
    assert capfd.readouterr().out == "NAME           TAG\nweb fake row   x\n"


LISTING = Listing("formatter.thing", {"ID": "THING ID", "Name": "NAME"}, ("ID", "Name"))
ROWS: list[dict[str, Callable[..., Any]]] = [
    {"ID": lambda: "1", "Name": lambda: "a", "Label": lambda name: name[:3]},
    {"ID": lambda: "22", "Name": lambda: "b<", "Label": lambda name: ""},
]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", "THING ID   NAME\n1          a\n22         b<\n"),
        ("table", "THING ID   NAME\n1          a\n22         b<\n"),
        ("table {{.Name}}\\t{{upper .ID}}", "NAME      THING ID\na         1\nb<        22\n"),
        ('table {{.ID}}\\t{{.Label "com.x.some-key"}}', "THING ID   some key\n1          com\n22         \n"),
        ("{{.ID}}\\t{{.Name}}", "1\ta\n22\tb<\n"),
        ("json", '{"ID":"1","Name":"a"}\n{"ID":"22","Name":"b\\u003c"}\n'),
    ],
)
def test_listings(capfd: pytest.CaptureFixture[str], form: str, expected: str) -> None:
    LISTING.print(form, ROWS)
    assert capfd.readouterr().out == expected


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("{{.Foo}}", "failed to execute template: "),
        ("{{.ID", "failed to parse template: "),
        ("table {{.Foo}}", "failed to execute template: "),
    ],
)
def test_bad_formats(form: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        LISTING.print(form, ROWS)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain text", "plain text"),
        ("\x1b]0;title\x07x", "\\x1b]0;title\\x07x"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("tab\tline\n", "tab\tline\n"),
        ("back\rspace\x08\x7f", "back\\x0dspace\\x08\\x7f"),
        ("evil\u202etxt", "evil\\u202etxt"),
        ("äöü 日本", "äöü 日本"),
    ],
)
def test_control_characters_are_shown_not_sent(raw: str, shown: str) -> None:
    assert text.safe(raw) == shown


def test_only_a_terminal_is_protected(capfd: pytest.CaptureFixture[str]) -> None:
    text.out("a\x1bb")
    assert capfd.readouterr().out == "a\x1bb\n"
    ours, theirs = pty.openpty()
    try:
        text._print(theirs, "a\x1bb")
        assert os.read(ours, 100) == b"a\\x1bb"
    finally:
        os.close(ours)
        os.close(theirs)


def test_nobody_reads_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(SystemExit) as raised:
        text.write(writer, b"x")
    os.close(writer)
    assert raised.value.code == 141


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], ""),
        ([{"PrivatePort": 80, "Type": "tcp"}], "80/tcp"),
        ([{"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"}], "0.0.0.0:8080->80/tcp"),
        (
            [
                {"PrivatePort": 80, "PublicPort": 8080, "IP": "0.0.0.0", "Type": "tcp"},
                {"PrivatePort": 80, "PublicPort": 8080, "IP": "::", "Type": "tcp"},
            ],
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        ),
        ([{"PrivatePort": n, "Type": "tcp"} for n in (82, 80, 81, 90)], "80-82/tcp, 90/tcp"),
        (
            [{"PrivatePort": n, "PublicPort": n, "IP": "0.0.0.0", "Type": "udp"} for n in (5000, 5001)],
            "0.0.0.0:5000-5001->5000-5001/udp",
        ),
    ],
)
def test_ports(items: list[dict[str, Any]], expected: str) -> None:
    assert ps.ports(items) == expected


def test_a_template_may_colour_but_values_may_not() -> None:
    child, descriptor = pty.fork()
    if child == 0:
        try:
            LISTING.print("\x1b[31m{{.Name}}\x1b[0m", [{"Name": lambda: "x\x1b]0;evil\x07"}])
        finally:
            os._exit(0)
    seen = os.read(descriptor, 1000)
    os.waitpid(child, 0)
    os.close(descriptor)
    assert seen == b"\x1b[31mx\\x1b]0;evil\\x07\x1b[0m\r\n"
