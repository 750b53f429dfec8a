"""Bad input and a bad host: one clear line, the right exit code, nothing left behind."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import CLI, ROOT, Daemon, busybox_archive
from tests.registry import Registry, free_port


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def assert_clear(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The exit code is right and the error is one line (and perhaps a pointer to help) that says `words`."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 3, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, (word, done.stderr)


def assert_no_containers(daemon: Daemon) -> None:
    assert daemon.ok("ps", "-aq") == ""


def test_unknown_image_in_a_registry(daemon: Daemon, registry: Registry) -> None:
    assert_clear(daemon.cli("run", "--rm", f"{registry.host}/nothing:1", "true"), 125, "nothing")
    assert_clear(daemon.cli("pull", f"{registry.host}/nothing:1"), 1, "nothing")
    assert_no_containers(daemon)


def test_registry_that_is_down(daemon: Daemon) -> None:
    assert_clear(daemon.cli("pull", f"127.0.0.1:{free_port()}/any:1"), 1)


@pytest.mark.parametrize("name", ["UPPER", "a//b", "../x", "a b", ":tag", "a@sha256:1234", "-x", ""])
def test_invalid_references(daemon: Daemon, name: str) -> None:
    done = daemon.cli("pull", "--", name)
    assert done.returncode in (1, 125)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--no-such-flag"],
        ["--memory", "lots"],
        ["--memory", "1k"],
        ["-p", "99999:1"],
        ["-p", "a:b"],
        ["--cpus", "-1"],
        ["--isolation", "wish"],
        ["--runtime", "wish"],
        ["--restart", "maybe"],
        ["-v", "relative/path:/x"],
        ["-v", "/tmp:relative"],
        ["--network", "no-such-network"],
        ["--ulimit", "nofile=x"],
        ["--cap-add", "MAGIC"],
        ["--security-opt", "seccomp=/no/such/file"],
        ["--name=-x"],
        ["--name", "../x"],
        ["--hostname", "a\nb"],
        ["--add-host", "a\n127.0.0.1 b:1.2.3.4"],
        ["--sysctl", "kernel.core_pattern=|/bin/sh"],
        ["--sysctl", "net.ipv4.ip_forward=1+kernel.core_pattern=x"],
        ["--stop-signal", "NOPE"],
        ["--user", "no-such-user"],
        ["--workdir", "relative"],
        ["--platform", "linux/wish"],
        ["--mount", "type=wish,target=/x"],
        ["--mount", "type=bind,source=/no/such/source,target=/x"],
        ["--rm", "--restart", "always"],
        ["--gpus", "all"],
        ["--device", "/dev/no-such-device"],
        ["--log-driver", "wish"],
    ],
    ids=lambda flags: " ".join(flags).replace("\n", "\\n"),
)
def test_invalid_flags_leave_nothing(daemon: Daemon, flags: list[str]) -> None:
    # "no such file or directory" in the daemon's answer is 127 for Docker's command line too.
    assert_clear(daemon.cli("run", "--rm", *flags, "busybox", "true"), 127 if flags[0] == "--device" else 125)
    assert_no_containers(daemon)


def test_a_port_that_is_taken(daemon: Daemon) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = daemon.cli("run", "--rm", "-p", f"127.0.0.1:{port}:80", "busybox", "true")
    assert_clear(done, 125, str(port), "port is already allocated")
    assert_no_containers(daemon)


def test_an_image_for_another_architecture(daemon: Daemon, tmp_path: Path) -> None:
    source = busybox_archive(tmp_path / "a.tar", "alien:latest")
    target = tmp_path / "b.tar"
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        names = json.loads(old.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        for member in old.getmembers():
            data = old.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == names["Config"]:
                data = data.replace(b'"amd64"', b'"s390x"')
                member.name = hashlib.sha256(data).hexdigest() + ".json"
                config = member.name
            member.size = len(data)
            if member.name != "manifest.json":
                new.addfile(member, io.BytesIO(data))
        listing = json.dumps([{**names, "Config": config}]).encode()
        info = tarfile.TarInfo("manifest.json")
        info.size = len(listing)
        new.addfile(info, io.BytesIO(listing))
    daemon.ok("load", "--input", str(target))
    try:
        done = daemon.cli("run", "--rm", "alien", "true")
        assert_clear(done, 125, "s390x")
    finally:
        daemon.ok("rmi", "-f", "alien")
    assert_no_containers(daemon)


def test_two_daemons_on_one_store(daemon: Daemon) -> None:
    flags = [word for name, value in daemon.settings.items() for word in ("--set", f"{name}={value}")]
    flags += ["--set", f"run_root={daemon.base / 'other'}"]
    done = subprocess.run(
        [sys.executable, "-m", "bastide.daemon", "--config", "/nonexistent", *flags],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        check=False,
    )
    assert_clear(done, 125, "another daemon uses")


def test_a_corrupt_state_file(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "state.db").write_bytes(b"no database " * 500)
    done = subprocess.run(
        [sys.executable, "-m", "bastide.daemon", "--config", "/nonexistent", "--set", f"data_root={data}",
         "--set", f"run_root={tmp_path / 'run'}", "--set", "bridge=bstxx", "--set", "firewall_table=bastide_xx"],
        capture_output=True, text=True, timeout=30,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, check=False,
    )  # fmt: skip
    assert_clear(done, 125, "state.db", "cannot be read")


def test_no_daemon_is_one_line(tmp_path: Path, daemon: Daemon) -> None:
    done = subprocess.run(
        [*CLI, "ps"], capture_output=True, text=True, timeout=30, check=False,
        env=daemon.environment | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "BASTIDE_HOST": f"unix://{tmp_path}/none.sock"},
    )  # fmt: skip
    assert_clear(done, 1, "none.sock")


def test_runtime_programs_missing(tmp_path: Path) -> None:
    """A host without QEMU says so when a VM is asked for, and runs containers all the same."""
    made = Daemon("np", "10.97.0.0/16", "10.103.0.0/16")
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/bin", "/usr/sbin", "/bin", "/sbin"):
        for program in Path(folder).iterdir():
            if not program.name.startswith("qemu") and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    try:
        made.path = str(programs)
        made.start()
        made.ok("load", "--input", str(busybox_archive(made.base / "busybox.tar")))
        assert made.ok("run", "--rm", "busybox", "echo", "here") == "here"
        done = made.cli("run", "--rm", "--isolation", "vm", "busybox", "true")
        assert_clear(done, 125, "qemu")
    finally:
        made.close()
