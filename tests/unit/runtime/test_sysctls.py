"""Kernel parameters that are not the container's own are refused (ATTACKS 20)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument
from bastide.model.process import Bundle, DirectoryRoot, Networking, Process
from bastide.runtime.sysctls import settings

BUNDLE = Bundle(
    id="c",
    name="c",
    directory=Path("/d"),
    root=DirectoryRoot(path=Path("/r")),
    process=Process(args=("sh",)),
    hostname="h",
    host_config=HostConfig(),
)
HOST_NETWORK = msgspec.structs.replace(BUNDLE, networking=Networking(host=True))
SHARED_IPC = msgspec.structs.replace(BUNDLE, namespaces={"ipc": "host"})


def test_defaults() -> None:
    assert settings(HostConfig(), BUNDLE) == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert settings(HostConfig(), HOST_NETWORK) == {}


def test_wishes() -> None:
    wanted = {
        "net.ipv4.ip_unprivileged_port_start": "1024",
        "net.ipv6.conf.eth0.disable_ipv6": "1",
        "kernel.shmmax": "1000",
        "kernel.sem": "250\t32000 32 128",
        "fs.mqueue.msg_max": "5",
    }
    assert wanted.items() <= settings(HostConfig(sysctls=wanted), BUNDLE).items()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.core_pattern", "|/bin/evil"),
        ("kernel.shmmax", "1+kernel.core_pattern=|/bin/evil"),
        ("net.ipv4.ping_group_range", "0 1\nkernel.core_pattern=x"),
        ("net/../kernel/core_pattern", "x"),
        ("net...kernel.core_pattern", "x"),
        ("net.ipv4/../../kernel/core_pattern", "x"),
        ("net.", "1"),
        ("net", "1"),
        ("", "1"),
        ("vm.overcommit_memory", "1"),
        ("kernel.modprobe", "/x"),
        ("kernel.msgmax\0", "1"),
        ("fs.file-max", "1"),
        ("NET.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_forward\n", "1"),
    ],
)
def test_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match="sysctl"):
        settings(HostConfig(sysctls={name: value}), BUNDLE)


def test_shared_namespaces() -> None:
    with pytest.raises(InvalidArgument, match="host network"):
        settings(HostConfig(sysctls={"net.ipv4.ip_forward": "1"}), HOST_NETWORK)
    with pytest.raises(InvalidArgument, match="ipc"):
        settings(HostConfig(sysctls={"kernel.msgmax": "1"}), SHARED_IPC)
