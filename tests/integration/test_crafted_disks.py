"""A guest may write to its own disk what it likes: nobody on the host takes it for more than bytes.

A raw disk that begins as a qcow2 image names another file as what lies below it (CVE-2008-2004): whoever guesses the
format reads that file for the guest.
"""

from __future__ import annotations

import json
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import Daemon

pytestmark = pytest.mark.timeout(300)

SECRET = "/etc/shadow"
HEADER = (
    struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb",  # magic, version, then where the backing file's name is, and its length
        2,
        80,
        len(SECRET),
        16,  # bits of a cluster, bytes of the disk, no encryption
        1 << 20,
        0,
        1,  # entries of the L1 table, its place, the refcount table's place and clusters, no snapshots
        1 << 16,
        2 << 16,
        1,
        0,
        0,
    ).ljust(80, b"\0")
    + SECRET.encode()
)
"""What QEMU's docs/interop/qcow2.txt calls version 2."""
NODE = "test -b /dev/own || mknod -m 600 /dev/own b $(sed 's/:/ /' /sys/block/vdb/dev)"
SCRIPT = f"{NODE}; dd of=/dev/own conv=notrunc; sync; sync /dev/own"
LOOK = f"{NODE}; head -c 96 /dev/own | od -A n -c -v | tr -d ' \\n'"
SECTORS = (64 << 30) // 512


@pytest.fixture
def crafted(daemon: Daemon) -> Iterator[Daemon]:
    """A VM whose disk begins so; ext4 leaves its first 1024 bytes to whoever boots from it."""
    daemon.ok("run", "-d", "--isolation", "vm", "--privileged", "--name", "box", "busybox", "sleep", "1000")
    daemon.ok("exec", "box", "sh", "-c", "echo kept > /kept")
    daemon.ok("exec", "-i", "box", "sh", "-c", SCRIPT, stdin=HEADER)
    yield daemon
    daemon.clear()
    for line in daemon.ok("snapshot", "ls", "--format", "{{.Container}} {{.Tag}}").splitlines():
        daemon.ok("snapshot", "rm", *line.split())


def held(daemon: Daemon, name: str) -> set[str]:
    """The files that its monitor and its QEMU have open."""
    monitor = daemon.inspect(name)["State"]["Pid"]
    pids = [monitor, *Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()]
    return {str(entry.readlink()) for pid in pids for entry in Path(f"/proc/{pid}/fd").iterdir()}


def is_bytes(daemon: Daemon, name: str) -> None:
    """The guest sees its whole disk with what it wrote at its beginning, and the file system on it is whole."""
    assert daemon.ok("exec", name, "cat", "/sys/block/vdb/size") == str(SECTORS)
    shown = daemon.ok("exec", name, "sh", "-c", LOOK)
    assert shown.startswith("QFI")
    assert shown.endswith(SECRET + 5 * "\\0")
    assert daemon.ok("exec", name, "cat", "/kept") == "kept"
    assert SECRET not in held(daemon, name)


def test_the_disk_would_fool_a_guess(crafted: Daemon) -> None:
    """What the other tests rely on."""
    crafted.ok("stop", "-t", "0", "box")
    identity = crafted.inspect("box")["Id"]
    (disk,) = [path for path in crafted.data.rglob("upper") if identity in str(path) and path.is_file()]
    said = subprocess.run(
        ["qemu-img", "info", "-U", "--output", "json", disk], capture_output=True, text=True, check=True
    )
    guessed = json.loads(said.stdout)
    assert (guessed["format"], guessed["backing-filename"]) == ("qcow2", SECRET)


def test_it_is_started_again(crafted: Daemon) -> None:
    crafted.ok("restart", "-t", "0", "box")
    is_bytes(crafted, "box")


@pytest.mark.parametrize("flags", [(), ("--disk-only",)])
def test_it_is_taken_back(crafted: Daemon, flags: tuple[str, ...]) -> None:
    crafted.ok("snapshot", "create", *flags, "box", "first")
    crafted.ok("exec", "box", "rm", "/kept")
    crafted.ok("snapshot", "restore", "box", "first")
    if not crafted.inspect("box")["State"]["Running"]:
        crafted.ok("start", "box")
    is_bytes(crafted, "box")


def test_it_is_cloned(crafted: Daemon) -> None:
    crafted.ok("clone", "box", "copy")
    is_bytes(crafted, "copy")


def test_its_files_are_read_while_it_rests(crafted: Daemon, tmp_path: Path) -> None:
    crafted.ok("stop", "-t", "0", "box")
    crafted.ok("cp", "box:/kept", str(tmp_path / "kept"))
    assert (tmp_path / "kept").read_text() == "kept\n"
    assert "A /kept" in crafted.ok("diff", "box").splitlines()
    crafted.ok("commit", "box", "kept:1")
    assert crafted.ok("run", "--rm", "kept:1", "cat", "/kept") == "kept"
    crafted.ok("rmi", "kept:1")


def test_a_disk_that_is_nothing_but_that(daemon: Daemon) -> None:
    """The file system is gone: one line says so, and nothing runs."""
    daemon.ok("run", "-d", "--isolation", "vm", "--privileged", "--name", "box", "busybox", "sleep", "1000")
    daemon.ok("exec", "-i", "box", "sh", "-c", SCRIPT, stdin=HEADER.ljust(64 << 10, b"\0"))
    daemon.cli("kill", "box")
    deadline = time.monotonic() + 30
    while daemon.inspect("box")["State"]["Running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = daemon.cli("start", "box")
    assert done.returncode
    assert len([line for line in done.stderr.splitlines() if line.strip()]) <= 2
    assert SECRET not in done.stderr
    assert not daemon.inspect("box")["State"]["Running"]
    daemon.clear()
