"""What stands around a container that shares the host's kernel: ATTACKS 14 to 23, and the features."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.contract.conftest import GUEST
from tests.contract.place import CAPABILITIES, Place, read

from bastide.host import cgroups, mounts
from bastide.host.capabilities import bounding, decode
from bastide.host.cgroups import ROOT
from bastide.host.processes import state_letter
from bastide.model.config import Settings
from bastide.model.container import DeviceMapping, HostConfig
from bastide.model.errors import BastideError, Conflict, HostError, InvalidArgument, NotFound
from bastide.model.process import Mount, Networking, Process
from bastide.runtime import Listing, Phase


@pytest.fixture(params=["crun", "runc"])
async def place(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Place]:
    made = Place(request.param, settings)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with a mount in it."""
    root = tmp_path / "volume"
    (root / "below").mkdir(parents=True)
    (root / "file").write_text("host")
    yield root
    mounts.unmount_all(root / "below")
    mounts.unmount_all(root)


async def status(place: Place, pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in text.splitlines()}


# -- rights ------------------------------------------------------------------------------------------


async def test_rights_are_what_was_asked_for(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    found = await status(place, (await place.runtime.state(container)).pid)
    expected = set(CAPABILITIES) & bounding()
    assert {kind: decode(int(found[kind], 16)) for kind in ("CapBnd", "CapEff", "CapPrm")} == {
        "CapBnd": expected,
        "CapEff": expected,
        "CapPrm": expected,
    }
    assert decode(int(found["CapInh"], 16)) == decode(int(found["CapAmb"], 16)) == frozenset()
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "0"


async def test_other_users_and_no_new_privileges(place: Place) -> None:
    container, _ = await place.start("sleep", "100", user="web", no_new_privileges=True)
    found = await status(place, (await place.runtime.state(container)).pid)
    assert found["CapEff"].strip("0") == ""
    assert found["NoNewPrivs"] == "1"
    assert found["Groups"].split() == ["1000", "2000"]


async def test_execs_have_the_same_walls(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    _, out, _ = await place.exec(container, "grep", "-E", "^(Cap(Eff|Bnd)|Seccomp|NoNewPrivs):", "/proc/self/status")
    found = dict(row.split(":\t") for row in out.splitlines())
    assert decode(int(found["CapEff"], 16)) == set(CAPABILITIES) & bounding()
    assert found["Seccomp"] == "2"
    _, _, err = await place.exec(container, "mount", "-t", "tmpfs", "none", "/tmp")
    assert "mount" in err


def groups(pid: int) -> list[str]:
    """The groups with controllers that a process is in, one a hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return [line for line in lines if cgroups.unified() or not line.startswith("0::")]


async def test_execs_are_in_the_containers_groups(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    main = (await place.runtime.state(container)).pid
    assert isinstance(place.runtime, Listing)
    await place.runtime.exec(container, "e", Process(args=("sleep", "100"), env=("PATH=/bin",)))
    inside = set(await place.runtime.processes(container))
    assert len(inside) == 2, "nothing but the container's own processes"
    (other,) = inside - {main}
    # runc's own first process becomes it a moment later.
    while (name := Path(f"/proc/{other}/comm").read_text()) != "sleep\n":
        assert name.startswith("runc:[")
        await asyncio.sleep(0.01)
    assert groups(other) == groups(main)
    await place.runtime.kill(container, signal.SIGKILL, "e")
    assert (await place.runtime.wait(container, "e")).code == 137
    assert set(await place.runtime.processes(container)) == {main}


def test_an_exec_that_cannot_enter_the_groups_does_not_run(tmp_path: Path) -> None:
    mark, join = tmp_path / "mark", GUEST / "join"
    for missing in (tmp_path / "missing" / "tasks", Path("/dev/full")):
        tried = subprocess.run(
            [join, tmp_path / "pid", missing, "--", "--", "/usr/bin/touch", mark], capture_output=True, check=False
        )
        assert tried.returncode == 1
        assert tried.stderr.decode().startswith(f"join: enter the cgroup {missing}: ")
        assert not mark.exists()


async def test_privileged(place: Place) -> None:
    host = HostConfig(privileged=True)
    container, _ = await place.start("sleep", "100", host=host, capabilities=tuple(bounding()))
    found = await status(place, (await place.runtime.state(container)).pid)
    assert decode(int(found["CapEff"], 16)) == bounding()
    assert found["Seccomp"] == "0"
    ended, out, _ = await place.exec(
        container, "sh", "-c", "mount -t tmpfs none /tmp && echo mounted", capabilities=tuple(bounding())
    )
    assert (ended.code, out) == (0, "mounted\n")


async def test_what_is_hidden_and_what_is_fixed(place: Place) -> None:
    script = """
    for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] && head -c 1 $f; done
    ls /sys/firmware /proc/scsi 2>/dev/null
    for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper; do
        (echo x > $f) 2>/dev/null && echo wrote $f
    done
    for d in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -e $d/cgroup.procs ] || continue
        mkdir $d/own 2>/dev/null && echo made $d/own
        for f in release_agent notify_on_release cgroup.procs; do
            [ -e $d/$f ] && (echo 1 > $d/$f) 2>/dev/null && echo wrote $d/$f
        done
    done
    true
    """
    ended, out, _ = await place.run("sh", "-c", script)
    assert (ended.code, out.replace("/sys/firmware:", "").replace("/proc/scsi:", "").strip()) == (0, "")


async def test_no_descriptor_leaks_in(place: Place) -> None:
    """CVE-2024-21626: a descriptor of the host's, reached by WORKDIR or by an exec's."""
    _, out, _ = await place.run("ls", "-l", "/proc/self/fd")
    assert len(out.splitlines()) == 5
    for number in range(3, 16):
        bundle = await place.bundle("ls", "..", cwd=f"/proc/self/fd/{number}")
        try:
            await place.runtime.create(bundle)
        except Exception:
            continue
        stdio = await place.runtime.attach(bundle.id)
        await place.runtime.start(bundle.id)
        assert "sbin" not in (await read(stdio))[0], "a directory of the host"
    container, _ = await place.start("sleep", "100")
    _, out, _ = await place.exec(container, "ls", "-l", "/proc/self/fd")
    assert len(out.splitlines()) == 5


async def test_the_runtime_program_is_out_of_reach(place: Place) -> None:
    """CVE-2019-5736: a container that writes to the program which enters it."""
    path = Path(shutil.which(place.runtime.name) or "")
    before = hashlib.sha256(path.read_bytes()).digest()
    script = "while :; do for p in /proc/[0-9]*; do (echo x >> $p/exe) 2>/dev/null; done; done"
    container, _ = await place.start("sh", "-c", script)
    for _ in range(10):
        with contextlib.suppress(BastideError):
            await place.exec(container, "/proc/self/exe", "--version")
        assert (await place.exec(container, "true"))[0].code == 0
    assert hashlib.sha256(path.read_bytes()).digest() == before


async def test_devices(place: Place) -> None:
    """A node may be made, as Docker's containers may; it opens nothing that was not given."""
    script = "for d in null zero full random urandom; do [ -c /dev/$d ] || echo no $d; done; cat /dev/null /dev/mine"
    mapping = DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/mine", cgroup_permissions="rwm")
    assert (await place.run("sh", "-c", script, host=HostConfig(devices=[mapping])))[1] == ""
    mount = Mount(kind="bind", target="/data/kmsg", source=Path("/dev/kmsg"), options=("bind",))
    ended, _, err = await place.run("sh", "-c", "head -c 1 < /data/kmsg", mounts=(mount,))
    assert ended.code != 0
    assert "not permitted" in err or "ermission denied" in err


async def test_pids_limit(place: Place) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 5 & done; echo all"
    ended, out, err = await place.run("sh", "-c", script, host=HostConfig(pids_limit=8))
    assert ended.code != 0 or "fork" in err
    assert "all" not in out or "fork" in err


async def test_sysctls(place: Place) -> None:
    host = HostConfig(sysctls={"kernel.shmmax": "12345", "net.ipv4.ip_unprivileged_port_start": "500"})
    _, out, _ = await place.run(
        "cat", "/proc/sys/kernel/shmmax", "/proc/sys/net/ipv4/ip_unprivileged_port_start", host=host
    )
    assert out == "12345\n500\n"
    with pytest.raises(InvalidArgument, match="not in a separate kernel namespace"):
        await place.run("true", host=HostConfig(sysctls={"kernel.core_pattern": "x"}))


async def test_limits_of_the_process(place: Place) -> None:
    _, out, _ = await place.run("sh", "-c", "ulimit -n; ulimit -Hn", rlimits=(("RLIMIT_NOFILE", 512, 1 << 40),))
    soft, hard = out.split()
    assert soft == "512"
    assert int(hard) >= 512


async def test_init_reaps(place: Place) -> None:
    _, out, _ = await place.run("sh", "-c", "echo $$; readlink /proc/1/exe", host=HostConfig(init=True))
    pid, init = out.split()
    assert pid != "1"
    assert init == "/sbin/docker-init"


async def test_running_once_only(place: Place) -> None:
    bundle = await place.bundle("sleep", "100")
    await place.runtime.create(bundle)
    with pytest.raises(Conflict):
        await place.runtime.create(bundle)
    await place.runtime.start(bundle.id)
    with pytest.raises(Conflict):
        await place.runtime.create(bundle)
    assert (await place.runtime.state(bundle.id)).phase is Phase.RUNNING


async def test_a_recycled_pid_is_not_ours(place: Place) -> None:
    container, _ = await place.start("sleep", "100")
    directory = place.settings.run_root / "containers" / container
    pid = (directory / "pid").read_text()
    stranger = await asyncio.create_subprocess_exec("sleep", "100")
    (directory / "pid").write_text(str(stranger.pid))
    with pytest.raises(NotFound):
        await place.runtime.kill(container, signal.SIGKILL)
    assert stranger.returncode is None
    (directory / "pid").write_text(pid)
    stranger.kill()
    await stranger.wait()


async def test_a_killed_monitor_loses_no_container(place: Place, settings: Settings) -> None:
    container, _ = await place.start("sleep", "100")
    state = await place.runtime.state(container)
    monitor = int((settings.run_root / "containers" / container / "conmon.pid").read_text())
    os.kill(monitor, signal.SIGKILL)
    await asyncio.sleep(0.2)
    after = Place(place.runtime.name, settings)
    assert await after.runtime.state(container) == state
    waiting = asyncio.create_task(after.runtime.wait(container))
    await asyncio.sleep(0.05)
    await after.runtime.kill(container, signal.SIGKILL)
    assert (await waiting).code == 255
    assert (await after.runtime.state(container)).phase is Phase.STOPPED
    await after.runtime.delete(container)
    assert not cgroups.Group(f"{settings.cgroup_parent}/{container}").exists()


async def test_a_monitor_killed_meanwhile_ends_no_wait(place: Place, settings: Settings) -> None:
    container, _ = await place.start("sleep", "100")
    waiting = asyncio.create_task(place.runtime.wait(container))
    await asyncio.sleep(0.05)
    os.kill(int((settings.run_root / "containers" / container / "conmon.pid").read_text()), signal.SIGKILL)
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await place.runtime.kill(container, signal.SIGKILL)
    assert (await waiting).code == 255


async def test_what_a_cut_off_start_left_is_found(place: Place, settings: Settings) -> None:
    """SIGKILL of the daemon between the start of conmon and the writing of its pid."""
    bundle = await place.bundle("sleep", "100")
    await place.runtime.create(bundle)
    pid = (await place.runtime.state(bundle.id)).pid
    (bundle.directory / "conmon.pid").unlink()
    after = Place(place.runtime.name, settings)
    assert (await after.runtime.state(bundle.id)).pid == pid
    await after.runtime.delete(bundle.id)
    assert not Path(f"/proc/{pid}").exists()


# -- mounts ------------------------------------------------------------------------------------------


def bind(source: Path, target: str = "/data", **changes: object) -> Mount:
    return msgspec.structs.replace(Mount(kind="bind", target=target, source=source, options=("rbind",)), **changes)


async def test_names(place: Place) -> None:
    script = "cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname"
    assert (await place.run("sh", "-c", script, domainname="example.org"))[1] == "testhost\nexample.org\n"


async def test_a_working_directory_is_made(place: Place, tmp_path: Path) -> None:
    assert (await place.run("sh", "-c", "pwd", cwd="/made/for/it"))[1] == "/made/for/it\n"
    bundle = await place.bundle("true", cwd="/trap/x")
    (place.settings.run_root / "roots" / bundle.id / "trap").symlink_to(f"../../../../../../../..{tmp_path}")
    with pytest.raises(HostError):
        await place.runtime.create(bundle)
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_left_of_the_staging(place: Place, volume: Path) -> None:
    before = Path("/proc/mounts").read_text().count(str(volume))
    container, _ = await place.start("sleep", "100", mounts=(bind(volume),))
    assert Path("/proc/mounts").read_text().count(str(volume)) == before
    assert not list((place.settings.run_root / "containers" / container).glob("mount*"))


async def test_targets_stay_in_the_root(place: Place, volume: Path, tmp_path: Path) -> None:
    """CVE-2021-30465: the image's links at a mount's target lead nowhere but into its own root."""
    bundle = await place.bundle("cat", "/trap/sub/file", mounts=(bind(volume, "/trap/sub"),))
    root = place.settings.run_root / "roots" / bundle.id
    trap = tmp_path / "trap"
    trap.mkdir()
    (root / "trap").symlink_to(f"../../../../../../../..{trap}")
    with contextlib.suppress(HostError):
        await place.runtime.create(bundle)
        await place.runtime.start(bundle.id)
        await place.runtime.wait(bundle.id)
    assert list(trap.iterdir()) == []


async def test_read_only_root(place: Place, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    script = "cat /etc/hosts; for f in /x /etc/hosts; do (echo > $f) 2>/dev/null && echo $f; done; echo > /dev/shm/y"
    _, out, _ = await place.run("sh", "-c", script, host=HostConfig(readonly_rootfs=True), hosts=hosts)
    assert out == "127.0.0.1 localhost\n"


# -- namespaces --------------------------------------------------------------------------------------


def namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


async def test_namespaces_of_its_own(place: Place) -> None:
    kinds = ["pid", "ipc", "uts", "mnt", "net"]
    _, out, _ = await place.run(
        "sh", "-c", f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done; ls /sys/class/net"
    )
    *namespaces, interface = out.splitlines()
    assert interface == "lo"
    for kind, found in zip(kinds, namespaces, strict=True):
        assert found != namespace("self", kind)


async def test_namespaces_of_the_host(place: Place) -> None:
    shared = dict.fromkeys(("pid", "ipc", "uts"), "host")
    container, _ = await place.start("sleep", "100", namespaces=shared, networking=Networking(host=True))
    pid = (await place.runtime.state(container)).pid
    for kind in ("pid", "ipc", "uts", "net"):
        assert namespace(pid, kind) == namespace("self", kind)


async def test_processes_in_the_hosts_pid_namespace_end(place: Place) -> None:
    """Without a namespace that takes them along, what a container left behind is ended with it."""
    container, stdio = await place.start("sh", "-c", "sleep 1000 & echo $!", namespaces={"pid": "host"})
    left = int((await read(stdio))[0])
    await place.runtime.wait(container)
    assert state_letter(left) in ("R", "S")
    await place.runtime.delete(container)
    assert state_letter(left) in ("", "Z")


async def test_namespaces_of_another_container(place: Place) -> None:
    first, _ = await place.start("sh", "-c", "echo there > /dev/shm/x; exec sleep 100")
    pid = (await place.runtime.state(first)).pid
    shared = {kind: f"/proc/{pid}/ns/{kind}" for kind in ("pid", "ipc", "uts")}
    networking = Networking(namespace=Path(f"/proc/{pid}/ns/net"))
    second, stdio = await place.start("sh", "-c", "cat /dev/shm/x; sleep 100", namespaces=shared, networking=networking)
    assert (await anext(stdio.output()))[1] == b"there\n"
    other = (await place.runtime.state(second)).pid
    for kind in ("pid", "ipc", "uts", "net"):
        assert namespace(pid, kind) == namespace(other, kind)


async def test_nothing_is_left_where_a_hierarchy_is_hidden(place: Place) -> None:
    """On a hybrid host crun makes plain files where it does not see the version 2 hierarchy."""
    container, _ = await place.start("sleep", "100")
    await place.runtime.delete(container)
    left = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "--mount", "sh", "-c", f"umount {ROOT}/unified; find {ROOT}/unified -name '{container}*'"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert left.stdout == ""


@pytest.mark.parametrize("propagation", ["", "rshared"])
async def test_a_bind_leaves_the_hosts_own_mounts(place: Place, tmp_path: Path, propagation: str) -> None:
    """Of a tree that has shared mounts in it, as `/` has: what is staged of it goes, and takes nothing along."""
    top, below = tmp_path / "top", tmp_path / "top" / "below"
    top.mkdir()
    mounts.mount("top", top, "tmpfs")
    mounts.propagation(top, mounts.MS_SHARED)
    try:
        below.mkdir()
        mounts.mount("below", below, "tmpfs")
        (below / "file").touch()
        bind = Mount(kind="bind", target="/data", source=top, options=("rbind",), propagation=propagation)
        container, _ = await place.start("sleep", "100", mounts=(bind,))
        assert (below / "file").exists()
        assert (await place.exec(container, "ls", "/data/below"))[1] == "file\n"
        await place.runtime.delete(container)
        assert (below / "file").exists()
    finally:
        mounts.unmount_all(below)
        mounts.unmount_all(top)
