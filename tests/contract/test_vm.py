"""The VM's wall with real QEMU: what it can reach, what clones share, how it ends, files inside."""

from __future__ import annotations

import asyncio
import io
import os
import select
import signal
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.place import Place, line, read

from bastide.hypervisor import disks
from bastide.model.config import Settings
from bastide.model.container import HostConfig
from bastide.model.errors import BastideError, Conflict, GuestError, InvalidArgument, NotFound
from bastide.runtime import Files, Pausing, Phase, Snapshotting
from bastide.runtime.qemu import Qemu
from bastide.storage import Duplicating

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def vm(settings: Settings) -> AsyncIterator[Place]:
    made = Place("qemu", settings)
    probe = await made.runtime.probe()
    assert probe.usable, probe.reason
    await made.open()
    yield made
    await made.close()


def children(pid: int) -> list[int]:
    """The pids of a process's children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def hypervisor(vm: Place, container: str) -> int:
    """QEMU's pid: the monitor's only child."""
    (pid,) = children((await vm.runtime.state(container)).pid)
    return pid


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


# -- confinement -------------------------------------------------------------------------------------


async def test_a_hypervisor_cannot_alter_the_template(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100")
    pid = await hypervisor(vm, container)
    uid = int(status(pid)["Uid"].split()[0])
    ram = next(entry for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.readlink().name == "ram")
    held = os.open(ram, os.O_RDONLY)
    # What a QEMU that was taken over would try: open its own descriptor again, for writing.
    again = f"os.open('/proc/self/fd/{held}', os.O_RDONLY); print('read'); os.open('/proc/self/fd/{held}', os.O_RDWR)"
    tried = await asyncio.to_thread(
        subprocess.run,
        ["/usr/bin/python3", "-c", f"import os; {again}"],
        user=uid,
        group=uid,
        extra_groups=[],
        pass_fds=[held],
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(held)
    assert tried.stdout == "read\n"
    assert "PermissionError" in tried.stderr


# -- clones ------------------------------------------------------------------------------------------


async def test_clones_share_no_secrets(vm: Place) -> None:
    script = (
        "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id; head -c 32 /dev/urandom | md5sum; date +%s"
    )
    runs = await asyncio.gather(*(vm.run("sh", "-c", script) for _ in range(3)))
    lines = [out.split() for _, out, _ in runs]
    for column in range(3):
        assert len({line[column] for line in lines}) == 3
    assert all(abs(int(line[-1]) - time.time()) < 30 for line in lines)


async def test_an_image_that_is_used_again_gets_a_template_of_its_own(vm: Place) -> None:
    runtime = vm.runtime
    assert isinstance(runtime, Qemu)
    for _ in range(2):
        assert (await vm.run("true"))[0].code == 0
    await asyncio.gather(*runtime.warming)
    ended, out, _ = await vm.run("sh", "-c", "cat /etc/hostname; echo x > /data/new && cat /data/new")
    assert (ended.code, out) == (0, "x\n")
    runs = await asyncio.gather(*(vm.run("sh", "-c", "head -c 32 /dev/urandom | md5sum") for _ in range(3)))
    assert len({out for _, out, _ in runs}) == 3
    bundle = await vm.bundle("sh", "-c", "cat /data/n; echo again >> /data/n")
    for expected in ("", "again\n"):
        await runtime.create(bundle)
        stdio = await runtime.attach(bundle.id)
        await runtime.start(bundle.id)
        assert (await read(stdio))[0] == expected
        await runtime.wait(bundle.id)
        await runtime.delete(bundle.id)


# -- ends --------------------------------------------------------------------------------------------


async def test_guest_panic(vm: Place) -> None:
    host = HostConfig(privileged=True)
    container, stdio = await vm.start("sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100", host=host, privileged=True)
    _, err = await read(stdio)
    assert "Kernel panic - not syncing: sysrq triggered crash" in err
    assert err.count("\n") == 1
    assert (await vm.runtime.wait(container)).code == 255
    assert (await vm.runtime.state(container)).phase is Phase.STOPPED


async def test_hypervisor_killed(vm: Place) -> None:
    container, stdio = await vm.start("sleep", "100")
    os.kill(await hypervisor(vm, container), signal.SIGKILL)
    _, err = await read(stdio)
    assert err == "bastide: the virtual machine ended before its process: Killed\n"
    assert (await vm.runtime.wait(container)).code == 137
    with pytest.raises((NotFound, GuestError)):
        await vm.exec(container, "true")


async def test_monitor_killed_takes_the_hypervisor_along(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100")
    pid = await hypervisor(vm, container)
    handle = os.pidfd_open(pid)
    os.kill((await vm.runtime.state(container)).pid, signal.SIGKILL)
    assert (await vm.runtime.wait(container)).code == 137
    await asyncio.to_thread(select.select, [handle], [], [], 5)
    os.close(handle)
    assert not Path(f"/proc/{pid}/exe").exists()


async def test_out_of_memory(vm: Place) -> None:
    ended, _, _ = await vm.run("dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1")
    assert (ended.code, ended.oom_killed) == (137, True)


async def test_a_new_daemon_takes_it_up(vm: Place) -> None:
    container, _ = await vm.start("sh", "-c", "read line; exit 9", stdin=True)
    vm.runtime = Qemu(vm.settings)
    assert (await vm.runtime.state(container)).phase is Phase.RUNNING
    assert (await vm.exec(container, "echo", "still here"))[1] == "still here\n"
    stdio = await vm.runtime.attach(container)
    await stdio.write(b"\n")
    assert (await vm.runtime.wait(container)).code == 9


async def test_a_stopped_guest_does_not_hold_the_daemon(vm: Place) -> None:
    """A guest whose kernel hangs (here: QEMU stopped) is cut off after a SIGKILL."""
    container, _ = await vm.start("sleep", "100")
    os.kill(await hypervisor(vm, container), signal.SIGSTOP)
    await vm.runtime.kill(container, signal.SIGKILL)
    async with asyncio.timeout(30):
        assert (await vm.runtime.wait(container)).code == 137


# -- saved states ------------------------------------------------------------------------------------

COUNTER = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /data/n; sleep 0.1; done")


async def test_a_saved_vm_goes_on_as_another(vm: Place, tmp_path: Path) -> None:
    runtime = vm.runtime
    assert isinstance(runtime, Snapshotting)
    container, _ = await vm.start(*COUNTER)
    await asyncio.sleep(1)
    await runtime.save(container, tmp_path)
    before = int((await vm.exec(container, "cat", "/data/n"))[1])
    clones = [await vm.bundle("unused", hostname=f"clone{number}") for number in range(2)]
    for clone in clones:
        await runtime.restore(clone, tmp_path)
        assert (await vm.runtime.state(clone.id)).phase is Phase.RUNNING
    script = "hostname; head -c 16 /dev/urandom | md5sum; cat /proc/sys/kernel/random/boot_id; date +%s"
    seen = [(await vm.exec(clone.id, "sh", "-c", script))[1].split() for clone in clones]
    assert [words[0] for words in seen] == ["clone0", "clone1"]
    # Nobody has asked for a boot_id before it was saved: each makes its own.
    assert seen[0][1] != seen[1][1]
    assert seen[0][3] != seen[1][3]
    assert all(abs(int(words[-1]) - time.time()) <= 3 for words in seen)
    for clone in clones:
        await asyncio.sleep(0.5)
        assert int((await vm.exec(clone.id, "cat", "/data/n"))[1]) > 1
        await vm.runtime.delete(clone.id)
    assert int((await vm.exec(container, "cat", "/data/n"))[1]) > before


@pytest.mark.parametrize("name", ["ram", "state", "upper", "manifest"])
async def test_a_saved_state_that_was_altered_is_refused(vm: Place, tmp_path: Path, name: str) -> None:
    runtime, container = await sleeper(vm)
    await runtime.save(container, tmp_path)
    # The memory's file is the template's: another one takes its place.
    disks.copy_sparse(tmp_path / name, tmp_path / "copy")
    (tmp_path / "copy").replace(tmp_path / name)
    with (tmp_path / name).open("r+b") as file:
        file.write(b"altered")
    bundle = await vm.bundle("unused")
    with pytest.raises((Conflict, NotFound)):
        await runtime.restore(bundle, tmp_path)
    assert (await vm.runtime.state(bundle.id)).phase is Phase.ABSENT
    assert (await vm.exec(container, "true"))[0].code == 0


async def test_what_is_not_to_last_is_nobody_elses(vm: Place, tmp_path: Path) -> None:
    runtime, container = await sleeper(vm)
    await runtime.save(container, tmp_path, lasting=False)
    bundle = await vm.bundle("unused")
    another = type(vm.runtime)(vm.runtime.settings)
    assert isinstance(another, Snapshotting)
    with pytest.raises(Conflict, match="altered"):
        await another.restore(bundle, tmp_path)
    await runtime.restore(bundle, tmp_path)
    assert (await vm.exec(bundle.id, "true"))[0].code == 0


async def sleeper(vm: Place) -> tuple[Snapshotting, str]:
    """A VM that does nothing, and its runtime."""
    assert isinstance(vm.runtime, Snapshotting)
    container, _ = await vm.start("sleep", "100")
    return vm.runtime, container


async def test_a_saved_vm_shares_the_memory_that_it_began_with(vm: Place, tmp_path: Path) -> None:
    runtime, container = await sleeper(vm)
    await runtime.save(container, tmp_path)
    templates = [path.stat().st_ino for path in vm.runtime.settings.data_root.glob("templates/*/ram")]
    assert (tmp_path / "ram").stat().st_ino in templates
    assert (tmp_path / "state").stat().st_size < (tmp_path / "ram").stat().st_blocks * 512 / 2
    clone = await vm.bundle("unused")
    await runtime.restore(clone, tmp_path)
    # The clone's clone, too: what it differs in is all told again.
    again = tmp_path / "again"
    again.mkdir()
    await runtime.save(clone.id, again)
    assert (again / "ram").samefile(tmp_path / "ram")
    third = await vm.bundle("unused")
    await runtime.restore(third, again)
    assert (await vm.exec(third.id, "echo", "here"))[1] == "here\n"


async def test_a_saved_vm_outlives_its_template(vm: Place, tmp_path: Path) -> None:
    runtime, container = await sleeper(vm)
    for path in vm.runtime.settings.data_root.glob("templates/*/ram"):
        path.unlink()
    await runtime.save(container, tmp_path)
    clone = await vm.bundle("unused")
    await runtime.restore(clone, tmp_path)
    assert (await vm.exec(clone.id, "echo", "here"))[1] == "here\n"


async def test_a_state_of_an_older_form_is_refused(vm: Place, tmp_path: Path) -> None:
    runtime, container = await sleeper(vm)
    await runtime.save(container, tmp_path)
    manifest = tmp_path / "manifest"
    manifest.write_bytes(manifest.read_bytes().replace(b'"form":2', b'"form":1'))
    with pytest.raises(Conflict, match="another version of bastide"):
        await runtime.restore(await vm.bundle("unused"), tmp_path)
    with pytest.raises(BastideError):
        await runtime.check_saved(tmp_path)


async def test_a_vm_of_an_older_bastide_is_not_saved(vm: Place, tmp_path: Path) -> None:
    """Its monitor has not told which process is QEMU."""
    runtime, container = await sleeper(vm)
    (vm.runtime.settings.run_root / "qemu" / "bundles" / container / "hypervisor").unlink()
    with pytest.raises(Conflict, match="restart it"):
        await runtime.save(container, tmp_path)
    assert not list(tmp_path.iterdir())
    assert (await vm.exec(container, "echo", "here"))[1] == "here\n"


async def test_pause_flushes_the_disk_for_a_copy(vm: Place) -> None:
    runtime, snapshotter = vm.runtime, vm.snapshotter
    assert isinstance(runtime, Pausing)
    assert isinstance(snapshotter, Duplicating)
    bundle = await vm.bundle("sh", "-c", "echo kept > /data/file; echo ready; sleep 100")
    await runtime.create(bundle)
    stdio = await vm.runtime.attach(bundle.id)
    await vm.runtime.start(bundle.id)
    assert await line(stdio.output()) == b"ready\n"
    await runtime.pause(bundle.id)
    copy = await vm.bundle("cat", "/data/file")
    await snapshotter.remove(copy.id)
    await snapshotter.duplicate(bundle.id, copy.id)
    await runtime.resume(bundle.id)
    assert (await vm.exec(bundle.id, "sh", "-c", "echo more >> /data/file"))[0].code == 0
    await runtime.create(copy)
    stdio = await runtime.attach(copy.id)
    await runtime.start(copy.id)
    assert (await read(stdio))[0] == "kept\n"


# -- files -------------------------------------------------------------------------------------------


def files(vm: Place) -> Files:
    assert isinstance(vm.runtime, Files)
    return vm.runtime


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


def packed(*entries: tuple[str, bytes, str]) -> bytes:
    """A tar of files (name, content, "") and links (name, b"", target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, target in entries:
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mode, info.mtime = len(content), 1234, 0o640, 1_000_000_000
            if target:
                info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


async def test_files_go_in_and_come_out(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100")
    content = os.urandom(3_000_000)
    long = "d" * 180 + "/" + "f" * 120
    await files(vm).put_archive(container, "/data", pieces(packed((long, content, ""), ("link", b"", "/etc/passwd"))))
    data = b"".join([piece async for piece in files(vm).get_archive(container, "/data")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.getmember(f"data/{long}")
        assert (member.uid, member.mode, member.mtime) == (1234, 0o640, 1_000_000_000)
        stream = tar.extractfile(member)
        assert stream is not None
        assert stream.read() == content
        assert tar.getmember("data/link").linkname == "/etc/passwd"
    assert (await files(vm).stat_path(container, "/data/link"))["linkTarget"] == "/etc/passwd"
    assert (0, "/data") in await files(vm).changes(container)
    assert (1, "/data/link") in await files(vm).changes(container)


async def test_files_at_rest(vm: Place) -> None:
    """A container that does not run has its files reached and changed, and finds them at its start."""
    bundle = await vm.bundle("sh", "-c", "cat /data/given; echo ran > /data/kept")
    async with files(vm).at_rest(bundle):
        await files(vm).put_archive(bundle.id, "/data", pieces(packed(("given", b"before\n", ""))))
        with pytest.raises(NotFound):
            await files(vm).stat_path(bundle.id, "/nothing")
    assert (await vm.runtime.state(bundle.id)).phase is Phase.ABSENT
    await vm.runtime.create(bundle)
    stdio = await vm.runtime.attach(bundle.id)
    await vm.runtime.start(bundle.id)
    assert (await read(stdio))[0] == "before\n"
    await vm.runtime.wait(bundle.id)
    await vm.runtime.delete(bundle.id)
    async with files(vm).at_rest(bundle):
        data = b"".join([piece async for piece in files(vm).get_archive(bundle.id, "/data/kept")])
        assert b"ran\n" in data
        assert (1, "/data/given") in await files(vm).changes(bundle.id)


async def test_a_whole_archive_for_one_user(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100")
    archive = packed(("mine", b"x", ""), ("link", b"", "mine"))
    await files(vm).put_archive(container, "/data", pieces(archive), owner="1000:2000")
    assert (await vm.exec(container, "stat", "-c", "%u:%g", "/data/mine", "/data/link"))[1] == "1000:2000\n" * 2
    with pytest.raises(InvalidArgument, match="unable to find user nobody-here"):
        await files(vm).put_archive(container, "/data", pieces(archive), owner="nobody-here")


async def test_files_that_are_not_there(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100")
    with pytest.raises(NotFound):
        await files(vm).stat_path(container, "/nothing")
    with pytest.raises(NotFound):
        async for _ in files(vm).get_archive(container, "/nothing"):
            pass
    with pytest.raises(NotFound):
        await files(vm).put_archive(container, "/nothing", pieces(packed(("a", b"", ""))))


@pytest.mark.parametrize(
    "archive",
    [b"no tar at all" * 1000, packed(("../../outside", b"x", "")), packed(("a/../../outside", b"x", ""))],
)
async def test_hostile_archives(vm: Place, archive: bytes) -> None:
    container, _ = await vm.start("sleep", "100")
    with pytest.raises(InvalidArgument):
        await files(vm).put_archive(container, "/data", pieces(archive))
    assert (await vm.exec(container, "true"))[0].code == 0


async def test_the_whole_root_without_what_is_mounted(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100")
    data = b"".join([piece async for piece in files(vm).get_archive(container, "/")])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert {"bin/busybox", "etc/passwd", "proc", "dev"} <= set(names)
    assert not [name for name in names if name.startswith(("proc/", "sys/", "dev/"))]


async def test_large_output_is_intact(vm: Place) -> None:
    container, _ = await vm.start("sleep", "100")
    _, out, _ = await vm.exec(container, "sh", "-c", "seq 1 400000")
    assert out == "".join(f"{number}\n" for number in range(1, 400001))
