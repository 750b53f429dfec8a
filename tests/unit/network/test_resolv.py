"""/etc/hosts and /etc/resolv.conf."""

from __future__ import annotations

from pathlib import Path

import pytest

from bastide.model.errors import InvalidArgument
from bastide.network import resolv
from bastide.network.resolv import HostResolv, Resolv


def test_parse_takes_what_the_c_library_takes() -> None:
    text = "# comment\nnameserver 10.0.0.1 # first\nnameserver nonsense\nnameserver fe80::1%eth0\ndomain old\n"
    text += "search a.example b.example\noptions ndots:2\noptions rotate ; edns0\nsortlist 1.2.3.4\n"
    assert resolv.parse(text) == Resolv(
        servers=("10.0.0.1", "fe80::1%eth0"), search=("a.example", "b.example"), options=("ndots:2", "rotate")
    )


def test_the_host_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, behind = tmp_path / "resolv.conf", tmp_path / "behind"
    monkeypatch.setattr(resolv, "BEHIND_STUB", behind)
    host = HostResolv(file)
    assert host.servers() == ()
    file.write_text("nameserver 127.0.0.53\n")
    assert host.servers() == ("127.0.0.53",)
    assert host.reachable() == ()
    behind.write_text("nameserver 10.0.0.9\n")
    assert host.reachable() == ("10.0.0.9",)
    file.write_text("nameserver 10.0.0.1\nnameserver ::1\n")
    assert host.reachable() == ("10.0.0.1",)
    file.unlink()
    assert host.read() == Resolv()


def test_resolv_conf_takes_the_hosts_domains_unless_told() -> None:
    host = Resolv(servers=("1.1.1.1",), search=("corp.example",), options=("ndots:3",))
    text = resolv.resolv_conf(["10.88.0.1"], None, None, host)
    assert text.splitlines()[1:] == ["nameserver 10.88.0.1", "search corp.example", "options ndots:3"]
    text = resolv.resolv_conf(["10.88.0.1"], ["own.example"], ["edns0"], host)
    assert text.splitlines()[1:] == ["nameserver 10.88.0.1", "search own.example", "options edns0"]
    assert "search" not in resolv.resolv_conf(["10.88.0.1"], ["."], [], host)


def test_hosts_file() -> None:
    text = resolv.hosts_file("tower", "keep.example", ["10.88.0.2", "fd00::2"], [("db", "10.88.0.3")])
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-3:] == [
        "10.88.0.3\tdb",
        "10.88.0.2\ttower.keep.example tower",
        "fd00::2\ttower.keep.example tower",
    ]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("db:10.0.0.1", ("db", "10.0.0.1")),
        ("db=10.0.0.1", ("db", "10.0.0.1")),
        ("six:fd00::1", ("six", "fd00::1")),
        ("six=[fd00::1]", ("six", "fd00::1")),
        ("host.docker.internal:host-gateway", ("host.docker.internal", "10.88.0.1")),
    ],
)
def test_extra_hosts(entry: str, expected: tuple[str, str]) -> None:
    assert resolv.extra_host(entry, "10.88.0.1") == expected


@pytest.mark.parametrize(
    "entry", ["", "db", ":10.0.0.1", "db:", "db:nowhere", "a\n6.6.6.6 bank:10.0.0.1", "a b:10.0.0.1", "a#:10.0.0.1"]
)
def test_extra_hosts_that_would_write_more_than_a_line(entry: str) -> None:
    with pytest.raises(InvalidArgument):
        resolv.extra_host(entry, "10.88.0.1")
