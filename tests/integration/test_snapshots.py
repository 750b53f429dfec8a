"""Snapshots and clones behind both walls."""

from __future__ import annotations

import json
import signal

import pytest
from tests.living import Daemon

from bastide.host import cgroups

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=["container", "vm"])
def name(request: pytest.FixtureRequest, daemon: Daemon):  # type: ignore[no-untyped-def]
    """A running container whose file system can be changed."""
    daemon.ok("run", "-d", "--isolation", request.param, "--name", "origin", "busybox", "sleep", "100000")
    yield "origin"
    daemon.clear()
    for line in daemon.ok("snapshot", "ls", "--format", "{{.Container}} {{.Tag}}").splitlines():
        daemon.ok("snapshot", "rm", *line.split())


def test_back_to_a_snapshot(daemon: Daemon, name: str) -> None:
    daemon.ok("exec", name, "sh", "-c", "echo first > /root/state; sync")
    daemon.ok("snapshot", "create", name, "one")
    daemon.ok("exec", name, "sh", "-c", "echo second > /root/state; touch /root/new; sync")
    daemon.ok("snapshot", "create", name, "two")
    daemon.ok("snapshot", "restore", name, "one")
    assert daemon.ok("exec", name, "sh", "-c", "cat /root/state; ls /root") == "first\nstate"
    daemon.ok("snapshot", "restore", name, "two")
    assert daemon.ok("exec", name, "cat", "/root/state") == "second"
    listed = [json.loads(line) for line in daemon.ok("snapshot", "ls", "--format", "json").splitlines()]
    assert [row["Tag"] for row in listed] == ["one", "two"]


def test_a_clone_is_another_container(daemon: Daemon, name: str) -> None:
    daemon.ok("exec", name, "sh", "-c", "echo shared > /root/state; sync")
    daemon.ok("clone", name, "copy")
    if not daemon.inspect("copy")["State"]["Running"]:
        daemon.ok("start", "copy")
    assert daemon.ok("exec", "copy", "cat", "/root/state") == "shared"
    daemon.ok("exec", "copy", "sh", "-c", "echo changed > /root/state; sync")
    assert daemon.ok("exec", name, "cat", "/root/state") == "shared"
    addresses = {daemon.inspect(one)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for one in (name, "copy")}
    assert len(addresses) == 2
    first, second = (daemon.ok("exec", one, "head", "-c16", "/proc/sys/kernel/random/uuid") for one in (name, "copy"))
    assert first != second


@pytest.mark.parametrize("tag", ["../x", "a/b", "-x", "a b", "x" * 200])
def test_bad_tags_are_refused(daemon: Daemon, name: str, tag: str) -> None:
    done = daemon.cli("snapshot", "create", name, "--", tag)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) <= 2


def test_a_tag_is_taken_once(daemon: Daemon, name: str) -> None:
    daemon.ok("snapshot", "create", name, "one")
    done = daemon.cli("snapshot", "create", name, "one")
    assert "exists already" in done.stderr


def test_an_unknown_snapshot(daemon: Daemon, name: str) -> None:
    assert "No such snapshot" in daemon.cli("snapshot", "restore", name, "nowhere").stderr


def test_the_networks_that_it_was_connected_to_while_it_ran(daemon: Daemon, name: str) -> None:
    daemon.ok("network", "create", "meadow")
    daemon.ok("network", "connect", "--link-local-ip", "169.254.7.7", "meadow", name)
    daemon.ok("network", "disconnect", "bridge", name)
    assert "169.254.7.7/" in daemon.ok("exec", name, "ip", "addr")
    daemon.ok("snapshot", "create", name, "one")
    daemon.ok("clone", name, "copy")
    daemon.ok("snapshot", "restore", name, "one")
    if not daemon.inspect("copy")["State"]["Running"]:
        daemon.ok("start", "copy")
    own = [daemon.inspect(one)["NetworkSettings"]["Networks"] for one in (name, "copy")]
    assert [list(networks) for networks in own] == [["meadow"], ["meadow"]]
    assert own[0]["meadow"]["IPAddress"] != own[1]["meadow"]["IPAddress"]
    assert own[0]["meadow"]["MacAddress"] != own[1]["meadow"]["MacAddress"]
    assert "169.254.7.7/" not in daemon.ok("exec", "copy", "ip", "addr"), "it has none of the other's addresses"
    for one, other in ((name, "copy"), ("copy", name)):
        assert "1 packets received" in daemon.ok("exec", one, "ping", "-c1", "-w10", other)
    daemon.clear()
    daemon.ok("network", "rm", "meadow")


def test_a_snapshot_of_what_is_paused(daemon: Daemon, name: str) -> None:
    daemon.ok("exec", name, "sh", "-c", "echo first > /root/state")
    daemon.ok("pause", name)
    daemon.ok("snapshot", "create", name, "one")
    assert daemon.inspect(name)["State"]["Status"] == "paused"
    daemon.ok("unpause", name)
    daemon.ok("exec", name, "sh", "-c", "echo second > /root/state")
    daemon.ok("snapshot", "restore", name, "one")
    assert daemon.inspect(name)["State"]["Status"] == "running"
    assert daemon.ok("exec", name, "sh", "-c", "cat /root/state; echo third > /root/state") == "first"


def test_a_tree_of_snapshots(daemon: Daemon, name: str) -> None:
    for tag in ("one", "two"):
        daemon.ok("snapshot", "create", name, tag)
    daemon.ok("snapshot", "restore", name, "one")
    daemon.ok("snapshot", "create", "--disk-only", name, "three")
    lines = daemon.ok("snapshot", "ls", "--no-trunc", "--format", "json").splitlines()
    listed = {row["Tag"]: row for row in map(json.loads, lines)}
    assert [listed[tag]["Parent"] for tag in ("one", "two", "three")] == ["", listed["one"]["ID"], listed["one"]["ID"]]
    daemon.ok("snapshot", "rm", name, "one")
    shown = json.loads(daemon.ok("snapshot", "inspect", name, "two"))[0]
    assert not shown.get("Parent")
    daemon.ok("snapshot", "restore", name, "three")
    assert daemon.inspect(name)["State"]["Running"]


def test_what_a_killed_daemon_held_goes_on(daemon: Daemon) -> None:
    """Files are copied while nothing writes to them: who is killed meanwhile leaves a frozen container."""
    identity = daemon.ok("run", "-d", "--name", "held", "busybox", "sleep", "1000")
    by_hand = daemon.ok("run", "-d", "--name", "by-hand", "busybox", "sleep", "1000")
    daemon.ok("pause", "by-hand")
    daemon.stop(signal.SIGKILL)
    cgroups.Group(f"{daemon.settings['cgroup_parent']}/{identity}").freeze(True)
    daemon.start()
    assert daemon.ok("exec", "held", "echo", "goes on") == "goes on"
    assert daemon.inspect(by_hand)["State"]["Paused"]
    daemon.ok("rm", "-f", "held", "by-hand")
