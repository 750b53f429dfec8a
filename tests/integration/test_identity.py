"""What two VMs of one image, and two clones of one VM, never share: random numbers, keys, ids, names, addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from tests.living import Daemon

pytestmark = pytest.mark.timeout(240)
RANDOM = "/proc/sys/kernel/random"
KEY = "/etc/ssh/ssh_host_key"
SHOW = f"cat /etc/machine-id {RANDOM}/uuid /sys/class/net/eth0/address; hostname; head -c 32 /dev/urandom | md5sum"
FIXED = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def image(daemon: Daemon) -> Iterator[str]:
    """An image that brings a machine id of its own, and makes a host key at its first start, as sshd's packages do."""
    script = f"test -e {KEY} || {{ mkdir -p /etc/ssh; head -c 32 /dev/urandom | md5sum > {KEY}; }}; exec sleep 100000"
    daemon.ok("run", "--name", "making", "busybox", "sh", "-c", f"echo {FIXED} > /etc/machine-id")
    daemon.ok("commit", "--change", f'CMD ["sh", "-c", "{script}"]', "making", "identified")
    daemon.ok("rm", "making")
    yield "identified"
    daemon.clear()
    daemon.ok("rmi", "identified")


@pytest.fixture(autouse=True)
def cleared(daemon: Daemon) -> Iterator[None]:
    yield
    daemon.clear()


def start(daemon: Daemon, image: str, name: str, isolation: str = "vm") -> None:
    daemon.ok("run", "-d", "--isolation", isolation, "--name", name, image)


def seen(daemon: Daemon, name: str) -> list[str]:
    words = daemon.ok("exec", name, "sh", "-c", SHOW).split()
    address: str = daemon.inspect(name)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    return [*words[:5], address]


def apart(rows: list[list[str]]) -> None:
    """No two rows have a word of a column in common."""
    for column in zip(*rows, strict=True):
        assert len(set(column)) == len(rows), column


def test_vms_of_one_image(daemon: Daemon, image: str) -> None:
    """The first from the plain template, the third from the image's own, which is made meanwhile or beforehand."""
    rows, keys = [], []
    for number in range(4):
        if number == 2:
            daemon.ok("system", "prewarm", image)
        start(daemon, image, f"vm{number}")
        rows.append(seen(daemon, f"vm{number}"))
        keys.append(daemon.ok("exec", f"vm{number}", "cat", KEY))
    apart(rows)
    assert len(set(keys)) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", row[0]) for row in rows)
    assert FIXED not in {row[0] for row in rows}


def test_a_machine_id_stays_with_its_vm_and_is_no_change_of_it(daemon: Daemon, image: str) -> None:
    start(daemon, image, "vm")
    before = seen(daemon, "vm")[0]
    assert "machine-id" not in daemon.ok("diff", "vm")
    daemon.ok("restart", "-t", "0", "vm")
    assert seen(daemon, "vm")[0] == before
    daemon.ok("run", "-d", "--isolation=vm", "--name=plain", "busybox", "sleep", "600")
    assert daemon.cli("exec", "plain", "ls", "/etc/machine-id").returncode == 1


def test_a_container_has_its_images_machine_id(daemon: Daemon, image: str) -> None:
    start(daemon, image, "box", "container")
    assert seen(daemon, "box")[0] == FIXED


def test_clones_of_one_running_vm(daemon: Daemon, image: str) -> None:
    """Its files, keys included, are the clones' as well; what makes it a computer of its own is not."""
    start(daemon, image, "vm")
    rows = [seen(daemon, "vm")]
    key = daemon.ok("exec", "vm", "cat", KEY)
    for name in ("one", "two"):
        daemon.ok("clone", "vm", name)
        assert daemon.ok("exec", name, "cat", KEY) == key
        rows.append(seen(daemon, name))
    apart(rows)
