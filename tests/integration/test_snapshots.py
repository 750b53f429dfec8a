"""Snapshots and clones behind both walls."""

from __future__ import annotations

import json

import pytest
from tests.living import Daemon

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
