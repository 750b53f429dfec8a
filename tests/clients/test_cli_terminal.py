"""Terminals, signals and leaving: docker's command line and bastide's own, each in a real terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.clients.conftest import Docker
from tests.clients.engines import PEER
from tests.living import CLI

COUNT = "trap 'echo caught' INT; echo ready; while true; do sleep 0.1; done"


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, docker: Docker, program: list[str], *args: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**docker.environment, "TERM": "xterm", "BASTIDE_HOST": docker.host}
        self.process = subprocess.Popen(
            [*program, *args], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def await_text(self, pattern: str, seconds: float = 20) -> None:
        """Read until the pattern is on the screen."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.seen!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                # Linux answers with an error when the last process has let the terminal go.
                with contextlib.suppress(OSError):
                    self.seen += os.read(self._ours, 4096).decode(errors="replace")

    def end(self) -> int:
        """Its exit status."""
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            os.close(self._ours)


PROGRAMS = [pytest.param(["docker"], id="docker")]
if PEER == "bastide":
    PROGRAMS.append(pytest.param(CLI, id="bastide"))
pytestmark = pytest.mark.parametrize("program", PROGRAMS)


@pytest.fixture
def name(docker: Docker) -> Iterator[str]:
    yield "term"
    docker("rm", "-f", "term", code=None)


def running(docker: Docker, name: str) -> bool:
    return docker.field(name, "{{.State.Running}}") == "true"


def test_keys_that_leave_it_running(docker: Docker, program: list[str], name: str) -> None:
    """The usual ones: Control-P, Control-Q."""
    screen = Terminal(docker, program, "run", "-it", "--name", name, "busybox", "sh", "-c", "echo ready; cat")
    screen.await_text("ready")
    screen.type(b"line\r")
    screen.await_text("line\r\nline")
    screen.type(b"\x10\x11")
    screen.end()
    assert running(docker, name)


def test_keys_of_ones_own(docker: Docker, program: list[str], name: str) -> None:
    docker("run", "-dit", "--name", name, "busybox", "sh", "-c", "echo ready; cat")
    screen = Terminal(docker, program, "attach", "--detach-keys", "ctrl-a,x", name)
    screen.type(b"one\r")
    screen.await_text("one\r\none")
    # The usual ones are now as any other.
    screen.type(b"\x10\x11\r")
    screen.type(b"two\r")
    screen.await_text("two[^1]*two")
    screen.type(b"\x01x")
    screen.end()
    assert running(docker, name)


def test_keys_that_nobody_has(docker: Docker, program: list[str], name: str) -> None:
    docker("run", "-dit", "--name", name, "busybox", "cat")
    screen = Terminal(docker, program, "attach", "--detach-keys", "ctrl-nothing", name)
    screen.await_text("(?i)invalid.*(key|escape)|unknown character|received 400")
    assert screen.end() == 1
    assert running(docker, name)


@pytest.mark.parametrize("verb", ["run", "attach"])
def test_signals_reach_the_process(docker: Docker, program: list[str], name: str, verb: str) -> None:
    if verb == "run":
        begun = _begin(docker, program, "run", "--name", name, "busybox", "sh", "-c", COUNT)
    else:
        docker("run", "-d", "--name", name, "busybox", "sh", "-c", COUNT)
        begun = _begin(docker, program, "attach", name)
    docker.until(lambda: "ready" in docker("logs", name, code=None).out, "the process")
    time.sleep(0.5)
    begun.send_signal(signal.SIGINT)
    docker.until(lambda: "caught" in docker.ok("logs", name), "the signal")
    assert running(docker, name)
    docker("rm", "-f", name)
    begun.communicate(timeout=20)


@pytest.mark.parametrize("verb", ["run", "attach"])
def test_signals_that_stay_here(docker: Docker, program: list[str], name: str, verb: str) -> None:
    """With `--sig-proxy=false` the process knows nothing of what the client is sent."""
    if verb == "run":
        begun = _begin(docker, program, "run", "--sig-proxy=false", "--name", name, "busybox", "sh", "-c", COUNT)
    else:
        docker("run", "-d", "--name", name, "busybox", "sh", "-c", COUNT)
        begun = _begin(docker, program, "attach", "--sig-proxy=false", name)
    docker.until(lambda: "ready" in docker("logs", name, code=None).out, "the process")
    time.sleep(0.5)
    begun.send_signal(signal.SIGINT)
    time.sleep(0.5)
    begun.kill()
    begun.communicate(timeout=20)
    assert running(docker, name)
    assert "caught" not in docker.ok("logs", name)


def _begin(docker: Docker, program: list[str], *args: str) -> subprocess.Popen[bytes]:
    environment = {**docker.environment, "BASTIDE_HOST": docker.host}
    return subprocess.Popen([*program, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
