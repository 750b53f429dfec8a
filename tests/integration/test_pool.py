"""Warm VMs behind a real daemon: networks, the command line, restarts and SIGKILL."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.living import Daemon, links, processes_with, serving

pytestmark = pytest.mark.timeout(240)
RANDOM = "/proc/sys/kernel/random"


@pytest.fixture
def warm() -> Iterator[Daemon]:
    """A daemon of its own that has a pool."""
    with serving("wa", "10.96.0.0/16", "10.104.0.0/16", pool_memory=str(512 << 20)) as made:
        yield made


def state(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.ok("system", "pool", "--format", "json"))
    return found


def until(condition: Callable[[], bool], what: str) -> None:
    """Return when it holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def ready(daemon: Daemon, count: int = 1) -> None:
    """Wait until so many VMs with the image wait."""
    until(lambda: sum(each["Ready"] for each in state(daemon)["Shapes"] if each["Image"]) >= count, "no VM waits")


def test_each_has_its_own_network_and_name(warm: Daemon) -> None:
    warm.ok("system", "prewarm", "busybox")
    warm.ok("network", "create", "net")
    ready(warm)
    address = "ip -o -4 addr show dev eth0 | awk '{print $4}'"
    script = f"hostname; cat /sys/class/net/eth0/address; {address}; cat {RANDOM}/boot_id"
    seen = []
    for number, network in enumerate(("bridge", "net", "bridge")):
        name = f"vm{number}"
        warm.ok(
            "run",
            "-d",
            "--isolation",
            "vm",
            "--name",
            name,
            "--network",
            network,
            "busybox",
            "httpd",
            "-f",
            "-h",
            "/var/www",
        )
        seen.append(warm.ok("exec", name, "sh", "-c", script).split())
        record = warm.inspect(name)
        endpoint = record["NetworkSettings"]["Networks"][network]
        assert seen[-1][:2] == [record["Config"]["Hostname"], endpoint["MacAddress"]]
        assert seen[-1][2].partition("/")[0] == endpoint["IPAddress"]
        ready(warm)
    for column in range(4):
        assert len({words[column] for words in seen}) == 3
    first = warm.inspect("vm0")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    fetched = warm.ok("run", "--rm", "--isolation", "vm", "busybox", "wget", "-qO-", f"http://{first}/")
    assert fetched == "hello from the image"
    assert (
        warm.ok("run", "--rm", "--network", "net", "busybox", "wget", "-qO-", "http://vm1/") == "hello from the image"
    )


def test_sigkill_leaves_nobody_and_takes_nobody(warm: Daemon) -> None:
    before = {link for link in links() if not link.startswith("v")}
    for _ in range(2):
        assert warm.ok("run", "--rm", "--isolation", "vm", "busybox", "echo", "x") == "x"
    ready(warm)
    warm.ok("run", "-d", "--isolation", "vm", "--name", "kept", "busybox", "sleep", "1000")
    ready(warm)
    pool = str(warm.run_root / "qemu" / "pool")
    assert processes_with([pool])
    warm.stop(signal.SIGKILL)
    # The keeper of the one that was taken goes on: its name is all that it has of the pool.
    until(lambda: len(processes_with([pool])) == 1, "members outlive the daemon")
    assert not [link for link in links() if link.startswith("p") and link not in before]
    warm.start()
    assert warm.ok("exec", "kept", "echo", "alive") == "alive"
    assert state(warm)["Used"] == 0
    assert warm.ok("run", "--rm", "--isolation", "vm", "busybox", "echo", "again") == "again"
    ready(warm)
    warm.ok("rm", "-f", "kept")
    warm.stop()
    until(lambda: not processes_with([pool]), "members outlive the daemon that stopped")


def test_the_command_line_shows_and_sets(warm: Daemon) -> None:
    warm.ok("system", "prewarm", "busybox")
    ready(warm)
    lines = warm.ok("system", "pool").splitlines()
    assert lines[0].endswith("of 512MiB used")
    assert [line.split()[0] for line in lines if "256MiB" in line] == ["busybox", "<any>"]
    shown = warm.ok("system", "pool", "--memory", "0")
    assert shown.startswith("Off: it was turned off. ")
    assert "pool_memory" in shown
    until(lambda: not processes_with([str(warm.run_root / "qemu" / "pool")]), "members were not let go of")
    assert "Warm VMs: off: it was turned off" in warm.ok("info")
    assert warm.cli("system", "pool", "--memory", "-1").returncode == 1
    assert warm.cli("system", "prewarm", "nothing-of-the-kind").returncode == 1
