"""Progress: plain lines where nobody watches, bars on a terminal, escapes nowhere."""

from __future__ import annotations

import os
import pty
from collections.abc import Callable
from typing import Any

import pytest

from bastide.cli.show import progress

PULL: list[dict[str, Any]] = [
    {"status": "Pulling from library/busybox", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
    {"status": "Downloading", "progressDetail": {"current": 500, "total": 2000}, "progress": "[=> ]", "id": "aaa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aaa"},
    {"status": "Digest: sha256:00"},
    {"status": "Status: Downloaded \x1b]0;evil\x07image"},
]
BUILD: list[dict[str, Any]] = [
    {"stream": "Step 1/1 : FROM scratch\n"},
    {"stream": "\x1b[91mwarning\n\x1b[0m"},
    {"aux": {"ID": "sha256:1"}},
]


def test_plain_lines(capfd: pytest.CaptureFixture[str]) -> None:
    found: list[dict[str, Any]] = []
    progress.show(PULL[:5], 2, None)
    progress.show(BUILD, 1, found.append)
    captured = capfd.readouterr()
    assert captured.err.splitlines() == [
        "latest: Pulling from library/busybox",
        "aaa: Pulling fs layer",
        "aaa: Pull complete",
        "Digest: sha256:00",
    ]
    assert captured.out == "Step 1/1 : FROM scratch\nwarning\n"
    assert found == [{"ID": "sha256:1"}]


def on_terminal(messages: list[dict[str, Any]], aux: Callable[[dict[str, Any]], None] | None = None) -> str:
    """What a terminal would get."""
    child, descriptor = pty.fork()
    if child == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "100"}
        try:
            progress.show(messages, 1, aux)
        finally:
            os._exit(0)
    seen = b""
    while True:
        try:
            block = os.read(descriptor, 65536)
        except OSError:
            break
        if not block:
            break
        seen += block
    os.waitpid(child, 0)
    os.close(descriptor)
    return seen.decode()


def test_bars_on_a_terminal() -> None:
    seen = on_terminal(PULL)
    assert "aaa Pull complete" in seen.replace("\x1b[0m", "").replace("  ", " ")
    assert "2kB" in seen
    assert "Digest: sha256:00" in seen
    assert "\x1b]0;evil" not in seen
    assert "\\x1b]0;evil\\x07image" in seen


def test_a_build_on_a_terminal() -> None:
    seen = on_terminal(BUILD)
    assert seen == "Step 1/1 : FROM scratch\r\nwarning\r\n"


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    seen = on_terminal(PULL[:4])
    assert "\x1b[3" not in seen, "a colour"
