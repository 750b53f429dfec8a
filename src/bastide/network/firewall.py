"""The daemon's own firewall tables: one of the family `inet`, one of `bridge`, both named by the settings.

The rules are fixed; what changes are elements of sets and maps. A network that comes or goes replaces
both tables in one transaction; an endpoint or a published port is a few elements by netlink. The model
in memory is the truth: should somebody have flushed the tables, the next change puts them back.

What they do: masquerade what leaves for the outside; publish ports (before routing, and for the host's
own connections); keep networks apart; keep loopback addresses, link-local metadata services and other
networks' gateways out of reach; on the bridges, let a port send only as itself (MAC, ARP, IPv4, IPv6,
neighbour advertisements) and never as a router.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path

from bastide.host import nftables
from bastide.host.nftables import Bits128, Device, Element, Mac, Part, Protocol
from bastide.host.nftables import Port as PortNumber
from bastide.host.syscalls import blocking
from bastide.model.errors import HostError
from bastide.model.process import Interface, Struct
from bastide.network import Port
from bastide.network.ipam import Address, Subnet, link_local

_RULES = Path(__file__).with_name("rules.nft")


class BridgeRules(Struct, frozen=True, kw_only=True):
    """What the firewall needs to know of a network."""

    bridge: str
    subnets: tuple[Subnet, ...]
    gateways: tuple[Address, ...]
    masquerade: bool = True
    internal: bool = False
    within: bool = True
    """Whether its endpoints may speak to each other."""


def endpoint_elements(interface: Interface) -> list[Element]:
    """What lets an endpoint's port on the bridge send as itself."""
    device = Device(interface.device)
    found = [
        Element("bridge", "ports", (device,)),
        Element("bridge", "macs", (device, Mac(interface.mac))),
    ]
    for cidr in interface.all_addresses:
        own = ipaddress.ip_interface(cidr).ip
        found.append(Element("bridge", f"sources{own.version}", (device, own)))
        if own.version == 6:
            local = link_local(interface.mac)
            found.append(Element("bridge", "targets6", (device, Bits128(own))))
            found.append(Element("bridge", "sources6", (device, local)))
            found.append(Element("bridge", "targets6", (device, Bits128(local))))
    return found


def port_elements(port: Port, target: Address) -> list[Element]:
    """What sends a published port to `target`; none when the families differ (a proxy does that)."""
    bound = ipaddress.ip_address(port.host_ip)
    if bound.version != target.version or (bound.version == 6 and bound.is_loopback):
        return []
    key: tuple[Part, ...] = (Protocol(port.protocol), PortNumber(port.host_port))
    value = (target, PortNumber(port.container_port))
    if bound.is_unspecified:
        return [Element("inet", f"any{bound.version}", key, value)]
    return [Element("inet", f"bound{bound.version}", (bound, *key), value)]


def resolver_elements(gateway: Address, port: int) -> list[Element]:
    """What sends the questions to a gateway's port 53 to the resolver that listens on `port` of it."""
    return [
        Element(
            "inet",
            f"resolvers{gateway.version}",
            (gateway, Protocol(protocol), PortNumber(53)),
            (gateway, PortNumber(port)),
        )
        for protocol in ("tcp", "udp")
    ]


def network_elements(rules: BridgeRules) -> dict[str, list[str]]:
    """A network's part in each set, in nft's language."""
    bridge = f'"{rules.bridge}"'
    found: dict[str, list[str]] = {"bridges": [bridge]}
    if rules.within:
        found["within"] = [f"{bridge} . {bridge}"]
    if rules.internal:
        found["internal"] = [bridge]
    for own in rules.subnets:
        found.setdefault(f"subnets{own.version}", []).append(str(own))
        if rules.masquerade and not rules.internal:
            found.setdefault(f"masqueraded{own.version}", []).append(str(own))
    for gateway in rules.gateways:
        found.setdefault(f"gateways{gateway.version}", []).append(str(gateway))
    return found


def script(table: str, networks: Iterable[BridgeRules], elements: Iterable[Element]) -> str:
    """Both tables, replacing what is there, for `nft -f`."""
    contents: dict[str, list[str]] = {}
    for rules in networks:
        for holder, words in network_elements(rules).items():
            contents.setdefault(holder, []).extend(words)
    for element in elements:
        contents.setdefault(element.holder, []).append(nftables.written(element))
    lines = []
    for line in _RULES.read_text().splitlines():
        lines.append(line.replace("TABLE", table))
        words = line.split()
        if len(words) == 3 and words[0] in ("set", "map") and (inside := contents.pop(words[1], [])):
            lines.append(f"\t\telements = {{ {', '.join(sorted(set(inside)))} }}")
    assert not contents, f"no such set: {contents}"
    clean = [f"add table {family} {table}\ndelete table {family} {table}" for family in ("inet", "bridge")]
    return "\n".join([*clean, *lines]) + "\n"


class Firewall:
    """The tables of one daemon."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._session = nftables.Session(table)
        self._networks: dict[str, BridgeRules] = {}
        self._elements: dict[Element, None] = {}
        self._lock = asyncio.Lock()
        self._reload: asyncio.Future[None] | None = None
        self._loaded = False

    async def set_network(self, rules: BridgeRules) -> None:
        """Add a network, or change it."""
        if self._networks.get(rules.bridge) != rules or not self._loaded:
            self._networks[rules.bridge] = rules
            await self.load()

    async def remove_network(self, bridge: str) -> None:
        """Forget a network; absent is no error. The tables go with the last one."""
        if self._networks.pop(bridge, None) is not None or not self._networks:
            await self.load()

    def expect(self, elements: Iterable[Element]) -> None:
        """Take elements into the model; `load` brings them to the host."""
        self._elements |= dict.fromkeys(elements)

    def forget(self, elements: Iterable[Element]) -> None:
        """Take elements out of the model; `load` brings that to the host."""
        for element in elements:
            self._elements.pop(element, None)

    async def change(self, added: Sequence[Element] = (), removed: Sequence[Element] = ()) -> None:
        """Remove and add elements in one transaction."""
        new = [element for element in added if element not in self._elements]
        old = [element for element in removed if element in self._elements]
        self.expect(new)
        self.forget(old)
        if not new and not old:
            return
        try:
            async with self._lock:
                if self._loaded:
                    with contextlib.suppress(HostError):
                        await blocking(self._session.change, new, old)
                        return
            await self.load()
        except BaseException:
            self.forget(new)
            raise

    async def close(self) -> None:
        """Let go of the kernel; the rules stay."""
        async with self._lock:
            await blocking(self._session.close)

    async def load(self) -> None:
        """Bring the whole model to the host; calls that come together share one transaction."""
        if self._reload is None:
            self._reload = asyncio.ensure_future(self._load())
        await asyncio.shield(self._reload)

    async def _load(self) -> None:
        try:
            async with self._lock:
                # Whoever asks from now on has changed the model after it is read here.
                self._reload = None
                if self._networks:
                    await nftables.load(script(self._table, self._networks.values(), self._elements))
                else:
                    await nftables.load(script(self._table, (), ()).partition("\ntable ")[0] + "\n")
                self._loaded = bool(self._networks)
        finally:
            self._reload = None
