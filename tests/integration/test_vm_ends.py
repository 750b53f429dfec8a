"""How VMs end, and what goes wrong with their snapshots: one clear line, a true record, nothing left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.living import CLI, Daemon, busybox_archive, mounts_below

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def cleared(daemon: Daemon) -> Iterator[None]:
    """What a test leaves behind is removed; a VM leaves nothing else."""
    yield
    daemon.clear()
    for line in daemon.ok("snapshot", "ls", "--format", "{{.Container}} {{.Tag}}").splitlines():
        daemon.ok("snapshot", "rm", *line.split())
    bundles = daemon.run_root / "qemu" / "bundles"
    until(lambda: not list(bundles.iterdir()))
    assert not list((daemon.run_root / "qemu" / "uids").iterdir())


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def start(daemon: Daemon, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> None:
    daemon.ok("run", "-d", "--isolation", "vm", "--name", "box", *flags, "busybox", *command)


def hypervisor(daemon: Daemon) -> int:
    """QEMU's pid: the child of the process that stands for the container."""
    monitor = daemon.inspect("box")["State"]["Pid"]
    return int(Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()[0])


def ended(daemon: Daemon) -> dict[str, object]:
    until(lambda: not daemon.inspect("box")["State"]["Running"])
    state: dict[str, object] = daemon.inspect("box")["State"]
    return state


def test_a_hypervisor_that_is_killed(daemon: Daemon) -> None:
    start(daemon)
    os.kill(hypervisor(daemon), signal.SIGKILL)
    state = ended(daemon)
    assert (state["Status"], state["ExitCode"], state["OOMKilled"], state["Pid"]) == ("exited", 137, False, 0)
    assert daemon.cli("logs", "box").stderr == "bastide: the virtual machine ended before its process: Killed\n"
    daemon.ok("start", "box")
    assert daemon.ok("exec", "box", "echo", "again") == "again"


def test_a_hypervisor_that_is_killed_amid_everything(daemon: Daemon) -> None:
    """At any moment of a start and of an exec: the call ends with one line, the next one works."""
    for delay in (0.02, 0.05, 0.1, 0.2):
        daemon.ok("create", "--isolation", "vm", "--name", "box", "busybox", "sleep", "1000")
        starting = subprocess.Popen(
            [*CLI, "start", "box"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=daemon.environment,
            text=True,
        )
        until(lambda: qemus(daemon))
        time.sleep(delay)
        for pid in qemus(daemon):
            os.kill(pid, signal.SIGKILL)
        _, said = starting.communicate(timeout=60)
        assert said.count("\n") <= 2
        assert "Traceback" not in said
        until(lambda: not qemus(daemon))
        until(lambda: daemon.inspect("box")["State"]["Status"] in ("exited", "created"))
        daemon.ok("rm", "-f", "box")
    start(daemon)
    assert daemon.ok("exec", "box", "echo", "well") == "well"


def qemus(daemon: Daemon) -> list[int]:
    """Pids of the daemon's QEMU processes: the children of what their pid files name."""
    found = []
    for bundle in (daemon.run_root / "qemu" / "bundles").glob("*"):
        try:
            monitor = int((bundle / "pid").read_text())
            found += [int(word) for word in Path(f"/proc/{monitor}/task/{monitor}/children").read_text().split()]
        except (OSError, ValueError):
            continue
    return found


def test_a_guest_that_panics(daemon: Daemon) -> None:
    start(daemon, "--privileged", command=("sh", "-c", "sleep 1; echo c > /proc/sysrq-trigger; sleep 100"))
    state = ended(daemon)
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)
    said = daemon.cli("logs", "box").stderr
    assert "Kernel panic" in said
    assert said.count("\n") == 1


def test_a_guest_that_panics_comes_back_by_its_policy(daemon: Daemon) -> None:
    script = "test -e /once && sleep 1000; touch /once; sync; echo c > /proc/sysrq-trigger; sleep 100"
    start(daemon, "--privileged", "--restart", "on-failure", command=("sh", "-c", script))
    until(lambda: daemon.inspect("box")["RestartCount"] == 1)
    until(lambda: daemon.inspect("box")["State"]["Status"] == "running")
    assert daemon.ok("exec", "box", "echo", "again") == "again"


def test_a_guest_out_of_memory(daemon: Daemon) -> None:
    start(daemon, "--memory", "32m", command=("sh", "-c", "x=a; while :; do x=$x$x; done"))
    state = ended(daemon)
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 137, True)


def test_an_image_with_one_program_and_nothing_else(daemon: Daemon, tmp_path: Path) -> None:
    binary = Path("/bin/busybox").read_bytes()
    with tarfile.open(tmp_path / "bare.tar", "w") as tar:
        info = tarfile.TarInfo("echo")
        info.size, info.mode = len(binary), 0o755
        tar.addfile(info, io.BytesIO(binary))
    daemon.ok("import", str(tmp_path / "bare.tar"), "bare:latest")
    for isolation in ("container", "vm"):
        assert daemon.ok("run", "--rm", "--isolation", isolation, "bare", "/echo", "hello") == "hello"
        done = daemon.cli("run", "--rm", "--isolation", isolation, "bare", "sh", "-c", "true")
        assert done.returncode == 127
        assert "executable file not found in $PATH" in done.stderr
        assert done.stderr.count("\n") <= 2
    daemon.ok("rmi", "bare")


def manifest(daemon: Daemon) -> Path:
    (found,) = (daemon.data / "snapshots").glob("*/manifest")
    return found


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("version", [99, 1, 0], "was saved by QEMU 99.1.0"), ("processor", "Zilog Z80", "was saved on 'Zilog Z80'")],
)
def test_a_snapshot_from_another_computer(daemon: Daemon, field: str, value: object, said: str) -> None:
    start(daemon)
    daemon.ok("exec", "box", "sh", "-c", "echo first > /state; sync")
    daemon.ok("snapshot", "create", "box", "one")
    daemon.ok("exec", "box", "sh", "-c", "echo second > /state; sync")
    text = json.loads(manifest(daemon).read_text())
    (text["machine"] if field == "version" else text)[field] = value
    manifest(daemon).write_text(json.dumps(text))
    done = daemon.cli("snapshot", "restore", "box", "one")
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert daemon.ok("exec", "box", "cat", "/state") == "second"
    daemon.ok("snapshot", "restore", "--disk-only", "box", "one")
    assert daemon.ok("exec", "box", "cat", "/state") == "first"


def test_a_full_disk_while_a_snapshot_is_written(tmp_path: Path) -> None:
    made = Daemon("fv", "10.94.0.0/16", "10.104.0.0/16", prepared_namespaces="1")
    made.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", made.data], check=True)
    try:
        made.start()
        made.ok("load", "--input", str(busybox_archive(tmp_path / "small.tar")))
        start(made)
        left = os.statvfs(made.data)
        (made.data / "filler").write_bytes(b"x" * (left.f_bavail * left.f_bsize - (2 << 20)))
        done = made.cli("snapshot", "create", "box", "one")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
        assert made.ok("snapshot", "ls", "-q") == ""
        assert not list((made.data / "snapshots").iterdir())
        (made.data / "filler").unlink()
        assert made.ok("exec", "box", "echo", "well") == "well"
        made.ok("snapshot", "create", "box", "one")
        made.ok("snapshot", "restore", "box", "one")
        assert made.ok("exec", "box", "echo", "well") == "well"
    finally:
        made.close()
    assert not mounts_below(made.base)


def test_a_daemon_that_is_killed_while_files_are_put_into_a_stopped_vm(daemon: Daemon) -> None:
    daemon.ok("create", "--isolation", "vm", "--name", "box", "busybox", "ls", "/tmp")
    copying = subprocess.Popen([*CLI, "cp", "-", "box:/tmp"], stdin=subprocess.PIPE, env=daemon.environment)
    assert copying.stdin is not None
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("first"))
    copying.stdin.write(whole.getvalue()[:512])
    copying.stdin.flush()
    until(lambda: list((daemon.run_root / "qemu" / "bundles").glob("*")))
    daemon.stop(signal.SIGKILL)
    copying.stdin.close()
    copying.wait()
    daemon.start()
    assert daemon.inspect("box")["State"]["Status"] == "created"
    until(lambda: not list((daemon.run_root / "qemu" / "bundles").glob("*")))
    assert daemon.cli("start", "-a", "box").returncode == 0
