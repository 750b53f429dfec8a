"""Control messages: a process and an identity as fields."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bastide.hypervisor.frames import Field
from bastide.hypervisor.process import identity, interface, specification
from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument
from bastide.model.process import Bundle, DiskRoot, Interface, Mount, Process, TerminalSize


def parsed(data: bytes) -> list[tuple[Field, bytes]]:
    found = []
    at = 0
    while at < len(data):
        tag, length = struct.unpack_from("<BI", data, at)
        found.append((Field(tag), data[at + 5 : at + 5 + length]))
        assert data[at + 5 + length] == 0
        at += 6 + length
    return found


def test_a_process() -> None:
    process = Process(
        args=("sh", "-c", "echo ü"),
        env=("A=b",),
        cwd="/x",
        user="web:extra",
        terminal=True,
        size=TerminalSize(rows=70_000, columns=80),
        capabilities=("CAP_CHOWN", "CAP_KILL"),
        rlimits=(("RLIMIT_NOFILE", 10, -1),),
    )
    fields = dict(parsed(specification(process, init=True, oom_score=-5)))
    assert fields[Field.ARGS] == "sh\0-c\0echo ü".encode()
    assert fields[Field.TERMINAL] == struct.pack("<HH", 65535, 80)
    assert fields[Field.CAPABILITIES] == struct.pack("<Q", 1 << 0 | 1 << 5)
    assert fields[Field.RLIMIT] == struct.pack("<IQQ", 7, 10, (1 << 64) - 1)
    assert fields[Field.OOM_SCORE] == struct.pack("<i", -5)
    assert Field.INIT in fields
    assert Field.STDIN not in fields


@pytest.mark.parametrize(
    "process",
    [
        Process(args=()),
        Process(args=("",)),
        Process(args=("a\0b",)),
        Process(args=("a",), env=("A=\0",)),
        Process(args=("a",), rlimits=(("RLIMIT_NONSENSE", 1, 1),)),
    ],
)
def test_what_no_guest_could_run(process: Process) -> None:
    with pytest.raises(InvalidArgument):
        specification(process)


def bundle(tmp_path: Path, **host: object) -> Bundle:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    return Bundle(
        id="x",
        name="x",
        directory=tmp_path,
        root=DiskRoot(base=tmp_path, upper=tmp_path),
        process=Process(args=("true",)),
        hostname="guest1",
        host_config=HostConfig(**host),  # type: ignore[arg-type]
        mounts=(Mount(kind="tmpfs", target="/t", options=("size=1m",), read_only=True),),
        hosts=hosts,
    )


def test_identity_begins_with_entropy_and_time(tmp_path: Path) -> None:
    first, second = (parsed(identity(bundle(tmp_path))) for _ in range(2))
    assert [tag for tag, _ in first[:2]] == [Field.SEED, Field.TIME]
    assert len(first[0][1]) == 256
    assert first[0] != second[0]


def test_identity(tmp_path: Path) -> None:
    fields = dict(parsed(identity(bundle(tmp_path, readonly_rootfs=True, auto_remove=True, sysctls={"a.b": "1"}))))
    assert fields[Field.HOSTNAME] == b"guest1"
    assert fields[Field.HOSTS] == b"127.0.0.1 localhost\n"
    assert fields[Field.TMPFS] == b"/t\0size=1m,ro"
    assert fields[Field.SYSCTL] == b"a.b\0001"
    assert {Field.READONLY, Field.DISCARD, Field.DISKS} <= fields.keys()
    assert Field.DISKS not in dict(parsed(identity(bundle(tmp_path), mounted=True)))


def test_an_interface() -> None:
    link = Interface(
        name="eth0", device="tap0", mac="02:42:00:00:00:01", addresses=("10.0.0.2/24",), gateways=("10.0.0.1",)
    )
    assert interface(1, link).decode().splitlines() == [
        "nic 1",
        "name eth0",
        "mac 02:42:00:00:00:01",
        "mtu 1500",
        "up 1",
        "address 10.0.0.2/24",
        "gateway 10.0.0.1",
    ]
    with pytest.raises(InvalidArgument):
        interface(0, Interface(name="eth0\nup 1", device="", mac=""))
