"""Warm VMs with real QEMU: handed out once, with an identity of their own, gone without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from tests.contract.place import Place, read
from tests.living import processes_with

from bastide.host.processes import Handle
from bastide.hypervisor import pool
from bastide.hypervisor.pool import Member
from bastide.model.config import Settings
from bastide.model.container import HostConfig
from bastide.model.errors import NotFound
from bastide.model.process import Mount
from bastide.runtime import Phase
from bastide.runtime.qemu import Qemu

pytestmark = pytest.mark.timeout(180)


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds."""
    for _ in range(1200):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it did not come about")


class Warm(Place):
    """A place whose VMs come from a pool."""

    @property
    def qemu(self) -> Qemu:
        assert isinstance(self.runtime, Qemu)
        return self.runtime

    async def ready(self, count: int = 1, *, generic: bool = False) -> None:
        """Wait until so many VMs wait, with an image or `generic` without one."""
        await until(
            lambda: sum(shape.ready for shape in self.qemu.pool().shapes if generic != bool(shape.image)) >= count
        )

    async def warm(self, count: int = 1) -> None:
        """Have so many VMs with the image wait."""
        for _ in range(2):
            assert (await self.run("true", image="busybox"))[0].code == 0
        await asyncio.gather(*self.qemu.warming)
        await self.ready(count)

    def members(self) -> list[Member]:
        """Those that wait."""
        return [member for members in self.qemu._pool._members.values() for member in members]


@pytest.fixture
async def vm(settings: Settings) -> AsyncIterator[Warm]:
    made = Warm("qemu", msgspec.structs.replace(settings, pool_memory=1 << 30))
    await made.open()
    yield made
    await made.qemu.close()
    await made.close()
    assert processes_with([str(settings.run_root)]) == []


def left(settings: Settings) -> list[str]:
    """What the pool has on the host."""
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{settings.cgroup_parent}/pool-*")]
    files = [str(path) for root in (settings.run_root / "qemu", settings.data_root) for path in root.glob("pool/*")]
    uids = [path.read_text() for path in (settings.run_root / "qemu" / "uids").glob("*")]
    devices = [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("p")]
    return [*groups, *files, *[owner for owner in uids if owner.startswith("pool")], *devices]


async def test_members_share_nothing_that_tells_them_apart(vm: Warm) -> None:
    await vm.warm(2)
    tokens = {member.token for member in vm.members() if member.kind.base}
    await asyncio.sleep(2)
    random = "/proc/sys/kernel/random"
    script = f"hostname; cat {random}/uuid {random}/boot_id; head -c 32 /dev/urandom | md5sum; date +%s"
    bundles = [await vm.bundle("sh", "-c", script, hostname=f"vm{number}", image="busybox") for number in range(2)]
    await asyncio.gather(*(vm.runtime.create(bundle) for bundle in bundles))
    assert tokens.isdisjoint(member.token for member in vm.members())
    seen = []
    for bundle in bundles:
        stdio = await vm.runtime.attach(bundle.id)
        await vm.runtime.start(bundle.id)
        seen.append((await read(stdio))[0].split())
    assert [words[0] for words in seen] == ["vm0", "vm1"]
    for column in (1, 2, 3):
        assert seen[0][column] != seen[1][column]
    assert all(abs(int(words[-1]) - time.time()) <= 2 for words in seen)


async def test_a_member_is_a_container_as_every_other(vm: Warm) -> None:
    await vm.warm()
    host = HostConfig(shm_size=8 << 20, sysctls={"net.ipv4.ip_forward": "1"}, readonly_rootfs=True)
    tmpfs = Mount(kind="tmpfs", target="/scratch", options=("size=1m",))
    script = (
        "size() { df $1 | tail -n 1 | awk '{print $2}'; }; size /dev/shm; cat /proc/sys/net/ipv4/ip_forward; "
        "size /scratch; touch /data/x 2>&1; touch /sys/x 2>&1; read line; echo $line; echo err >&2; exit 3"
    )
    container, stdio = await vm.start("sh", "-c", script, host=host, mounts=(tmpfs,), stdin=True, image="busybox")
    await stdio.write(b"in\n")
    out, err = await read(stdio)
    assert out.splitlines()[:3] == ["8192", "1", "1024"]
    assert out.count("Read-only file system") == 2
    assert out.endswith("\nin\n")
    assert err == "err\n"
    assert (await vm.runtime.wait(container)).code == 3


async def test_volumes_of_a_member(vm: Warm, tmp_path: Path) -> None:
    await vm.warm()
    (tmp_path / "given").write_text("from the host\n")
    mounts = (
        Mount(kind="bind", target="/shared", source=tmp_path),
        Mount(kind="bind", target="/fixed", source=tmp_path, read_only=True),
    )
    script = "cat /fixed/given; echo from the guest > /shared/new; touch /fixed/x"
    ended, out, err = await vm.run("sh", "-c", script, mounts=mounts, image="busybox")
    assert (ended.code, out) == (1, "from the host\n")
    assert "Read-only file system" in err
    assert (tmp_path / "new").read_text() == "from the guest\n"


async def test_a_terminal_behind_a_member(vm: Warm) -> None:
    await vm.warm()
    _, stdio = await vm.start("sh", "-c", "test -t 0 && test -t 1 && echo terminal", terminal=True, image="busybox")
    assert (await read(stdio))[0] == "terminal\r\n"


async def test_a_member_without_an_image_gets_the_containers_disks(vm: Warm) -> None:
    await vm.warm()
    await vm.ready(generic=True)
    pool = vm.qemu._pool
    for kind in [kind for kind in pool._members if kind.base]:
        for member in pool._members.pop(kind):
            pool.discard(member)
    generic = {member.token for member in vm.members()}
    bundle = await vm.bundle(
        "sh", "-c", "cat /etc/passwd /data/n | wc -l; echo again >> /data/n; sync", image="busybox"
    )
    lines = []
    for _ in range(2):
        await vm.runtime.create(bundle)
        stdio = await vm.runtime.attach(bundle.id)
        await vm.runtime.start(bundle.id)
        lines.append(int((await read(stdio))[0]))
        await vm.runtime.wait(bundle.id)
        await vm.runtime.delete(bundle.id)
    assert not generic <= {member.token for member in vm.members()}
    assert lines[1] == lines[0] + 1


async def test_a_member_that_died_is_not_handed_out(vm: Warm) -> None:
    await vm.warm()
    for member in vm.members():
        os.kill(int((member.directory / "pid").read_text()), signal.SIGKILL)
    ended, out, _ = await vm.run("echo", "fine", image="busybox")
    assert (ended.code, out) == (0, "fine\n")


async def test_a_member_that_cannot_be_taken_over_is_replaced(vm: Warm, caplog: pytest.LogCaptureFixture) -> None:
    await vm.warm()
    for member in vm.members():
        (member.directory / "keep.sock").unlink()
    ended, out, _ = await vm.run("sh", "-c", "echo x > /data/x; cat /data/x", image="busybox")
    assert (ended.code, out) == (0, "x\n")
    assert "a warm VM cannot be used" in caplog.text


async def gone(pid: int) -> None:
    """Wait for a process's end."""
    with contextlib.suppress(NotFound):
        handle = Handle.open(pid)
        await handle.ended()
        handle.close()


def keeper(vm: Warm) -> int:
    (pid,) = {int((member.directory / "pid").read_text()) for member in vm.members() if member.kind.base}
    return pid


@pytest.mark.parametrize("victim", ["hypervisor", "keeper", "monitor"])
async def test_whoever_dies_takes_the_others_along(vm: Warm, victim: str) -> None:
    await vm.warm()
    kept = keeper(vm)
    (hypervisor,) = [int(word) for word in Path(f"/proc/{kept}/task/{kept}/children").read_text().split()]
    container, _ = await vm.start("sleep", "100", image="busybox")
    monitor = (await vm.runtime.state(container)).pid
    assert vm.settings.cgroup_parent + "/" + container in Path(f"/proc/{hypervisor}/cgroup").read_text()
    os.kill({"hypervisor": hypervisor, "keeper": kept, "monitor": monitor}[victim], signal.SIGKILL)
    assert (await vm.runtime.wait(container)).code == 137
    async with asyncio.timeout(10):
        await asyncio.gather(*(gone(pid) for pid in (hypervisor, kept, monitor)))
    await vm.runtime.delete(container)
    assert (await vm.run("true", image="busybox"))[0].code == 0


async def test_a_new_daemon_takes_up_what_was_a_member(vm: Warm) -> None:
    await vm.warm()
    container, _ = await vm.start("sh", "-c", "read line; exit 9", stdin=True, image="busybox")
    await vm.qemu.close()
    vm.runtime = Qemu(vm.settings)
    assert (await vm.runtime.state(container)).phase is Phase.RUNNING
    assert (await vm.exec(container, "echo", "still here"))[1] == "still here\n"
    stdio = await vm.runtime.attach(container)
    await stdio.write(b"\n")
    assert (await vm.runtime.wait(container)).code == 9


async def test_pause_and_memory_of_what_was_a_member(vm: Warm, tmp_path: Path) -> None:
    await vm.warm()
    container, _ = await vm.start("sleep", "100", image="busybox")
    await vm.qemu.pause(container)
    await vm.qemu.resume(container)
    await vm.qemu.save(container, tmp_path)
    assert (await vm.exec(container, "echo", "on"))[1] == "on\n"
    clone = await vm.bundle("unused")
    await vm.qemu.restore(clone, tmp_path)
    assert (await vm.exec(clone.id, "echo", "on"))[1] == "on\n"


async def test_turned_off_nothing_is_left(vm: Warm) -> None:
    await vm.warm()
    assert left(vm.settings)
    vm.qemu.resize_pool(0)
    await until(lambda: not left(vm.settings))
    state = vm.qemu.pool()
    assert (state.used, state.limit, state.reason) == (0, 0, "it was turned off")
    assert (await vm.run("true", image="busybox"))[0].code == 0
    assert not vm.members()


async def test_the_limit_is_kept(vm: Warm) -> None:
    await vm.warm()
    limit = 150 << 20
    vm.qemu.resize_pool(limit)
    for _ in range(4):
        await vm.run("true", image="busybox")
    await vm.ready()
    await asyncio.sleep(3)
    assert 0 < vm.qemu.pool().used <= limit
    vm.qemu.resize_pool(1 << 20)
    assert "more than it may use" in vm.qemu.pool().reason


async def test_as_many_as_are_used_are_made_when_nobody_starts(vm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_QUIET", 1.0)
    own, after = vm.qemu._pool, []
    make = own._make

    async def noted(kind: pool.Kind) -> Member:
        after.append(time.monotonic() - own._touched)
        return await make(kind)

    monkeypatch.setattr(own, "_make", noted)
    await vm.warm()
    for _ in range(3):
        assert (await vm.run("true", image="busybox"))[0].code == 0
    await vm.ready(4)
    assert min(after) >= 1.0


async def test_what_a_killed_daemon_left_is_swept(vm: Warm) -> None:
    for folder in (vm.settings.run_root / "qemu" / "pool" / "dead", vm.settings.data_root / "pool" / "dead"):
        folder.mkdir(parents=True)
        (folder / "upper").write_bytes(b"x")
    group = Path("/sys/fs/cgroup/pids") / vm.settings.cgroup_parent / "pool-dead"
    if group.parents[1].is_dir():
        group.mkdir(parents=True)
    await vm.run("true")
    assert not [name for name in left(vm.settings) if "dead" in name]
