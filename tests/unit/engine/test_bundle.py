"""From records to processes: capabilities, signals, environments."""

from __future__ import annotations

import pytest

from bastide.engine import bundle
from bastide.engine.log_options import parse_size
from bastide.engine.mounts import parse_bind
from bastide.model.container import HostConfig
from bastide.model.errors import InvalidArgument


def test_default_capabilities_are_dockers_fourteen() -> None:
    assert set(bundle.capabilities(HostConfig())) == set(bundle.DEFAULT_CAPABILITIES)
    assert len(bundle.DEFAULT_CAPABILITIES) == 14


@pytest.mark.parametrize(
    ("add", "drop", "has", "has_not"),
    [
        (["net_admin"], [], "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
        (["ALL"], ["SYS_ADMIN"], "CAP_BPF", "CAP_SYS_ADMIN"),
        (["CHOWN"], ["ALL"], "CAP_CHOWN", "CAP_KILL"),
        ([], ["CAP_CHOWN"], "CAP_KILL", "CAP_CHOWN"),
    ],
)
def test_added_and_dropped(add: list[str], drop: list[str], has: str, has_not: str) -> None:
    found = bundle.capabilities(HostConfig(cap_add=add, cap_drop=drop))
    assert has in found
    assert has_not not in found


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="CAP_MAGIC"):
        bundle.capabilities(HostConfig(cap_add=["magic"]))


@pytest.mark.parametrize(("name", "number"), [("SIGTERM", 15), ("kill", 9), ("2", 2), ("SIGRTMIN+3", 37), ("hup", 1)])
def test_signals(name: str, number: int) -> None:
    assert bundle.signal_number(name) == number


@pytest.mark.parametrize("name", ["", "SIGNOPE", "0", "65", "-9", "SIG_BLOCK", "Signals"])
def test_bad_signals_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid signal"):
        bundle.signal_number(name)


def test_binds_and_volumes() -> None:
    assert parse_bind("/a:/b:ro").type == "bind"
    assert parse_bind("/a:/b:ro").read_only is True
    named = parse_bind("data:/b:nocopy")
    assert (named.type, named.source) == ("volume", "data")


@pytest.mark.parametrize("text", ["/a", ":/b", "/a:/b:bogus", "a:b:c:d", "data:/b:rshared"])
def test_bad_binds_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_bind(text)


@pytest.mark.parametrize(("text", "size"), [("10m", 10 << 20), ("1.5k", 1536), ("7", 7), ("2GB", 2 << 30), ("-1", -1)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "ten", "5x", "k"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_size(text)
