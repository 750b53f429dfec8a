"""What should run after the daemon was killed, or the host went down, runs; health checks go on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from tests.living import Daemon, mounts_below, processes_with, serving

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def victim() -> Iterator[Daemon]:
    """A daemon of its own, to be killed."""
    with serving("ad", "10.97.0.0/16", "10.96.0.0/16") as made:
        yield made


def until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(0.05)


def running(daemon: Daemon) -> set[str]:
    return set(daemon.ok("ps", "--filter", "status=running", "--format", "{{.Names}}").split())


POLICIES = {
    "always": ("--restart", "always"),
    "unless-stopped": ("--restart", "unless-stopped"),
    "on-failure": ("--restart", "on-failure"),
    "no": (),
}


def begin(daemon: Daemon, isolation: str) -> None:
    """One container of each policy that runs, and one of each that was stopped by hand."""
    for policy, flags in POLICIES.items():
        for name in (policy, f"{policy}-by-hand"):
            daemon.ok("run", "-d", "--isolation", isolation, "--name", name, *flags, "busybox", "sleep", "10000")
    daemon.ok("stop", "-t", "0", *(f"{policy}-by-hand" for policy in POLICIES))


AGAIN = {"always", "always-by-hand", "unless-stopped", "on-failure"}
"""What Docker starts again: `always` even where it was stopped by hand, `on-failure` as nobody saw a good end."""


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_containers_that_die_while_the_daemon_is_dead(victim: Daemon, isolation: str) -> None:
    begin(victim, isolation)
    pids = [victim.inspect(name)["State"]["Pid"] for name in POLICIES]
    victim.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    victim.start()
    until(lambda: running(victim) == AGAIN, "what should run")
    assert victim.inspect("no")["State"]["ExitCode"] != 0
    assert victim.ok("exec", "always", "echo", "here") == "here"


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_what_outlives_the_daemon_stays_as_it_is(victim: Daemon, isolation: str) -> None:
    begin(victim, isolation)
    before = {name: victim.inspect(name)["State"]["StartedAt"] for name in POLICIES}
    victim.stop(signal.SIGKILL)
    victim.start()
    until(lambda: running(victim) == {*POLICIES, "always-by-hand"}, "what should run")
    assert {name: victim.inspect(name)["State"]["StartedAt"] for name in POLICIES} == before


def reboot(daemon: Daemon) -> None:
    """What a loss of power leaves: the data, and nothing of /run, of processes, mounts and networks."""
    daemon.stop(signal.SIGKILL)
    for line in processes_with([str(daemon.base)]):
        try:
            os.kill(int(line.split()[0]), signal.SIGKILL)
        except ProcessLookupError:
            continue
    until(lambda: not processes_with([str(daemon.base)]), "the end of all processes")
    for line in reversed(mounts_below(daemon.base)):
        subprocess.run(["umount", "-l", line], check=False)
    daemon._remove_network()
    shutil.rmtree(daemon.run_root)


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_a_reboot(victim: Daemon, isolation: str) -> None:
    begin(victim, isolation)
    reboot(victim)
    victim.start()
    until(lambda: running(victim) == AGAIN, "what should run")
    assert victim.inspect("no")["State"]["ExitCode"] == 255
    assert victim.ok("exec", "unless-stopped", "echo", "here") == "here"


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_health_checks_go_on(victim: Daemon, isolation: str) -> None:
    check = ("--health-cmd", "test ! -e /ill", "--health-interval", "200ms", "--health-retries", "2")
    victim.ok("run", "-d", "--isolation", isolation, "--name", "box", *check, "busybox", "sleep", "10000")
    until(lambda: victim.inspect("box")["State"]["Health"]["Status"] == "healthy", "health")
    victim.stop(signal.SIGKILL)
    victim.start()
    assert victim.inspect("box")["State"]["Health"]["Status"] == "healthy"
    victim.ok("exec", "box", "touch", "/ill")
    until(lambda: victim.inspect("box")["State"]["Health"]["Status"] == "unhealthy", "illness")
