"""Images for other architectures: by emulation behind the VM's wall, by qemu-user behind the container's."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.living import Daemon, busybox_archive
from tests.registry import Registry, free_port

from bastide.host import binfmt
from bastide.model.errors import Unsupported

VM = ("--isolation", "vm")
ARM64 = ("--platform", "linux/arm64")
ARM = ("--platform", "linux/arm/v7")


@pytest.fixture(scope="module")
def image(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A reference on a registry that names an image for each of three architectures."""
    registry = Registry()
    folder = tmp_path_factory.mktemp("foreign")
    references = [
        registry.fill(busybox_archive(folder / f"{name}.tar", architecture=name), f"multi:{name}")
        for name in ("amd64", "arm64", "arm")
    ]
    yield registry.index("multi:1", references)
    daemon.clear()
    registry.close()


def answers(port: int) -> str:
    """What a web server on loopback gives, which may have to start first."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                return str(page.read().decode())
        except OSError:
            time.sleep(0.1)
    raise AssertionError("nobody answers")


def test_a_vm_for_another_architecture_has_the_same_verbs(daemon: Daemon, image: str, tmp_path: Path) -> None:
    daemon.ok("pull", "-q", *ARM64, image)
    (found,) = json.loads(daemon.ok("image", "inspect", image))
    assert (found["Os"], found["Architecture"]) == ("linux", "arm64")
    assert daemon.ok("run", "--rm", *ARM64, *VM, image, "uname", "-m") == "aarch64"
    port = free_port()
    daemon.ok("create", "--name", "web", *VM, "-p", f"127.0.0.1:{port}:80", image, "httpd", "-fvv", "-h", "/var/www")
    daemon.ok("start", "web")
    assert daemon.ok("ps", "--filter", "name=web", "--format", "{{.Platform}}") == "linux/arm64"
    assert answers(port) == "hello from the image\n"
    assert daemon.ok("exec", "web", "uname", "-m") == "aarch64"
    assert daemon.cli("exec", "web", "sh", "-c", "exit 9").returncode == 9
    (tmp_path / "file").write_text("copied")
    daemon.ok("cp", str(tmp_path / "file"), "web:/tmp/file")
    assert daemon.ok("exec", "web", "cat", "/tmp/file") == "copied"
    assert "response:200" in daemon.cli("logs", "web").stderr
    daemon.ok("kill", "web")
    assert daemon.ok("wait", "web") == "137"
    daemon.ok("rm", "web")


def test_a_volume_in_a_vm_for_another_architecture(daemon: Daemon, image: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host")
    script = "cat /v/in; uname -m > /v/out"
    said = daemon.ok("run", "--rm", *ARM64, *VM, "-v", f"{tmp_path}:/v", image, "sh", "-c", script)
    assert said == "from the host"
    assert (tmp_path / "out").read_text() == "aarch64\n"


def test_thirty_two_bits(daemon: Daemon, image: str) -> None:
    daemon.ok("pull", "-q", *ARM, image)
    (found,) = json.loads(daemon.ok("image", "inspect", image))
    assert (found["Architecture"], found["Variant"]) == ("arm", "v7")
    assert daemon.ok("run", "--rm", *ARM, *VM, image, "uname", "-m") == "armv7l"
    done = daemon.cli("run", "--rm", *ARM, *VM, "--memory", "4g", image, "true")
    assert done.returncode == 125
    assert "a VM for arm has at most 3072 MiB of memory" in done.stderr
    assert daemon.ok("ps", "-aq") == ""


def test_a_build_for_another_architecture(daemon: Daemon, image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM --platform=$BUILDPLATFORM {image} AS own\nRUN uname -m > /own\n"
        f"FROM {image}\nARG TARGETPLATFORM\nARG TARGETARCH\nARG TARGETVARIANT\nARG BUILDPLATFORM\n"
        "COPY --from=own /own /own\n"
        'RUN echo "$(uname -m) $TARGETPLATFORM $TARGETARCH/$TARGETVARIANT $BUILDPLATFORM" > /said\n'
    )
    daemon.ok("build", "-q", *ARM64, *VM, "-t", "foreign-built", str(tmp_path))
    try:
        (found,) = json.loads(daemon.ok("image", "inspect", "foreign-built"))
        assert found["Architecture"] == "arm64"
        host = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout
        said = daemon.ok("run", "--rm", *VM, "foreign-built", "cat", "/own", "/said")
        assert said == f"{host}aarch64 linux/arm64 arm64/ linux/amd64"
    finally:
        daemon.ok("rmi", "-f", "foreign-built")


@pytest.fixture
def handler() -> Iterator[Path]:
    """A handler for arm64 in binfmt_misc, made unless there is one; the file that `F` in its flags has open."""
    mount = binfmt.MOUNT
    mounted = not (mount / "register").exists()
    if mounted:
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", mount], check=True)
    own = mount / "bastide-test-arm64"
    try:
        binfmt.need("arm64")
    except Unsupported:
        mask = b"\xff" * 7 + b"\0" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
        program = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
        magic, masked = ("".join(f"\\x{byte:02x}" for byte in data) for data in (binfmt.header("arm64"), mask))
        (mount / "register").write_text(f":{own.name}:M::{magic}:{masked}:{program}:F")
    yield own
    if own.exists():
        own.write_text("-1")
    if mounted:
        subprocess.run(["umount", mount], check=True)


def test_a_container_needs_a_handler(daemon: Daemon, image: str, request: pytest.FixtureRequest) -> None:
    daemon.ok("pull", "-q", *ARM64, image)
    try:
        binfmt.need("arm64")
    except Unsupported:
        done = daemon.cli("run", "--rm", image, "true")
        assert done.returncode == 125
        (line,) = done.stderr.strip().splitlines()
        assert "is for linux/arm64 and this host is linux/amd64" in line
        assert "isolation container: binfmt_misc has no handler for arm64" in line
        assert "apt-get install qemu-user-static binfmt-support" in line
        assert "isolation vm: works here" in line
        assert daemon.ok("ps", "-aq") == ""
    request.getfixturevalue("handler")
    assert daemon.ok("run", "--rm", *ARM64, image, "uname", "-m") == "aarch64"
    warned = daemon.cli("run", "--rm", image, "true")
    assert warned.returncode == 0
    assert "does not match the detected host platform" in warned.stderr


def test_a_build_by_a_handler(daemon: Daemon, image: str, handler: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nRUN uname -m > /said\n")
    daemon.ok("build", "-q", *ARM64, "-t", "foreign-built", str(tmp_path))
    try:
        assert daemon.ok("run", "--rm", "foreign-built", "cat", "/said") == "aarch64"
    finally:
        daemon.ok("rmi", "-f", "foreign-built")


def test_nothing_runs_what_nobody_emulates(daemon: Daemon, tmp_path: Path) -> None:
    daemon.ok("load", "--input", str(busybox_archive(tmp_path / "image.tar", "alien:1", architecture="s390x")))
    try:
        for isolation in ("container", "vm"):
            done = daemon.cli("run", "--rm", "--isolation", isolation, "alien:1", "true")
            assert done.returncode == 125
            assert "no VM runs programs for s390x: choose one of amd64, arm64, arm" in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
    finally:
        daemon.ok("rmi", "-f", "alien:1")
