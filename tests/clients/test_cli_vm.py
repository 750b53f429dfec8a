"""What a VM cannot do, it refuses by name, and nothing half-made stays."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.clients.conftest import Docker

pytestmark = pytest.mark.beyond


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--device", "/dev/null"], "--device"),
        (["--network", "host"], "--network host"),
        (["--pid", "host"], "a shared namespace (--pid host)"),
        (["--ipc", "host", "--uts", "host"], "a shared namespace (--ipc host --uts host)"),
        (["--network", "container:other"], "--network container:NAME"),
    ],
    ids=str,
)
def test_refusals(docker: Docker, flags: list[str], word: str) -> None:
    done = docker("create", "--isolation", "vm", *flags, "busybox", code=1)
    assert "isolation vm does not offer" in done.err
    assert f"{word}: leave it out or use --isolation container" in done.err
    assert docker.ok("ps", "-aq") == ""
    assert docker.ok("volume", "ls", "-q") == ""


def test_the_isolation_is_shown(docker: Docker) -> None:
    docker("create", "--isolation", "vm", "--name", "walled", "busybox", "true")
    assert docker.field("walled", "{{.HostConfig.Isolation}} {{.HostConfig.Runtime}}") == "vm qemu"
    assert docker.ok("ps", "-a", "--filter", "isolation=vm", "--format", "{{.Names}}") == "walled"


def test_one_image_two_kernels(docker: Docker) -> None:
    shared = docker.ok("run", "--rm", "--isolation", "container", "busybox", "uname", "-r")
    own = docker.ok("run", "--rm", "--isolation", "vm", "busybox", "uname", "-r")
    assert shared != own


def test_volumes(docker: Docker, tmp_path: object) -> None:
    docker("volume", "create", "data")
    flags = ("-v", "data:/data", "-v", f"{tmp_path}:/host:ro", "--tmpfs", "/scratch")
    script = "echo x > /data/x; touch /host/x 2>/dev/null || echo no; cat /data/x"
    assert docker.ok("run", "--rm", "--isolation", "vm", *flags, "busybox", "sh", "-c", script) == "no\nx"
    assert docker.ok("run", "--rm", "--isolation", "container", "-v", "data:/d", "busybox", "cat", "/d/x") == "x"


def test_mounts_that_only_the_hosts_kernel_has(docker: Docker, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(tmp_path / "socket"))
        for source, way in ((tmp_path / "socket", "host-gateway"), (Path("/dev/null"), "--isolation container")):
            done = docker("run", "--rm", "--isolation", "vm", "-v", f"{source}:/there", "busybox", "true", code=125)
            assert f"does not offer a bind mount of {source}" in done.err
            assert way in done.err
    done = docker("run", "--isolation", "vm", "-v", f"{tmp_path}:/there:shared", "busybox", "true", code=125)
    assert "use rslave or rprivate" in done.err
