"""What a QEMU process can reach of the host, however it came to be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from tests import foreign
from tests.contract.place import Place
from tests.contract.test_pool import Warm, until
from tests.contract.test_vm import status

from bastide.hypervisor import architecture
from bastide.model.config import Settings
from bastide.model.errors import GuestError
from bastide.runtime import Snapshotting

pytestmark = pytest.mark.timeout(300)

OTHER = next(name for name in foreign.MACHINES if architecture.ARCHITECTURES[name] is not architecture.NATIVE)
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
LIBRARIES = {path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64") if not Path(path).is_symlink()}
FIRMWARE = {"/usr/share/qemu", "/usr/share/seabios"}


class Wall(NamedTuple):
    """A QEMU process, whose cgroup's name begins with `group`, and names of files that it may write to and read."""

    pid: int
    group: str
    writes: set[str] = {"upper"}
    reads: set[str] = {"ram", "state"}
    devices: set[str] = {"/dev/null"}


def hypervisors(settings: Settings) -> list[int]:
    """The pids of the QEMU processes whose monitors work below the settings' folders."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "exe").readlink().name.startswith("qemu-system-"):
                parent = status(int(process.name))["PPid"]
                words = Path(f"/proc/{parent}/cmdline").read_text()
                if str(settings.run_root) in words or str(settings.data_root.resolve()) in words:
                    found.append(int(process.name))
    return found


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Place]:
    await place.open()
    try:
        yield place
    finally:
        if isinstance(place, Warm):
            await place.qemu.close()
        await place.close()


@contextlib.asynccontextmanager
async def from_a_template(settings: Settings, folder: Path) -> AsyncIterator[Wall]:
    async with opened(Place("qemu", settings)) as place:
        container, _ = await place.start("sleep", "100")
        yield Wall(*hypervisors(settings), group=container)


@contextlib.asynccontextmanager
async def from_the_images_template(settings: Settings, folder: Path) -> AsyncIterator[Wall]:
    made = Warm("qemu", settings)
    async with opened(made) as place:
        for _ in range(2):
            assert (await place.run("true"))[0].code == 0
        await asyncio.gather(*made.qemu.warming)
        container, _ = await place.start("sleep", "100")
        yield Wall(*hypervisors(settings), group=container)


@contextlib.asynccontextmanager
async def from_another_architecture(settings: Settings, folder: Path) -> AsyncIterator[Wall]:
    async with opened(Place("qemu", settings, OTHER)) as place:
        container, _ = await place.start("sleep", "100")
        yield Wall(*hypervisors(settings), group=container)


@contextlib.asynccontextmanager
async def restored(settings: Settings, folder: Path, *, lasting: bool) -> AsyncIterator[Wall]:
    async with opened(Place("qemu", settings)) as place:
        assert isinstance(place.runtime, Snapshotting)
        container, _ = await place.start("sleep", "100")
        (first,) = hypervisors(settings)
        await place.runtime.save(container, folder, lasting=lasting)
        clone = await place.bundle("unused")
        await place.runtime.restore(clone, folder)
        (pid,) = set(hypervisors(settings)) - {first}
        yield Wall(pid, group=clone.id)


def from_a_saved_state(settings: Settings, folder: Path) -> AbstractAsyncContextManager[Wall]:
    return restored(settings, folder, lasting=True)


def from_one_that_goes_on(settings: Settings, folder: Path) -> AbstractAsyncContextManager[Wall]:
    """As `bastide clone` of a VM that runs: its state is kept no longer than that takes."""
    return restored(settings, folder, lasting=False)


@contextlib.asynccontextmanager
async def waiting_in_the_pool(settings: Settings, folder: Path) -> AsyncIterator[Wall]:
    made = Warm("qemu", msgspec.structs.replace(settings, pool_memory=1 << 30))
    async with opened(made):
        await made.warm()
        yield Wall(hypervisors(settings)[0], group="pool-")


@contextlib.asynccontextmanager
async def from_the_pool(settings: Settings, folder: Path) -> AsyncIterator[Wall]:
    made = Warm("qemu", msgspec.structs.replace(settings, pool_memory=1 << 30))
    async with opened(made) as place:
        await made.warm()
        waiting = hypervisors(settings)
        container, _ = await place.start("sleep", "100", image="busybox")
        in_use = [pid for pid in waiting if container in Path(f"/proc/{pid}/cgroup").read_text()]
        yield Wall(*in_use, group=container)


@contextlib.asynccontextmanager
async def making_a_template(settings: Settings, folder: Path) -> AsyncIterator[Wall]:
    made = Warm("qemu", settings)
    (settings.data_root / "templates").unlink()
    async with opened(made):
        task = asyncio.create_task(made.qemu.prewarm())
        # It puts itself under the filter, before it reads anything.
        await until(lambda: any(status(pid)["Seccomp"] == "2" for pid in hypervisors(settings)))
        yield Wall(
            hypervisors(settings)[0],
            group="",
            writes={"ram", "upper"},
            reads={"base", "kernel", "initramfs"},
            # Its NICs lead nowhere: a clone gets others.
            devices={"/dev/null", "/dev/net/tun"},
        )
        os.kill(hypervisors(settings)[0], signal.SIGKILL)
        with pytest.raises(GuestError, match="a VM template does not boot"):
            await task


Origin = Callable[[Settings, Path], AbstractAsyncContextManager[Wall]]
ORIGINS: list[Origin] = [
    from_a_template,
    from_the_images_template,
    from_another_architecture,
    from_a_saved_state,
    from_one_that_goes_on,
    waiting_in_the_pool,
    from_the_pool,
    making_a_template,
]


@pytest.mark.parametrize("origin", ORIGINS)
async def test_what_a_hypervisor_can_reach(settings: Settings, tmp_path: Path, origin: Origin) -> None:
    async with origin(settings, tmp_path) as wall:
        nobody(wall, settings)
        apart(wall, settings)
        sees(wall, settings)
        holds(wall)
        speaks(wall, settings)


def nobody(wall: Wall, settings: Settings) -> None:
    """A uid of its own without a privilege, under a filter of system calls."""
    found = status(wall.pid)
    (uid,) = set(found["Uid"].split() + found["Gid"].split())
    assert int(uid) >= settings.vm_uid_base
    others = [status(pid)["Uid"].split()[0] for pid in hypervisors(settings) if pid != wall.pid]
    assert uid not in others
    assert found["Groups"] == ""
    assert {int(found[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")} == {0}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert found["NSpid"].split()[1:] == ["1"]


def apart(wall: Wall, settings: Settings) -> None:
    """Namespaces that nobody else is in, and limits where a container runs."""
    pids = [os.getpid(), *hypervisors(settings)]
    for kind in NAMESPACES:
        assert len({Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in pids}) == len(pids), kind
    if wall.group:
        groups = Path(f"/proc/{wall.pid}/cgroup").read_text()
        (name,) = set(re.findall(f"/{settings.cgroup_parent}/({wall.group}[0-9a-f]*)", groups))
        limits = {
            file.name: file.read_text().strip()
            for pattern in ("memory.limit_in_bytes", "memory.max", "pids.max")
            for file in Path("/sys/fs/cgroup").rglob(f"{settings.cgroup_parent}/{name}/{pattern}")
        }
        assert len(limits) == 2
        # The guest's memory and QEMU's own, far from all that a machine has.
        assert all(value.isdigit() and int(value) < 2 << 30 for value in limits.values()), limits


def sees(wall: Wall, settings: Settings) -> None:
    """Its program, libraries and firmware, read-only, and its own /proc: no device, no socket, no file of anybody."""
    mounts = {}
    for entry in Path(f"/proc/{wall.pid}/mountinfo").read_text().splitlines():
        fields = entry.split()
        mounts[fields[4]] = set(fields[5].split(","))
    program = str(Path(f"/proc/{wall.pid}/exe").readlink())
    preload = str(settings.guest_root / "readonly.so")
    assert set(mounts) <= {"/", "/proc", "/etc/ld.so.cache", program, preload, *LIBRARIES, *FIRMWARE}
    for target, options in mounts.items():
        assert {"nosuid", "nodev"} <= options, target
        assert ("ro" in options) is (target != "/proc"), target
    root = Path(f"/proc/{wall.pid}/root")
    assert {entry.name for entry in root.iterdir()} <= {
        "etc",
        "lib",
        "lib64",
        "proc",
        "usr",
        settings.guest_root.parts[1],
    }
    assert [entry.name for entry in (root / "etc").iterdir()] == ["ld.so.cache"]
    assert {entry.name for entry in (root / "proc").iterdir() if entry.name.isdigit()} == {"1"}


def descriptors(pid: int) -> list[tuple[str, int]]:
    """What each descriptor of a process is, and its access mode; one that is closed meanwhile isn't held."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            flags = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:", 1)[1].split()[0]
            found.append((str(entry.readlink()), int(flags, 8) & os.O_ACCMODE))
    return found


def holds(wall: Wall) -> None:
    """Files that it was given, and may not write but for its own disk."""
    opened: dict[str, int] = {}
    for target, mode in descriptors(wall.pid):
        if target.startswith("/"):
            opened[target] = max(opened.get(target, 0), mode)
    devices = {path for path in opened if path.startswith("/dev/")}
    assert devices == wall.devices
    writable = {Path(path).name for path, mode in opened.items() if mode != os.O_RDONLY} - {
        Path(path).name for path in devices
    }
    assert writable == wall.writes
    readable = {Path(path).name for path in set(opened) - devices} - writable
    assert {name for name in readable if not name.endswith(".erofs")} <= wall.reads


def speaks(wall: Wall, settings: Settings) -> None:
    """Sockets with their other ends at the monitor; one listens for QMP, which only root reaches."""
    targets = [target for target, _ in descriptors(wall.pid)]
    inodes = {target[len("socket:[") : -1] for target in targets if target.startswith("socket:[")}
    unix = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    assert inodes <= {fields[6] for fields in unix}
    assert {fields[7] for fields in unix if fields[6] in inodes and len(fields) > 7} == {"qmp.sock"}
    sockets = [*settings.run_root.rglob("qmp.sock"), *settings.data_root.rglob("qmp.sock")]
    assert sockets
    assert not [path for path in sockets if path.parent.stat().st_mode & 0o077]
