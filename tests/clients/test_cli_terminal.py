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
    """A command in a terminal of its own, which ends with the block at the latest."""

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

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
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


@pytest.fixture
def echo(docker: Docker, name: str) -> str:
    """A container that says again what is typed."""
    docker("run", "-dit", "--name", name, "busybox", "cat")
    return name


def leave(screen: Terminal, keys: bytes) -> None:
    """Once what is typed comes back, press the keys: the client ends."""
    screen.type(b"line\r")
    screen.await_text("line\r\nline")
    screen.type(keys)
    screen.process.wait(20)


@pytest.mark.parametrize(
    ("flags", "keys"),
    # Of ones own: the usual ones are then as any other.
    [([], b"\x10\x11"), (["--detach-keys", "ctrl-a,x"], b"\x10\x11\r\x01x")],
)
def test_keys_that_leave_it_running(
    docker: Docker, program: list[str], echo: str, flags: list[str], keys: bytes
) -> None:
    with Terminal(docker, program, "attach", *flags, echo) as screen:
        leave(screen, keys)
    assert running(docker, echo)


@pytest.mark.parametrize("flags", [[], ["--detach-keys", "ctrl-a,x"]])
def test_the_usual_keys_where_it_is_begun(docker: Docker, program: list[str], name: str, flags: list[str]) -> None:
    with Terminal(docker, program, "run", *flags, "-it", "--name", name, "busybox", "cat") as screen:
        leave(screen, b"\x01x" if flags else b"\x10\x11")
    assert running(docker, name)


@pytest.mark.parametrize("flags", [[], ["--detach-keys", "ctrl-a,x"]])
def test_keys_that_leave_an_exec_running(docker: Docker, program: list[str], echo: str, flags: list[str]) -> None:
    with Terminal(docker, program, "exec", *flags, "-it", echo, "sh", "-c", "exec cat # left alone") as screen:
        leave(screen, b"\x01x" if flags else b"\x10\x11")
    assert docker.ok("exec", echo, "ps").count(" cat") == 2


def test_the_usual_keys_mean_nothing_beside_others(docker: Docker, program: list[str], echo: str) -> None:
    with Terminal(docker, program, "attach", "--detach-keys", "ctrl-a,x", echo) as screen:
        screen.type(b"\x10\x11\rstill\r")
        screen.await_text("still\r\n(?s:.*)still")
        assert screen.process.poll() is None


def test_keys_that_nobody_has(docker: Docker, program: list[str], echo: str) -> None:
    with Terminal(docker, program, "attach", "--detach-keys", "ctrl-nothing", echo) as screen:
        screen.await_text("(?i)invalid.*(key|escape)|unknown character|received 400")
        assert screen.process.wait(20) == 1
    assert running(docker, echo)


@contextlib.contextmanager
def counting(
    docker: Docker, program: list[str], name: str, verb: str, *flags: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The client of a process that says when it is interrupted: the one that began it, or one that came later."""
    words = ["busybox", "sh", "-c", COUNT]
    if verb == "attach":
        docker("run", "-d", "--name", name, *words)
    argv = [*program, verb, *flags, *(["--name", name, *words] if verb == "run" else [name])]
    environment = {**docker.environment, "BASTIDE_HOST": docker.host}
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as client:
        try:
            docker.until(lambda: "ready" in docker("logs", name, code=None).out, "the process")
            asked = f"events --since 1m --until 0s --filter container={name} --filter event=attach".split()
            docker.until(lambda: docker.ok(*asked), "the client")
            # It has yet to see to its signals.
            time.sleep(0.5)
            yield client
        finally:
            client.kill()


@pytest.mark.parametrize("verb", ["run", "attach"])
def test_signals_reach_the_process(docker: Docker, program: list[str], name: str, verb: str) -> None:
    with counting(docker, program, name, verb) as client:
        client.send_signal(signal.SIGINT)
        docker.until(lambda: "caught" in docker.ok("logs", name), "the signal")
        assert running(docker, name)


@pytest.mark.parametrize("verb", ["run", "attach"])
def test_signals_that_stay_here(docker: Docker, program: list[str], name: str, verb: str) -> None:
    """With `--sig-proxy=false` the process knows nothing of what the client is sent."""
    with counting(docker, program, name, verb, "--sig-proxy=false") as client:
        client.send_signal(signal.SIGINT)
        time.sleep(0.5)
    assert running(docker, name)
    assert "caught" not in docker.ok("logs", name)
