"""QEMU killed at any moment of every verb: one line, a true record, nothing left; templates that were damaged."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.living import CLI, Daemon, busybox_archive, links, mounts_below, processes_with

pytestmark = pytest.mark.timeout(300)
SUBNET = "10.104.8.0/29"
"""Five addresses: those that are not given back are missed soon."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon("vk", "10.91.0.0/16", "10.104.0.0/21", prepared_namespaces="0")
    try:
        made.start()
        made.ok("load", "--input", str(busybox_archive(tmp_path_factory.mktemp("image") / "busybox.tar")))
        made.ok("network", "create", "--subnet", SUBNET, "narrow")
        # The templates, the default bridge and the image's disk are there from now on.
        made.ok("run", "--rm", "--isolation", "vm", "--network", "narrow", "busybox", "true")
        # A device goes within a second of its container's end.
        until(lambda: not [name for name in links() if name.startswith("t")])
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def cleared(own: Daemon) -> Iterator[None]:
    yield
    own.clear()


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def footprint(daemon: Daemon) -> dict[str, list[str]]:
    """All that a VM has on the host: devices, mounts, processes, cgroups, files."""
    assert daemon.process is not None
    places = (
        *(daemon.run_root / name for name in ("containers", "qemu/bundles", "qemu/uids", "qemu/pool", "netns")),
        *(daemon.data / name for name in ("containers", "snapshots", "pool", "erofs/snapshots", "erofs/staging")),
    )
    groups = Path("/sys/fs/cgroup").glob(f"*/{daemon.settings['cgroup_parent']}/*/")
    words = [line.split(" ", 1) for line in processes_with([str(daemon.base)])]
    return {
        "devices": links(),
        "mounts": mounts_below(daemon.base),
        "processes": [line for pid, line in words if int(pid) != daemon.process.pid],
        "groups": sorted(map(str, groups)),
        "files": sorted(str(path) for place in places for path in place.glob("*")),
        "building": [str(path) for path in (daemon.data / "templates").glob(".*")],
    }


def settled(daemon: Daemon, before: dict[str, list[str]], seconds: float = 30) -> None:
    """All is as it was, a moment later at the latest."""
    deadline = time.monotonic() + seconds
    while (now := footprint(daemon)) != before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now == before


def hypervisors(daemon: Daemon) -> list[int]:
    """Pids of QEMU: the children of what the pid files name."""
    found = []
    for file in (daemon.run_root / "qemu" / "bundles").glob("*/pid"):
        try:
            monitor = int(file.read_text())
            found += [int(word) for word in Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()]
        except (OSError, ValueError):
            continue
    return found


def kill_all(daemon: Daemon) -> list[int]:
    """Kill every QEMU; gives those that there were."""
    found = hypervisors(daemon)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


VERBS: dict[str, tuple[str, ...]] = {
    "start": ("start", "box"),
    "exec": ("exec", "box", "sh", "-c", "seq 1 100000"),
    "cp in": ("cp", "{file}", "box:/root/file"),
    "cp out": ("cp", "box:/bin", "{out}"),
    "diff": ("diff", "box"),
    "snapshot": ("snapshot", "create", "box", "one"),
    "clone": ("clone", "box", "copy"),
    "restore": ("snapshot", "restore", "box", "zero"),
    "stop": ("stop", "-t", "5", "box"),
    "restart": ("restart", "-t", "0", "box"),
    "pause": ("pause", "box"),
    "connect": ("network", "connect", "bridge", "box"),
    "commit": ("commit", "box", "made:latest"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_any_moment(own: Daemon, tmp_path: Path, verb: str) -> None:
    source = random.Random(verb)
    (tmp_path / "file").write_bytes(os.urandom(4 << 20))
    before = footprint(own)
    words = [word.format(file=tmp_path / "file", out=tmp_path / "out") for word in VERBS[verb]]
    for _ in range(2):
        own.ok("create", "--isolation", "vm", "--name", "box", "--network", "narrow", "busybox", "sleep", "1000")
        if verb != "start":
            own.ok("start", "box")
        if verb == "restore":
            own.ok("snapshot", "create", "box", "zero")
        with subprocess.Popen([*CLI, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              env=own.environment) as going:  # fmt: skip
            until(lambda: hypervisors(own) or going.poll() is not None)
            time.sleep(source.uniform(0, 0.4))
            kill_all(own)
            _, said = going.communicate(timeout=60)
        lines = [line for line in said.splitlines() if not line.startswith(("Error: failed to", "WARNING"))]
        assert len(lines) <= 1, said
        assert "internal error" not in said
        # A verb that ends one QEMU and begins another may have come through.
        until(lambda: not kill_all(own))
        for name in own.ok("ps", "-aq").split():
            until(lambda name=name: own.inspect(name)["State"]["Status"] in ("exited", "created"))
        # Its record is true and its files are whole: it starts again.
        own.ok("start", "box")
        assert own.ok("exec", "box", "echo", "well") == "well"
        own.clear()
        for line in own.ok("snapshot", "ls", "--format", "{{.Container}} {{.Tag}}").splitlines():
            own.ok("snapshot", "rm", *line.split())
    settled(own, before)
    assert json.loads(own.ok("network", "inspect", "narrow"))[0]["Containers"] == {}
    assert "Traceback" not in own.log.read_text()


@pytest.mark.parametrize(
    ("harm", "name"),
    [("damaged", "ram"), ("swapped", "state"), ("cut", "upper"), ("cut", "manifest"), ("gone", "manifest")],
)
def test_a_template_that_was_altered(own: Daemon, harm: str, name: str) -> None:
    """It is not restored: it is made again, and a line in the log says why."""
    run = ("run", "--rm", "--isolation", "vm", "--network", "none", "busybox", "echo", "well")
    assert own.ok(*run) == "well"
    templates = [path.parent for path in (own.data / "templates").glob("*/manifest")]
    # Those with and without a network interface.
    assert len(templates) >= 2
    for template in templates:
        file = template / name
        file.chmod(0o644)
        if harm == "damaged":
            with file.open("r+b") as content:
                content.seek(file.stat().st_size // 2)
                content.write(b"altered")
        elif harm == "cut":
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.rename(template / f"{name}.old")
    if harm == "swapped":
        for template, other in zip(templates, templates[1:] + templates[:1], strict=True):
            shutil.copyfile(other / f"{name}.old", template / name)
    for template in templates:
        (template / f"{name}.old").unlink(missing_ok=True)
    said = own.log.read_text().count("was altered")
    if name == "manifest":
        # A daemon that has read it does not need it again.
        own.stop()
        own.start()
    assert own.ok(*run) == "well"
    assert own.log.read_text().count("was altered") > said
