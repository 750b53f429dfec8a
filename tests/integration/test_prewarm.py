"""A template keeps the beginnings of the process that most containers have: every other one gets what it asked for."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.living import CLI, Daemon


@pytest.fixture(scope="module")
def ready(daemon: Daemon) -> Iterator[Daemon]:
    """A daemon that has the image's own template."""
    daemon.clear()
    daemon.ok("system", "prewarm", "busybox")
    assert any(b'"image":""' not in path.read_bytes() for path in daemon.data.glob("templates/*/manifest"))
    yield daemon
    daemon.clear()


def run(daemon: Daemon, *words: str, stdin: bytes | None = None) -> str:
    return daemon.ok("run", "--rm", "--isolation=vm", *words, stdin=stdin).strip()


def test_output_errors_and_exit_codes(ready: Daemon) -> None:
    done = ready.cli("run", "--rm", "--isolation=vm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    done = ready.cli("run", "--rm", "--isolation=vm", "busybox", "no-such-program")
    assert done.returncode == 127
    assert "executable file not found in $PATH" in done.stderr


def test_standard_input(ready: Daemon) -> None:
    assert run(ready, "-i", "busybox", "cat", stdin=b"through a pipe\n") == "through a pipe"
    # Nobody asked for it: there is nothing to read, at once.
    assert run(ready, "busybox", "sh", "-c", "cat; readlink /proc/self/fd/0", stdin=b"lost\n") == "/dev/null"


def test_a_terminal(ready: Daemon) -> None:
    master, slave = pty.openpty()
    words = [
        "run",
        "--rm",
        "-it",
        "--isolation=vm",
        "busybox",
        "sh",
        "-c",
        "tty; read line; echo got $line; ps -o sid=",
    ]
    with subprocess.Popen([*CLI, *words], env=ready.environment, stdin=slave, stdout=slave, stderr=slave) as client:
        os.close(slave)
        seen, deadline, told = b"", time.monotonic() + 60, False
        while client.poll() is None and time.monotonic() < deadline:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    seen += os.read(master, 4096)
                except OSError:
                    break
            if b"/dev/pts/" in seen and not told:
                os.write(master, b"word\n")
                told = True
        assert client.wait(10) == 0
    os.close(master)
    assert b"/dev/pts/0" in seen
    assert b"got word" in seen


def mounts(daemon: Daemon, *flags: str) -> dict[str, str]:
    """Whether / and /sys may be written to."""
    script = '$2 == "/" || $2 == "/sys" { print $2, substr($4, 1, 2) }'
    return dict(line.split() for line in run(daemon, *flags, "busybox", "awk", script, "/proc/mounts").splitlines())


def test_what_may_be_written_to(ready: Daemon) -> None:
    assert mounts(ready) == {"/": "rw", "/sys": "ro"}
    assert mounts(ready, "--read-only") == {"/": "ro", "/sys": "ro"}
    assert mounts(ready, "--privileged") == {"/": "rw", "/sys": "rw"}


def test_another_user_owns_its_streams(ready: Daemon) -> None:
    script = "id -u; echo $HOME; echo written >/proc/self/fd/1"
    assert run(ready, "--user=web", "busybox", "sh", "-c", script).split() == ["1000", "/home", "written"]


def test_more_words_than_a_page_holds(ready: Daemon) -> None:
    values = [f"--env=V{number}={'x' * 500}" for number in range(300)]
    assert run(ready, *values, "busybox", "sh", "-c", "echo ${#V0} ${#V299} $HOME") == "500 500 /root"


@pytest.mark.parametrize(
    ("flags", "names"), [(["--network=one"], "eth0"), (["--network=one", "--network=two"], "eth0 eth1")]
)
def test_names_of_interfaces(ready: Daemon, flags: list[str], names: str) -> None:
    for network in ("one", "two"):
        ready.cli("network", "create", network)
    script = "ip -o -4 addr | awk '$2 != \"lo\" { print $2 }'; ip route | awk '/^default/ { print \"by\", $5 }'"
    said = run(ready, *flags, "busybox", "sh", "-c", script).split("\nby ")
    assert said == [names.replace(" ", "\n"), "eth0"]


def test_a_network_that_is_left_and_another_that_is_joined(ready: Daemon) -> None:
    for network in ("one", "two"):
        ready.cli("network", "create", network)
    ready.ok("run", "-d", "--name=moved", "--isolation=vm", "--network=one", "busybox", "sleep", "600")
    ready.ok("network", "disconnect", "one", "moved")
    ready.ok("network", "connect", "two", "moved")
    said = ready.ok("exec", "moved", "sh", "-c", "ip -o -4 addr | awk '$2 != \"lo\" { print $2, $4 }'")
    (address,) = [end["IPAddress"] for end in ready.inspect("moved")["NetworkSettings"]["Networks"].values()]
    assert said.split() == ["eth0", f"{address}/24"] or said.split() == ["eth0", f"{address}/16"]
    ready.ok("rm", "-f", "moved")


def test_an_exec_is_in_the_containers_namespaces(ready: Daemon) -> None:
    ready.ok("run", "-d", "--name=host", "--isolation=vm", "busybox", "sleep", "600")
    script = "tr '\\0' ' ' </proc/1/cmdline; for one in 1 self; do readlink /proc/$one/ns/mnt; done | sort -u | wc -l"
    for _ in range(2):
        assert ready.ok("exec", "host", "sh", "-c", script).split() == ["sleep", "600", "1"]
    ready.ok("rm", "-f", "host")
