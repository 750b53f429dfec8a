"""Trees of the host's inside a container, whatever stands around it: binds, volumes, and what programs do in them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.contract.place import Place, line

from bastide.host import mounts
from bastide.model.config import Settings
from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument, NotFound, Unsupported
from bastide.model.process import Mount
from bastide.runtime import Feature

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["crun", "runc", "qemu"])
async def place(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[Place]:
    made = Place(request.param, settings)
    assert Feature.BIND_MOUNTS in made.runtime.features
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


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`files.c` as a program that runs in any root."""
    made = tmp_path_factory.mktemp("program") / "files"
    source = Path(__file__).with_name("files.c")
    subprocess.run(["musl-gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", made, source], check=True)
    return made


def bind(source: Path, target: str = "/data", **changes: object) -> Mount:
    return msgspec.structs.replace(Mount(kind="bind", target=target, source=source, options=("rbind",)), **changes)


# -- what is seen, and what may be written -----------------------------------------------------------


async def test_binds(place: Place, volume: Path) -> None:
    ended, out, _ = await place.run("sh", "-c", "cat /data/file; echo c > /data/new", mounts=(bind(volume),))
    assert (ended.code, out) == (0, "host")
    assert (volume / "new").read_text() == "c\n"
    for read_only in (False, True):
        file = bind(volume / "file", "/etc/motd", read_only=read_only)
        _, out, _ = await place.run("sh", "-c", "cat /etc/motd; echo x 2>/dev/null >> /etc/motd", mounts=(file,))
        assert out == "host"
        assert (volume / "file").read_text() == ("host" if read_only else "hostx\n")
        (volume / "file").write_text("host")


async def test_what_was_mounted_on_the_host_meanwhile_is_seen(place: Place, volume: Path) -> None:
    """Programs may be started in a mount namespace that is older than the mount."""
    await place.run("true")
    mounts.mount("tmpfs", volume / "below", "tmpfs")
    (volume / "below" / "late").write_text("late")
    assert (await place.run("cat", "/data/below/late", mounts=(bind(volume),)))[1] == "late"
    alone = bind(volume, options=("bind",))
    assert (await place.run("ls", "/data/below", mounts=(alone,)))[1] == ""


async def test_read_only_all_the_way_down(place: Place, volume: Path) -> None:
    mounts.mount("tmpfs", volume / "below", "tmpfs")
    script = "touch /data/x 2>/dev/null || echo no; touch /data/below/x 2>/dev/null || echo no"
    assert (await place.run("sh", "-c", script, mounts=(bind(volume, read_only=True),)))[1] == "no\nno\n"


async def test_read_only_at_the_top_alone(place: Place, volume: Path) -> None:
    mounts.mount("tmpfs", volume / "below", "tmpfs")
    mount = bind(volume, read_only=True, options=("rbind", "ro-non-recursive"))
    script = "touch /data/x 2>/dev/null || echo no; touch /data/below/x && echo yes"
    assert (await place.run("sh", "-c", script, mounts=(mount,)))[1] == "no\nyes\n"


async def test_a_path_inside_a_volume(place: Place, volume: Path, tmp_path: Path) -> None:
    """CVE-2021-25741: the path is the volume's own, wherever its links point."""
    (volume / "a" / "b").mkdir(parents=True)
    (volume / "a" / "b" / "x").write_text("inside")
    (volume / "link").symlink_to("/a/b")
    (volume / "out").symlink_to(tmp_path)
    (tmp_path / "secret").touch()
    for path in ("a/b", "link", "../../a/b"):
        mount = bind(volume, options=("rbind", f"x-subpath={path}"))
        assert (await place.run("cat", "/data/x", mounts=(mount,)))[1] == "inside"
    for path in ("out", "absent", "../../../../../../etc/shadow"):
        with pytest.raises(NotFound, match="cannot access path"):
            await place.run("true", mounts=(bind(volume, options=("rbind", f"x-subpath={path}")),))


async def test_propagation(place: Place, volume: Path) -> None:
    # A mount of its own: whether the host's root is shared differs from host to host.
    mounts.mount(str(volume), volume, flags=mounts.MS_BIND)
    mounts.propagation(volume, mounts.MS_PRIVATE)
    private = bind(volume, propagation="rshared")
    # What is mounted inside a VM is another kernel's.
    refusal = (
        (Unsupported, "use rslave") if place.runtime.name == "qemu" else (InvalidArgument, "is not a shared mount")
    )
    with pytest.raises(refusal[0], match=refusal[1]):
        await place.run("true", mounts=(private,))
    with pytest.raises(InvalidArgument, match="is not a shared or slave mount"):
        await place.run("true", mounts=(bind(volume, propagation="rslave"),))
    mounts.propagation(volume, mounts.MS_SHARED)
    container, _ = await place.start("sleep", "100", mounts=(bind(volume, propagation="rslave"),))
    mounts.mount("tmpfs", volume / "below", "tmpfs")
    (volume / "below" / "late").touch()
    assert (await place.exec(container, "ls", "/data/below"))[1] == "late\n"
    other, _ = await place.start("sleep", "100", mounts=(bind(volume),))
    mounts.unmount(volume / "below")
    assert (await place.exec(container, "ls", "/data/below"))[1] == ""
    assert (await place.exec(other, "ls", "/data/below"))[1] == "late\n"


async def test_temporary_and_shared_memory(place: Place) -> None:
    tmpfs = Mount(kind="tmpfs", target="/scratch", options=("size=64k", "mode=1770"))
    script = (
        "head -c 200000 /dev/zero > /scratch/x; stat -c '%a %s' /scratch /scratch/x; grep ' /dev/shm ' /proc/mounts"
    )
    _, out, _ = await place.run("sh", "-c", script, host=HostConfig(shm_size=1 << 20), mounts=(tmpfs,))
    assert "1770" in out
    assert "65536" in out
    assert "size=1024k" in out


# -- live, from both sides ---------------------------------------------------------------------------


async def test_both_sides_see_each_other_at_once(place: Place, volume: Path) -> None:
    container, _ = await place.start("sleep", "100", mounts=(bind(volume), bind(volume, "/again", read_only=True)))

    async def inside(script: str) -> str:
        return (await place.exec(container, "sh", "-c", script))[1]

    assert await inside("cat /data/file") == "host"
    (volume / "file").write_text("changed, and longer")
    assert await inside("cat /data/file; stat -c %s /again/file") == "changed, and longer19\n"
    (volume / "new").write_text("new")
    (volume / "file").unlink()
    assert await inside("cat /data/new; ls /data/file 2>/dev/null || echo gone") == "newgone\n"
    await inside("echo back > /data/new; mkdir /data/folder; echo x > /data/folder/x; chmod 640 /data/folder/x")
    assert (volume / "new").read_text() == "back\n"
    assert (volume / "folder" / "x").stat().st_mode & 0o7777 == 0o640
    (volume / "next").write_text("replaced")
    (volume / "next").rename(volume / "new")
    assert await inside("cat /data/new /again/new") == "replacedreplaced"
    (volume / "folder").rename(volume / "other")
    assert await inside("cat /data/other/x; ls -d /data/folder 2>/dev/null || echo gone") == "x\ngone\n"


async def test_a_file_that_is_open_follows_the_other_side(place: Place, volume: Path) -> None:
    log = volume / "log"
    log.write_text("one\n")
    _, stdio = await place.start("tail", "-f", "/data/log", mounts=(bind(volume),))
    output = stdio.output()
    assert await line(output) == b"one\n"
    with log.open("a") as file:
        file.write("two\n")
    assert await line(output) == b"two\n"
    await stdio.close()


async def test_several_and_one_inside_the_other(place: Place, volume: Path, tmp_path: Path) -> None:
    for name in ("outer", "inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    mounted = (
        bind(tmp_path / "outer", "/a"),
        Mount(kind="tmpfs", target="/a/memory", options=("mode=755",)),
        bind(volume / "file", "/a/memory/file"),
        bind(tmp_path / "inner", "/a/b/c", read_only=True),
        bind(volume / "file", "/made/for/it/file"),
    )
    script = (
        "cat /a/name /a/b/c/name /a/memory/file /made/for/it/file; touch /a/x; touch /a/b/c/x 2>/dev/null || echo no"
    )
    assert (await place.run("sh", "-c", script, mounts=mounted))[1] == "outerinnerhosthostno\n"
    assert sorted(path.name for path in (tmp_path / "outer").iterdir()) == ["b", "memory", "name", "x"]


async def test_owners_and_groups(place: Place, volume: Path) -> None:
    """Who may do what is decided by the user inside and the groups that it has there."""
    volume.chmod(0o2775)
    os.chown(volume, 0, 3000)
    (volume / "theirs").write_text("theirs")
    (volume / "theirs").chmod(0o600)
    script = "id -u; cat /data/theirs 2>/dev/null || echo no; echo x > /data/mine; mkdir /data/folder"
    without = await place.run("sh", "-c", script, user="web", mounts=(bind(volume),), capabilities=())
    assert without[1] == "1000\nno\n"
    _, out, _ = await place.run(
        "sh", "-c", script, user="web", groups=("3000",), mounts=(bind(volume),), capabilities=()
    )
    assert out == "1000\nno\n"
    for path in (volume / "mine", volume / "folder"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1000, 3000)
    assert (volume / "folder").stat().st_mode & 0o7777 == 0o2755


# -- what programs do --------------------------------------------------------------------------------


async def attempt(place: Place, program: Path, volume: Path, case: str) -> None:
    mounted = (bind(volume), bind(program, "/bin/files", read_only=True))
    rights = ("CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID", "CAP_DAC_OVERRIDE", "CAP_MKNOD")
    ended, _, err = await place.run("files", case, cwd="/data", mounts=mounted, capabilities=rights)
    assert (ended.code, err) == (0, "")


async def test_attributes(place: Place, program: Path, volume: Path) -> None:
    await attempt(place, program, volume, "attributes")
    assert os.getxattr(volume / "attributes", "user.colour") == b"blue"
    found = (volume / "attributes").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_mtime) == (0o4751, 12, 34, 1000000002)
    assert (volume / "dangling").lstat().st_gid == 78


async def test_names_and_links(place: Place, program: Path, volume: Path) -> None:
    await attempt(place, program, volume, "names")
    assert sorted(path.name for path in (volume / "moved" / "e").iterdir()) == ["a", "inside"]


async def test_many_files(place: Place, program: Path, volume: Path) -> None:
    await attempt(place, program, volume, "many")
    assert len(list((volume / "many").iterdir())) == 1500


async def test_mappings(place: Place, program: Path, volume: Path) -> None:
    await attempt(place, program, volume, "mappings")
    mapped = (volume / "mapped").read_bytes()
    assert mapped[:12] == b"the child's\0"
    assert mapped[5000:5020] == b"through the mapping\0"
    assert (volume / "unsynced").read_bytes()[:11] == b"at the end\0"


async def test_appending_from_both_sides(place: Place, program: Path, volume: Path) -> None:
    (volume / "log").touch()
    stop = asyncio.Event()

    async def write() -> int:
        count = 0
        while not stop.is_set():
            with (volume / "log").open("a") as file:
                file.write("host\n")
            count += 1
            await asyncio.sleep(0.001)
        return count

    writing = asyncio.create_task(write())
    await attempt(place, program, volume, "appending")
    stop.set()
    lines = (volume / "log").read_text().splitlines()
    assert (lines.count("guest"), lines.count("host"), len(lines)) == (200, await writing, 200 + await writing)


async def test_locks(place: Place, program: Path, volume: Path) -> None:
    for name in ("held", "flocked"):
        (volume / name).touch()
    mounted = (bind(volume), bind(program, "/bin/files"))
    with (volume / "held").open("r+") as held, (volume / "flocked").open() as flocked:
        fcntl.lockf(held, fcntl.LOCK_EX, 20)
        fcntl.flock(flocked, fcntl.LOCK_EX)
        container, stdio = await place.start("files", "locks", cwd="/data", mounts=mounted, stdin=True, stdin_once=True)
        assert await line(stdio.output()) == b"locked\n"
        with (volume / "mine").open() as mine, (volume / "held").open("r+") as again:
            with pytest.raises(BlockingIOError):
                fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with pytest.raises(OSError, match="temporarily unavailable") as caught:
                fcntl.lockf(again, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 100)
            assert caught.value.errno in (errno.EAGAIN, errno.EACCES)
            await stdio.close_stdin()
            assert (await place.runtime.wait(container)).code == 0
            fcntl.flock(mine, fcntl.LOCK_EX)
    await stdio.close()


async def test_big_files(place: Place, volume: Path) -> None:
    data = os.urandom(1 << 20) * 24
    (volume / "big").write_bytes(data)
    script = (
        "dd if=/data/big of=/data/copy bs=300000 2>/dev/null; "
        "dd if=/dev/zero of=/data/far bs=1 count=1 seek=8589934592 2>/dev/null"
    )
    assert (await place.run("sh", "-c", script, mounts=(bind(volume),)))[0].code == 0
    assert (volume / "copy").read_bytes() == data
    assert (volume / "far").stat().st_size == 8589934593
