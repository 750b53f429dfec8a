"""The rules as text, and when they are brought to the host."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import pytest

from bastide.host import nftables
from bastide.host.nftables import Element
from bastide.model.errors import HostError
from bastide.model.process import Interface
from bastide.network import Port
from bastide.network.firewall import (
    BridgeRules,
    Firewall,
    endpoint_elements,
    port_elements,
    resolver_elements,
    script,
)

DEFAULT = BridgeRules(
    bridge="bastide0",
    subnets=(ipaddress.ip_network("10.88.0.0/16"),),
    gateways=(ipaddress.ip_address("10.88.0.1"),),
)
CLOSED = BridgeRules(
    bridge="br-0123456789ab",
    subnets=(ipaddress.ip_network("10.90.0.0/24"), ipaddress.ip_network("fd00:90::/64")),
    gateways=(ipaddress.ip_address("10.90.0.1"), ipaddress.ip_address("fd00:90::1")),
    internal=True,
    within=False,
)
WEB = Interface(
    name="eth0", device="v1a2b00000001", mac="02:42:0a:58:00:02", addresses=("10.88.0.2/16", "fd00:88::2/64")
)


def port(host_ip: str, protocol: str = "tcp") -> Port:
    return Port(container_port=80, protocol=protocol, host_ip=host_ip, host_port=8080)


def elements() -> list[Element]:
    four, six = ipaddress.ip_address("10.88.0.2"), ipaddress.ip_address("fd00:88::2")
    found = endpoint_elements(WEB) + resolver_elements(ipaddress.ip_address("10.88.0.1"), 20053)
    found += port_elements(port("0.0.0.0"), four) + port_elements(port("::"), six)
    return found + port_elements(port("192.0.2.2", "udp"), four) + port_elements(port("2001:db8::2"), six)


def test_whole_tables(golden: Callable[[str, str], None]) -> None:
    golden("nft/tables.nft", script("bastide", [DEFAULT, CLOSED], elements()))


def test_what_the_kernel_cannot_forward_has_no_rule() -> None:
    four, six = ipaddress.ip_address("10.88.0.2"), ipaddress.ip_address("fd00:88::2")
    assert port_elements(port("::1"), six) == []
    assert port_elements(port("::"), four) == []
    assert port_elements(port("0.0.0.0"), six) == []
    assert len(port_elements(port("127.0.0.1"), four)) == 1


class Kernel:
    """Stands for nft and the session: says what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded: list[str] = []
        self.changed: list[tuple[int, int]] = []
        self.flushed = False
        monkeypatch.setattr(nftables, "load", self.load)
        monkeypatch.setattr(nftables.Session, "change", self.change)

    async def load(self, text: str) -> None:
        self.loaded.append(text)
        self.flushed = False

    def change(self, added: Iterable[Element], removed: Iterable[Element]) -> None:
        if self.flushed:
            raise HostError("nftables", 2, "macs")
        self.changed.append((len(list(added)), len(list(removed))))


async def test_endpoints_need_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    kernel.change = lambda added, removed: kernel.changed.append((len(added), len(removed)))  # type: ignore
    monkeypatch.setattr(nftables.Session, "change", lambda self, added, removed: kernel.change(added, removed))
    firewall = Firewall("t")
    await firewall.set_network(DEFAULT)
    await firewall.set_network(DEFAULT)
    assert len(kernel.loaded) == 1
    wanted = endpoint_elements(WEB)
    await firewall.change(wanted)
    await firewall.change(wanted)
    await firewall.change(removed=wanted)
    await firewall.change(removed=wanted)
    assert kernel.changed == [(len(wanted), 0), (0, len(wanted))]


async def test_flushed_tables_are_put_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)

    def refuse(self: nftables.Session, added: Iterable[Element], removed: Iterable[Element]) -> None:
        raise HostError("nftables", 2, "macs")

    monkeypatch.setattr(nftables.Session, "change", refuse)
    firewall = Firewall("t")
    await firewall.set_network(DEFAULT)
    await firewall.change(endpoint_elements(WEB))
    assert len(kernel.loaded) == 2
    assert "v1a2b00000001" in kernel.loaded[1]


async def test_the_tables_go_with_the_last_network(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    firewall = Firewall("t")
    await firewall.set_network(DEFAULT)
    await firewall.set_network(CLOSED)
    await firewall.remove_network(DEFAULT.bridge)
    assert "bastide0" not in kernel.loaded[-1]
    await firewall.remove_network(CLOSED.bridge)
    assert kernel.loaded[-1].split() == (
        "add table inet t delete table inet t add table bridge t delete table bridge t".split()
    )
