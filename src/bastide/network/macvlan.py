"""The macvlan driver: a device of its own MAC address on one of the host's, beside the host on its wire.

The host itself and such a container do not reach each other (the kernel's rule for macvlan).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bastide.host import links, netns
from bastide.host.netlink import Message, Netlink
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument, NotFound, Unsupported
from bastide.model.network import EndpointIPAM, EndpointSettings, Network
from bastide.model.process import Interface, Struct
from bastide.network import (
    Endpoint,
    Feature,
    NamespacePlug,
    NetworkDriver,
    Plug,
    Port,
    endpoint_options,
    ipam,
    prepared,
)
from bastide.network.routing import STANDARD_MTU

_ENODEV, _EEXIST = 19, 17
_MODES = ("bridge", "private", "vepa", "passthru")
_KNOWN = {"parent", "macvlan_mode", "com.docker.network.driver.mtu"}
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_TAGGED = re.compile(r"(?P<parent>.+)\.(?P<tag>\d{1,4})")


class Options(Struct, frozen=True, kw_only=True):
    """What the options say. `own`: the parent is a device that leads nowhere, made by the driver."""

    parent: str
    own: bool
    mode: str
    mtu: int


def parse(network: Network) -> Options:
    """The options of a network. Raises InvalidArgument."""
    given = network.options
    if unknown := sorted(set(given) - _KNOWN):
        raise InvalidArgument(f"unknown option {unknown[0]!r} for network driver macvlan")
    mode = given.get("macvlan_mode", "") or "bridge"
    if mode not in _MODES:
        raise InvalidArgument(f"invalid macvlan mode {mode!r}: choose one of {', '.join(_MODES)}")
    parent = given.get("parent", "")
    if parent and not _DEVICE.fullmatch(parent):
        raise InvalidArgument(f"invalid parent device {parent!r}")
    mtu = given.get("com.docker.network.driver.mtu", "") or "0"
    if not mtu.isdigit() or int(mtu) > 65535:
        raise InvalidArgument(f"invalid MTU {mtu!r}")
    return Options(parent=parent or f"dm-{network.id[:12]}", own=not parent, mode=mode, mtu=int(mtu))


class Macvlan(NetworkDriver, name="macvlan"):
    """Containers on the host's own wire."""

    features = frozenset({Feature.STATIC_ADDRESSES, Feature.CONNECT, Feature.SUBNETS})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._leases: dict[str, ipam.Leases] = {}

    async def probe(self) -> str:
        """Kernels without macvlan are found out at the first join."""
        return ""

    def plan(self, network: Network, existing: Sequence[Network]) -> Network:
        """Check options and choose subnets; without a parent the network is internal, as in Docker."""
        options = parse(network)
        for other in existing:
            if other.driver == self.name and parse(other).parent == options.parent:
                raise InvalidArgument(f"network {other.name} is already using parent interface {options.parent}")
        planned = ipam.plan(network, existing, (), self.settings.address_pools)
        return msgspec.structs.replace(planned, internal=network.internal or options.own)

    async def up(self, network: Network) -> None:
        """See to it that the parent is there. Raises NotFound."""
        self._leases.setdefault(network.id, ipam.Leases(network))
        await blocking(_raise_parent, parse(network))

    async def down(self, network: Network) -> None:
        """Remove the parent if it is the driver's own."""
        self._leases.pop(network.id, None)
        options = parse(network)
        if options.own:
            await blocking(prepared.remove_devices, [options.parent])

    async def join(
        self, network: Network, container: str, plug: Plug, wanted: EndpointSettings, name: str = "eth0"
    ) -> Endpoint:
        """Make the device in the namespace. Raises Unsupported for a tap."""
        if not isinstance(plug, NamespacePlug):
            raise Unsupported("network driver macvlan cannot connect a VM: use a bridge network")
        options, leases = parse(network), self._leases.setdefault(network.id, ipam.Leases(network))
        asked = wanted.ipam_config or EndpointIPAM()
        mac = ipam.check_mac(wanted.mac_address) if wanted.mac_address else ""
        taken = leases.take(asked.ipv4_address, asked.ipv6_address)
        interface = Interface(
            name=name,
            device="",
            mac=mac or ipam.mac_for(taken[0][0]),
            addresses=tuple(f"{address}/{pool.subnet.prefixlen}" for address, pool in taken),
            gateways=() if network.internal else tuple(str(pool.gateway) for _, pool in taken if pool.gateway),
            mtu=options.mtu or STANDARD_MTU,
            link_local=endpoint_options.link_local(wanted),
            sysctls=endpoint_options.sysctls(wanted, name),
        )
        try:
            made = await blocking(_join, options, interface, plug.path)
        except BaseException:
            for address, pool in taken:
                pool.give_back(address)
            raise
        return Endpoint(
            id=secrets.token_hex(32),
            container=container,
            network=network.id,
            interface=made,
            namespace=str(plug.path),
        )

    async def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> Endpoint:
        """Nothing to publish: every port is on the wire."""
        return endpoint

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """Remove the device, where its namespace still is, and end the lease."""
        await blocking(_leave, endpoint)
        if leases := self._leases.get(network.id):
            for cidr in endpoint.interface.addresses:
                leases.give_back(cidr)

    async def restore(self, network: Network, endpoints: Sequence[Endpoint]) -> None:
        """Take up the leases; the devices of others went with their namespaces."""
        leases = self._leases.setdefault(network.id, ipam.Leases(network))
        for endpoint in endpoints:
            for cidr in endpoint.interface.addresses:
                leases.mark(cidr)
        await self.up(network)


def _raise_parent(options: Options) -> None:
    if links.index_of(options.parent):
        return
    with Netlink() as channel:
        if options.own:
            # One end of a wire that leads nowhere; not every kernel has the kind `dummy`.
            channel.request(links.cable(options.parent, f"dp-{options.parent[3:]}"), tolerated=(_EEXIST,))
            return
        tagged = _TAGGED.fullmatch(options.parent)
        lower = links.index_of(tagged["parent"]) if tagged else 0
        if tagged is None or not lower or not 0 < int(tagged["tag"]) < 4095:
            raise NotFound(f"the parent interface {options.parent} was not found on the host")
        channel.request([links.vlan(options.parent, lower, int(tagged["tag"]))], tolerated=(_EEXIST,))


def _join(options: Options, interface: Interface, path: Path) -> Interface:
    parent = links.index_of(options.parent)
    if not parent:
        raise NotFound(f"the parent interface {options.parent} was not found on the host")
    limit = int(Path(f"/sys/class/net/{options.parent}/mtu").read_text())
    fitting = msgspec.structs.replace(interface, mtu=min(interface.mtu, limit))
    with path.open("rb") as namespace, Netlink() as channel:
        message: Message = links.macvlan(
            fitting.name, parent, options.mode, fitting.mac, fitting.mtu, namespace.fileno()
        )
        channel.request([message])
    netns.inside(path, lambda: prepared.configure(fitting))
    return fitting


def _leave(endpoint: Endpoint) -> None:
    path = Path(endpoint.namespace)
    if endpoint.namespace and netns.pinned(path):
        netns.inside(path, lambda: prepared.remove_devices([endpoint.interface.name]))
