"""Limits behind both walls: honoured, changed while it runs, or refused by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from tests.living import Daemon

pytestmark = pytest.mark.timeout(300)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def cleared(daemon: Daemon) -> Iterator[None]:
    """What a test leaves behind is removed."""
    yield
    daemon.clear()


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_limits_that_change_while_it_runs(daemon: Daemon, isolation: str) -> None:
    flags = ("--cpus", "1.5", "--cpuset-cpus", "0", "--pids-limit", "20", "--memory", "200m", "--cpu-shares", "512")
    daemon.ok("run", "-d", "--isolation", isolation, "--name", "box", *flags, "busybox", "sleep", "1000")
    host = daemon.inspect("box")["HostConfig"]
    assert (host["NanoCpus"], host["CpusetCpus"], host["PidsLimit"]) == (1_500_000_000, "0", 20)
    forks = "i=0; while [ $i -lt 40 ]; do sleep 20 & i=$((i+1)); done; wait"
    assert "can't fork" in daemon.cli("exec", "box", "sh", "-c", forks).stderr
    until(lambda: daemon.cli("exec", "box", "sh", "-c", "sleep 0").returncode == 0)
    grab = "dd if=/dev/zero of=/dev/null bs=100M count=1 2>/dev/null"
    daemon.ok("exec", "box", "sh", "-c", grab)
    daemon.ok("update", "--memory", "60m", "--memory-swap", "-1", "--cpus", "0.5", "--pids-limit", "30", "box")
    assert daemon.cli("exec", "box", "sh", "-c", grab).returncode != 0
    daemon.ok("update", "--memory", "150m", "--memory-swap", "-1", "box")
    daemon.ok("exec", "box", "sh", "-c", grab)


def test_a_vm_that_runs_grows_no_further_than_it_began(daemon: Daemon) -> None:
    daemon.ok("run", "-d", "--isolation", "vm", "--name", "box", "busybox", "sleep", "1000")
    for flags, said in (
        (("--memory", "8g", "--memory-swap", "-1"), "cannot grow beyond"),
        (("--cpus", "2"), "cannot use more than"),
    ):
        done = daemon.cli("update", *flags, "box")
        assert said in done.stderr
        assert "stop it first" in done.stderr


def test_processors_of_a_vm(daemon: Daemon) -> None:
    count = ("grep", "-c", "^processor", "/proc/cpuinfo")
    assert daemon.ok("run", "--rm", "--isolation", "vm", "--cpus", "2", "busybox", *count) == "2"


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (("--oom-kill-disable", "--memory", "64m"), "--oom-kill-disable"),
        (("--security-opt", "apparmor=mine"), "--security-opt apparmor"),
        (("--device", "/dev/null"), "--device"),
    ],
)
def test_what_a_vm_refuses(daemon: Daemon, flags: tuple[str, ...], name: str) -> None:
    done = daemon.cli("create", "--isolation", "vm", *flags, "busybox", "true")
    assert done.returncode != 0
    assert f"isolation vm does not offer {name}" in done.stderr


def test_a_sysctl_that_does_not_exist(daemon: Daemon) -> None:
    done = daemon.cli("run", "--rm", "--isolation", "vm", "--sysctl", "net.nothing=1", "busybox", "true")
    assert done.returncode != 0
    assert "/proc/sys/net/nothing" in done.stderr
