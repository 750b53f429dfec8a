"""Volumes, bind mounts and tmpfs behind both walls: the same flags, the same files, from start to removal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.living import CLI, Daemon, processes_with

pytestmark = pytest.mark.timeout(300)


class Walled:
    """A daemon whose `run` uses one of the two walls."""

    def __init__(self, daemon: Daemon, isolation: str) -> None:
        self.daemon, self.isolation = daemon, isolation

    def run(self, *args: str) -> str:
        """Output of `bastide run --isolation … ARGS`."""
        return self.daemon.ok("run", "--isolation", self.isolation, *args)

    def refused(self, *args: str) -> str:
        """What is said when a run is refused."""
        done = self.daemon.cli("run", "--rm", "--isolation", self.isolation, *args, check=False)
        assert done.returncode == 125
        return str(done.stderr)


@pytest.fixture(params=["container", "vm"])
def wall(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Walled]:
    yield Walled(daemon, request.param)
    daemon.clear()
    for name in daemon.ok("volume", "ls", "-q").split():
        daemon.ok("volume", "rm", name)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def test_every_notation(wall: Walled, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host")
    (tmp_path / "folder").mkdir()
    wall.daemon.ok("volume", "create", "named")
    script = (
        "cat /one; echo; ls /host; echo x > /named/x; mkdir -p /sub/deep; touch /ro/x 2>/dev/null || echo no;"
        "touch /one 2>/dev/null && echo touched; grep -c ' /memory tmpfs\\| /scratch tmpfs' /proc/mounts; ls /named"
    )
    out = wall.run(
        *("--rm", "-v", f"{tmp_path}:/host", "-v", f"{tmp_path}:/ro:ro", "-v", "named:/named"),
        *("--mount", f"type=bind,src={tmp_path}/file,dst=/one", "--mount", "type=volume,src=other,dst=/sub"),
        *("--mount", "type=tmpfs,dst=/memory", "--tmpfs", "/scratch", "busybox", "sh", "-c", script),
    )
    assert out == "of the host\nfile\nfolder\nno\ntouched\n2\nx"
    mount = "type=volume,src=other,dst=/part,volume-subpath=deep,readonly"
    assert wall.run("--rm", "--mount", mount, "-v", "named:/n", "busybox", "ls", "/part", "/n") == "/n:\nx\n\n/part:"
    assert "within the volume" in wall.refused(
        *("--mount", "type=volume,src=other,dst=/part,volume-subpath=../../..", "busybox", "true")
    )


def test_a_new_volume_gets_what_the_image_has(wall: Walled) -> None:
    assert wall.run("--rm", "-v", "site:/var/www", "busybox", "cat", "/var/www/index.html") == "hello from the image"
    wall.run("--rm", "-v", "site:/www", "busybox", "sh", "-c", "echo changed > /www/index.html")
    assert wall.run("--rm", "-v", "site:/var/www", "busybox", "cat", "/var/www/index.html") == "changed"
    assert wall.run("--rm", "--mount", "type=volume,dst=/var/www,volume-nocopy", "busybox", "ls", "/var/www") == ""


def test_two_walls_share_a_volume(wall: Walled) -> None:
    """A container and a VM, at the same time."""
    other = "vm" if wall.isolation == "container" else "container"
    daemon = wall.daemon
    wall.run("-d", "--name", "writer", "-v", "both:/d", "busybox", "sh", "-c", "echo one > /d/f; sleep 1000")
    daemon.ok(
        "run", "-d", "--isolation", other, "--name", "reader", "--volumes-from", "writer:ro", "busybox", "sleep", "1000"
    )
    until(lambda: daemon.ok("exec", "reader", "cat", "/d/f") == "one")
    daemon.ok("exec", "writer", "sh", "-c", "echo two > /d/f; mv /d/f /d/g; chown 1000:2000 /d/g; ln -s g /d/h")
    assert daemon.ok("exec", "reader", "sh", "-c", "cat /d/h; stat -c %u:%g /d/g; ls /d") == "two\n1000:2000\ng\nh"
    assert daemon.cli("exec", "reader", "touch", "/d/x", check=False).returncode != 0


def test_a_life_with_a_volume(wall: Walled, tmp_path: Path) -> None:
    """Paused, restarted, left by the daemon, killed: the files stay, and are seen on both sides."""
    daemon = wall.daemon
    script = "trap exit TERM; while :; do sleep 0.1; done"
    wall.run("-d", "--name", "long", "-v", f"{tmp_path}:/d", "-v", "kept:/k", "busybox", "sh", "-c", script)

    def both(word: str) -> None:
        (tmp_path / "in").write_text(word)
        assert daemon.ok("exec", "long", "sh", "-c", "cat /d/in; echo there > /d/out; echo here >> /k/log") == word
        assert (tmp_path / "out").read_text() == "there\n"
        (tmp_path / "out").unlink()

    both("first")
    daemon.ok("pause", "long")
    (tmp_path / "in").write_text("meanwhile")
    daemon.ok("unpause", "long")
    assert daemon.ok("exec", "long", "cat", "/d/in") == "meanwhile"
    daemon.stop(signal.SIGKILL)
    daemon.start()
    both("second")
    daemon.ok("restart", "-t", "5", "long")
    both("third")
    daemon.ok("kill", "long")
    until(lambda: not daemon.inspect("long")["State"]["Running"])
    daemon.ok("start", "long")
    assert daemon.ok("exec", "long", "cat", "/k/log") == "here\n" * 2 + "here"
    daemon.ok("cp", "long:/d/in", str(tmp_path / "copied"))
    assert (tmp_path / "copied").read_text() == "third"
    assert "in use" in daemon.cli("volume", "rm", "kept", check=False).stderr
    daemon.ok("rm", "-f", "long")
    daemon.ok("volume", "rm", "kept")


def test_a_volume_that_the_daemon_mounts(wall: Walled) -> None:
    daemon = wall.daemon
    daemon.ok("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory")
    script = "head -c 3000000 /dev/zero > /m/x 2>/dev/null; stat -c %s /m/x"
    assert wall.run("--rm", "-v", "memory:/m", "busybox", "sh", "-c", script) == str(1 << 20)


@pytest.mark.parametrize(
    ("kind", "device", "words", "reason"),
    [
        ("nofs", "something", "password=secret", "wrong fs type, bad option"),
        ("ext4", "/nonexistent/disk", "ro,noatime", "special device /nonexistent/disk does not exist"),
    ],
)
def test_a_volume_that_the_daemon_cannot_mount(wall: Walled, kind: str, device: str, words: str, reason: str) -> None:
    options = (f"type={kind}", f"device={device}", f"o={words}")
    wall.daemon.ok("volume", "create", *(word for option in options for word in ("-o", option)), "far")
    said = wall.refused("-v", "far:/far", "busybox", "true")
    assert f"mount {device} as type {kind}: " in said
    assert words not in said
    assert reason in said
    assert len(said.splitlines()) == 1
    assert wall.daemon.ok("ps", "-aq") == ""


def test_limits_are_for_the_containers_processes(wall: Walled, tmp_path: Path) -> None:
    """What moves the files of a volume counts as none of them."""
    assert wall.run("--rm", "--pids-limit", "1", "-v", f"{tmp_path}:/d", "busybox", "ls", "/d") == ""


def test_an_absent_source(wall: Walled, tmp_path: Path) -> None:
    mount = f"type=bind,src={tmp_path}/absent,dst=/d"
    assert "bind source path does not exist" in wall.refused("--mount", mount, "busybox", "true")
    wall.daemon.ok(
        "create", "--isolation", wall.isolation, "--name", "late", "-v", f"{tmp_path}/made:/d", "busybox", "true"
    )
    (tmp_path / "made").rmdir()
    done = wall.daemon.cli("start", "late", check=False)
    assert "bind source path does not exist" in done.stderr


def test_a_volume_is_no_part_of_an_image(wall: Walled, tmp_path: Path) -> None:
    daemon = wall.daemon
    (tmp_path / "secret").write_text("secret")
    flags = ("-v", f"{tmp_path}:/new/volume", "-v", f"{tmp_path}/secret:/etc/secret", "-v", "vol:/var/www")
    wall.run("-d", "--name", "box", *flags, "busybox", "sh", "-c", "echo own > /new/file; sleep 1000")
    until(lambda: daemon.cli("exec", "box", "test", "-s", "/new/file", check=False).returncode == 0)
    daemon.ok("commit", "box", "made")
    script = "cat /new/file; ls -A /new/volume 2>/dev/null; cat /etc/secret 2>/dev/null; cat /var/www/index.html"
    assert daemon.ok("run", "--rm", "made", "sh", "-c", script) == "own\nhello from the image"
    daemon.ok("rm", "-f", "box")
    daemon.ok("rmi", "made")


def test_mounts_of_a_build_step_stay_out_of_its_layer(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("given")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=secret,id=s --mount=type=bind,target=/given --mount=type=cache,target=/cache "
        "cat /run/secrets/s /given/given > /seen && echo x > /cache/x && cat /cache/x\n"
    )
    daemon.ok("build", "--isolation", "vm", "--secret", f"id=s,src={tmp_path}/secret", "-t", "made", str(tmp_path))
    script = "cat /seen; echo; cat /run/secrets/s /given/given /cache/x 2>/dev/null"
    assert daemon.cli("run", "--rm", "made", "sh", "-c", script, check=False).stdout == "secretgiven\n"
    daemon.ok("rmi", "made")


def test_what_a_vm_cannot_share(daemon: Daemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for flag, word in (
            (f"{tmp_path}/socket:/s", "it is a socket"),
            ("/dev/null:/n", "it is a device"),
            (f"{tmp_path}:/d:rshared", "propagation rshared"),
        ):
            done = daemon.cli("run", "--rm", "--isolation", "vm", "-v", flag, "busybox", "true", check=False)
            assert (done.returncode, len(done.stderr.strip().splitlines())) == (125, 1), done.stderr
            assert "isolation vm does not offer" in done.stderr
            assert word in done.stderr
    assert daemon.ok("ps", "-aq") == ""


def server(daemon: Daemon, name: str) -> int:
    """The pid of a VM's file server: the monitor's child that is no QEMU."""
    monitor = daemon.inspect(name)["State"]["Pid"]
    children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
    (found,) = [pid for pid in children if "qemu" not in Path(f"/proc/{pid}/cmdline").read_text()]
    return int(found)


@pytest.mark.parametrize("victim", ["server", "hypervisor", "monitor"])
def test_nothing_is_left_of_what_was_killed(daemon: Daemon, tmp_path: Path, victim: str) -> None:
    daemon.ok(
        "run",
        "-d",
        "--isolation",
        "vm",
        "--name",
        "box",
        "-v",
        f"{tmp_path}:/d",
        "-v",
        "vol:/x",
        "busybox",
        "sleep",
        "1000",
    )
    monitor, files = daemon.inspect("box")["State"]["Pid"], server(daemon, "box")
    children = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()
    (hypervisor,) = [int(pid) for pid in children if int(pid) != files]
    os.kill({"server": files, "hypervisor": hypervisor, "monitor": monitor}[victim], signal.SIGKILL)
    until(lambda: not daemon.inspect("box")["State"]["Running"])
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (monitor, files, hypervisor)))
    daemon.ok("start", "box")
    assert daemon.ok("exec", "box", "ls", "/d") == ""
    daemon.ok("rm", "-f", "box")
    until(lambda: not [line for line in processes_with([str(daemon.base)]) if "bastide.daemon" not in line])
    daemon.ok("volume", "rm", "vol")
    (tmp_path / "still ours").touch()


@pytest.mark.parametrize("paused", [False, True])
def test_memory_goes_with_volumes(daemon: Daemon, tmp_path: Path, paused: bool) -> None:
    """A process that works in a volume goes on in a clone and after a restore: its open files are what they were."""
    (tmp_path / "folder").mkdir()
    script = "exec 3>>/d/log; cd /d/folder; n=0; while :; do n=$((n+1)); echo $n >&3; echo $n > here; sleep 0.05; done"
    flags = ("-v", f"{tmp_path}:/d", "-v", f"{tmp_path}:/ro:ro")
    daemon.ok("run", "-d", "--isolation", "vm", "--name", "origin", *flags, "busybox", "sh", "-c", script)

    def grows() -> bool:
        before = (tmp_path / "log").stat().st_size
        time.sleep(0.5)
        return (tmp_path / "log").stat().st_size > before

    until(lambda: (tmp_path / "folder" / "here").exists())
    (tmp_path / "folder").rename(tmp_path / "moved")
    if paused:
        daemon.ok("pause", "origin")
    daemon.ok("snapshot", "create", "--memory", "origin", "one")
    if paused:
        daemon.ok("unpause", "origin")
    assert grows()
    daemon.ok("clone", "origin", "copy")
    daemon.ok("rm", "-f", "origin")
    assert grows()
    assert daemon.ok("exec", "copy", "sh", "-c", "touch /ro/x 2>/dev/null || echo no; ls /d") == "no\nlog\nmoved"
    daemon.ok("rm", "-f", "copy")
    assert not grows()
    daemon.ok("snapshot", "rm", "origin", "one")


def test_back_to_a_moment_with_volumes(daemon: Daemon, tmp_path: Path) -> None:
    """The memory goes back, the volume does not: what was removed meanwhile is an error for who holds it."""
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "lost").write_text("lost")
    daemon.ok(
        *("run", "-d", "--isolation", "vm", "--name", "box", "-v", f"{tmp_path}:/d", "busybox", "sh", "-c"),
        "exec 3</d/kept 4</d/lost; while [ ! -e /d/go ]; do sleep 0.1; done; "
        "{ cat <&3; cat <&4 || echo failed; echo end; } > /d/said 2>/dev/null; sleep 1000",
    )
    daemon.ok("exec", "box", "true")
    daemon.ok("snapshot", "create", "box", "one")
    (tmp_path / "lost").unlink()
    (tmp_path / "go").touch()
    until(lambda: (tmp_path / "said").exists() and "end" in (tmp_path / "said").read_text())
    assert (tmp_path / "said").read_text() == "keptlostend\n"
    (tmp_path / "said").unlink()
    daemon.ok("snapshot", "restore", "box", "one")
    until(lambda: (tmp_path / "said").exists() and "end" in (tmp_path / "said").read_text())
    assert (tmp_path / "said").read_text() == "keptfailed\nend\n"
    daemon.ok("rm", "-f", "box")
    daemon.ok("snapshot", "rm", "box", "one")


def test_a_daemon_that_dies_while_it_saves(daemon: Daemon, tmp_path: Path) -> None:
    """The guest that was held still for it goes on when the next daemon speaks to it."""
    daemon.ok("run", "-d", "--isolation", "vm", "--name", "box", "-v", f"{tmp_path}:/d", "busybox", "sleep", "1000")
    for wait in (0.02, 0.05, 0.1, 0.2):
        words = ("snapshot", "create", "--memory", "box", f"t{wait}")
        saving = subprocess.Popen(
            [*CLI, *words], env=daemon.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(wait)
        daemon.stop(signal.SIGKILL)
        saving.wait()
        daemon.start()
        assert daemon.ok("exec", "box", "sh", "-c", "echo x > /d/x; cat /d/x; rm /d/x") == "x"
    daemon.ok("rm", "-f", "box")
    for line in daemon.ok("snapshot", "ls", "--format", "{{.Container}} {{.Tag}}").splitlines():
        daemon.ok("snapshot", "rm", *line.split())
