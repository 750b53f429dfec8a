"""SIGKILL at any moment: nothing is lost, nothing is left. The truth is read from the host afterwards."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import CLI, Daemon, busybox_archive, links, mounts_below, processes_with, serving
from tests.registry import Registry

ROUNDS = int(os.environ.get("BASTIDE_CRASH_ROUNDS", "100"))


@pytest.fixture
def victim() -> Iterator[Daemon]:
    """A daemon of its own, to be killed."""
    with serving("cr", "10.98.0.0/16", "10.102.0.0/16", prepared_namespaces="2") as made:
        yield made


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def cgroups(parent: str) -> list[str]:
    """Cgroups below `parent` in any hierarchy."""
    found = []
    for top in Path("/sys/fs/cgroup").glob(f"**/{parent}"):
        found += [str(path) for path in top.iterdir() if path.is_dir()]
    return found


def assert_clean(daemon: Daemon, before: list[str]) -> None:
    """Nothing of any container is left on the host, once the daemon has had a moment to tidy up."""
    deadline = time.monotonic() + 30
    while True:
        left = {
            "processes": [line for line in processes_with([str(daemon.base)]) if "bastide.daemon" not in line],
            "cgroups": cgroups(daemon.settings["cgroup_parent"]),
            "mounts": [m for m in mounts_below(daemon.base) if "/overlay/" in m or "/roots/" in m],
            "run": [str(p) for p in (daemon.run_root / "containers").glob("*")],
            "data": [str(p) for p in (daemon.data / "containers").glob("*")],
        }
        if not any(left.values()):
            break
        assert time.monotonic() < deadline, json.dumps(left, indent=1)
        time.sleep(0.2)
    # Prepared namespaces and the bridge itself are the daemon's own; they go when it is closed. The kernel takes the
    # devices of a namespace away some time after the namespace.
    while True:
        strangers = [link for link in links() if link not in before and daemon.settings["bridge"] not in link]
        namespaces = list((daemon.run_root / "netns").glob("*"))
        if len(strangers) <= len(namespaces):
            break
        assert time.monotonic() < deadline, (strangers, namespaces)
        time.sleep(0.2)


def start_work(daemon: Daemon, reference: str, number: int, rng: random.Random) -> list[subprocess.Popen[bytes]]:
    """A few commands at once, as users would give them."""
    # No name is the beginning of an id, which is hexadecimal: the witness is nobody else's.
    name = f"job{number}"
    choices = [
        ["run", "-d", "--name", name, "busybox", "sleep", "1000"],
        ["run", "--rm", "--name", name, "busybox", "true"],
        ["create", "--name", name, "-v", f"vol{number % 3}:/data", "busybox", "true"],
        ["pull", "-q", reference],
        ["rm", "-f", f"job{number - 1}"],
        ["stop", "-t", "0", f"job{number - 2}"],
        ["restart", "-t", "0", f"job{number - 1}"],
        ["rmi", "-f", reference],
    ]
    return [
        subprocess.Popen(
            [*CLI, *args],
            env=daemon.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for args in rng.sample(choices, 3)
    ]


@pytest.mark.timeout(1200)
def test_killed_at_random_points(victim: Daemon, registry: Registry, tmp_path: Path) -> None:
    reference = registry.fill(busybox_archive(tmp_path / "other.tar", config={"Labels": {"a": "b"}}), "other:1")
    before = links()
    seed = int.from_bytes(os.urandom(4))
    rng = random.Random(seed)
    victim.ok("run", "-d", "--name", "witness", "busybox", "sleep", "100000")
    pid = victim.inspect("witness")["State"]["Pid"]
    for number in range(ROUNDS):
        work = start_work(victim, reference, number, rng)
        time.sleep(rng.random() * 0.35)
        victim.stop(9)
        for process in work:
            process.wait(60)
        victim.start()
        state = victim.inspect("witness")["State"]
        assert (state["Running"], state["Pid"]) == (True, pid), f"seed {seed}, round {number}"
        for line in victim.ok("ps", "-a", "--format", "{{.Names}} {{.State}}").splitlines():
            assert line.split()[1] in ("running", "exited", "created"), f"seed {seed}, round {number}: {line}"
    assert victim.ok("exec", "witness", "echo", "alive") == "alive"
    victim.ok("pull", "-q", reference)
    assert victim.ok("run", "--rm", reference, "echo", "whole") == "whole"
    victim.clear()
    assert_clean(victim, before)
