"""What a VM's file server and its guest are told of mounts, and what is refused before a VM is made."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bastide.hypervisor import shares
from bastide.hypervisor.plan import Plan
from bastide.hypervisor.process import identity
from bastide.model.container import HostConfig
from bastide.model.errors import Conflict, InvalidArgument, NotFound, Unsupported
from bastide.model.process import Bundle, DiskRoot, Mount, Process


def bind(source: str | Path, *options: str, **changes: object) -> Mount:
    options = options or ("rbind",)
    return Mount(kind="bind", target="/t", source=Path(source), options=options, **changes)  # type: ignore[arg-type]


def test_what_the_server_is_told() -> None:
    plan = Plan(1)
    mounts = [
        bind("/a b"),
        Mount(kind="tmpfs", target="/m"),
        bind("/b", read_only=True),
        bind("/c", "rbind", "ro-non-recursive", read_only=True, propagation="rslave"),
        bind("/d", "bind"),
        bind("/e", "rbind", "x-subpath=x/../y z"),
    ]
    shares.plan(plan, mounts)
    assert plan.text().splitlines() == [
        "uid 1",
        "share recursive /a b",
        "share recursive,ro-below /b",
        "share recursive,ro,slave /c",
        "share - /d",
        "share recursive /e",
        "within x/../y z",
    ]


@pytest.mark.parametrize("path", ["/a\nfd 10 write /etc/shadow", "/a\0b"])
def test_no_path_adds_a_line(path: str) -> None:
    for mount in (bind(path), bind("/a", "rbind", f"x-subpath={path}")):
        with pytest.raises(InvalidArgument):
            shares.plan(Plan(1), [mount])


def test_the_guest_takes_them_in_their_order(tmp_path: Path) -> None:
    bundle = Bundle(
        id="x",
        name="x",
        directory=tmp_path,
        root=DiskRoot(base=tmp_path, upper=tmp_path),
        process=Process(args=("true",)),
        hostname="guest",
        host_config=HostConfig(),
        mounts=(
            bind("/a", read_only=True),
            Mount(kind="tmpfs", target="/t/m", options=("size=1m",)),
            bind("/b", "rbind", "ro-non-recursive", read_only=True),
        ),
    )
    data = identity(bundle)
    places = [data.index(text) for text in (b"0\0/t\0ro", b"/t/m\0size=1m", b"1\0/t\0rw")]
    assert places == sorted(places)


def refusals(tmp_path: Path) -> list[tuple[Mount, type[Exception], str]]:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    return [
        (bind(tmp_path / "absent"), Conflict, "bind source path does not exist"),
        (bind(tmp_path, "rbind", "x-subpath=absent"), NotFound, "cannot access path"),
        (bind(tmp_path, propagation="rshared"), Unsupported, "propagation rshared: use rslave"),
        (bind(tmp_path / "socket"), Unsupported, "it is a socket"),
        (bind(tmp_path / "pipe"), Unsupported, "it is a named pipe"),
        (bind("/dev/null"), Unsupported, "it is a device"),
    ]


def test_refusals(tmp_path: Path) -> None:
    for mount, error, words in refusals(tmp_path):
        with pytest.raises(error, match=words):
            shares.check([mount])
    with pytest.raises(InvalidArgument, match="at most 256"):
        shares.check([bind(tmp_path)] * 257)
    shares.check([bind(tmp_path)] * 256)


def test_the_limit_is_the_monitors(request: pytest.FixtureRequest) -> None:
    header = (request.config.rootpath / "monitor" / "vmm.h").read_text()
    assert f"#define MAX_SHARES {shares.LIMIT}\n" in header
