"""The bridge driver: a bridge on the host, a veth or tap for each endpoint, NAT to the outside."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bastide.host import conntrack, links, netns, tap
from bastide.host.netlink import Message, Netlink
from bastide.host.nftables import Element
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.errors import BastideError, Conflict, HostError, InvalidArgument, Unsupported
from bastide.model.network import EndpointIPAM, EndpointSettings, Network
from bastide.model.process import Interface
from bastide.network import (
    Endpoint,
    Feature,
    NamespacePlug,
    NetworkDriver,
    Plug,
    Port,
    TapPlug,
    endpoint_options,
    ipam,
    prepared,
)
from bastide.network.bridge_options import Options, parse
from bastide.network.dns import Service, Upstream
from bastide.network.firewall import (
    BridgeRules,
    Firewall,
    endpoint_elements,
    port_elements,
    resolver_elements,
)
from bastide.network.names import Directory
from bastide.network.ports import Holder, expand
from bastide.network.resolv import HostResolv
from bastide.network.routing import default_mtu, forward, localnet, other_routes

log = logging.getLogger("bastide.network")

_ENODEV, _EEXIST = 19, 17
_REFILL_SECONDS = 0.15
"""How long a refill waits after a namespace was taken: the container that starts needs the processors."""
_SWEEP_SECONDS, _SWEEP_AT = 0.5, 64
"""How long ended endpoints wait to be taken apart together, and how many may wait."""


class Side:
    """What is kept of a network while it is up; all of it can be read from the host or told again."""

    def __init__(self, network: Network, options: Options) -> None:
        self.network, self.options = network, options
        self.leases = ipam.Leases(network)
        self.services: list[Service] = []
        self.service_elements: list[Element] = []
        self.resolvers: list[str] = []


class Bridge(NetworkDriver, name="bridge"):
    """Containers and VMs on a bridge."""

    features = frozenset(
        {
            Feature.PORTS,
            Feature.NAMES,
            Feature.STATIC_ADDRESSES,
            Feature.CONNECT,
            Feature.TAP,
            Feature.PREPARED,
            Feature.SUBNETS,
        }
    )

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._firewall = Firewall(settings.firewall_table)
        self._sides: dict[str, Side] = {}
        self._holder = Holder()
        self._directory = Directory()
        self._host_resolv = HostResolv()
        self.tag = hashlib.sha256(f"{settings.run_root} {settings.bridge}".encode()).hexdigest()[:4]
        self._ready: list[tuple[Path, Endpoint]] = []
        self._ended: list[Endpoint] = []
        self._preparing = asyncio.Lock()
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._unpublishing: set[asyncio.Future[None]] = set()
        self._closed = False

    async def probe(self) -> str:
        """Whether nft, bridges and veths are there."""
        if os.geteuid() != 0:
            return "networks need root: run the daemon as root"
        if not Path("/proc/sys/net/netfilter").exists() and not Path("/proc/net/netfilter").exists():
            return "the kernel has no netfilter: load nf_tables"
        from shutil import which

        return "" if which("nft") else "the program nft is missing: install the package nftables"

    def answer_from(self, directory: Directory) -> None:
        """Take the directory that the resolvers answer from."""
        self._directory = directory

    def resolvers(self, network: Network) -> Sequence[str]:
        """The gateways that a resolver serves on."""
        side = self._sides.get(network.id)
        return side.resolvers if side else ()

    # -- networks ------------------------------------------------------------------------------

    def plan(self, network: Network, existing: Sequence[Network]) -> Network:
        """Check options, choose subnets."""
        options = parse(network, self.settings)
        for other in existing:
            if other.driver == self.name and parse(other, self.settings).bridge == options.bridge:
                raise InvalidArgument(f"bridge {options.bridge} is that of network {other.name} already")
        return ipam.plan(network, existing, other_routes(), self.settings.address_pools)

    async def up(self, network: Network) -> None:
        """Bridge, gateways, rules, resolver."""
        side = self._sides.get(network.id)
        if side is None:
            side = self._sides[network.id] = Side(network, parse(network, self.settings))
        gateways = ipam.gateways(network)
        await blocking(_raise_bridge, network, side.options, gateways)
        if not network.internal:
            await blocking(forward, any(":" in gateway for gateway in gateways))
        await self._firewall.set_network(self._rules(network, side.options))
        if not side.services:
            await self._serve_names(network, side)

    def _rules(self, network: Network, options: Options) -> BridgeRules:
        return BridgeRules(
            bridge=options.bridge,
            subnets=tuple(ipam.subnets(network)),
            gateways=tuple(ipam.address(gateway) for gateway in ipam.gateways(network)),
            masquerade=options.masquerade,
            internal=network.internal,
            within=options.icc,
        )

    async def _serve_names(self, network: Network, side: Side) -> None:
        upstream = Upstream(self._host_resolv.servers)
        for cidr in ipam.gateways(network):
            gateway = ipam.address(cidr)
            service = Service(network.id, ipam.subnets(network), network.internal, self._directory, upstream)
            try:
                port = await service.listen(gateway)
                elements = resolver_elements(gateway, port)
                await self._firewall.change(elements)
            except BastideError as error:
                log.warning("network %s has no name lookup: %s", network.name, error.message)
                service.close()
                continue
            side.services.append(service)
            side.service_elements += elements
            side.resolvers.append(str(gateway))

    async def down(self, network: Network) -> None:
        """Take the host's side away, with every device that is still on the bridge."""
        side = self._sides.pop(network.id, None)
        options = side.options if side else parse(network, self.settings)
        for service in side.services if side else ():
            service.close()
        stale = [(path, endpoint) for path, endpoint in self._ready if endpoint.network == network.id]
        self._ready = [entry for entry in self._ready if entry not in stale]
        for path, _ in stale:
            await blocking(netns.unpin, path)
        await blocking(_lower_bridge, options.bridge)
        self._firewall.forget([each for _, endpoint in stale for each in endpoint_elements(endpoint.interface)])
        self._firewall.forget(side.service_elements if side else ())
        await self._firewall.remove_network(options.bridge)

    # -- endpoints -----------------------------------------------------------------------------

    def _side(self, network: Network) -> Side:
        side = self._sides.get(network.id)
        if side is None:
            raise Unsupported(f"network {network.name} is not up")
        return side

    def _reserve(self, side: Side, container: str, wanted: EndpointSettings, name: str, kind: str) -> Endpoint:
        """An endpoint with addresses of its own; nothing is on the host yet."""
        network = side.network
        asked = wanted.ipam_config or EndpointIPAM()
        mac = ipam.check_mac(wanted.mac_address) if wanted.mac_address else ""
        taken = side.leases.take(asked.ipv4_address, asked.ipv6_address)
        interface = Interface(
            name=name,
            device=f"{kind}{self.tag}{secrets.token_hex(4)}",
            mac=mac or (ipam.mac_for(taken[0][0]) if taken else f"02:42:{secrets.token_bytes(4).hex(':')}"),
            addresses=tuple(f"{address}/{pool.subnet.prefixlen}" for address, pool in taken),
            gateways=()
            if network.internal
            else tuple(str(pool.gateway) for _, pool in taken if pool.gateway is not None),
            mtu=side.options.mtu or default_mtu(),
            link_local=endpoint_options.link_local(wanted),
            sysctls=endpoint_options.sysctls(wanted, name),
        )
        return Endpoint(id=secrets.token_hex(32), container=container, network=network.id, interface=interface)

    async def join(
        self, network: Network, container: str, plug: Plug, wanted: EndpointSettings, name: str = "eth0"
    ) -> Endpoint:
        """Reserve addresses, allow them on the port, make the device."""
        side = self._side(network)
        endpoint = self._reserve(side, container, wanted, name, "t" if isinstance(plug, TapPlug) else "v")
        try:
            await self._firewall.change(endpoint_elements(endpoint.interface))
            match plug:
                case NamespacePlug():
                    await blocking(_join_namespace, side.options, endpoint.interface, plug.path)
                case TapPlug():
                    await blocking(_join_tap, side.options, endpoint.interface, plug.owner)
        except BaseException:
            await asyncio.shield(self._take_apart([endpoint]))
            self._give_back(endpoint)
            raise
        return endpoint

    async def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> Endpoint:
        """Hold the ports, then let the kernel forward them, or a proxy where it cannot."""
        side = self._side(network)
        if not ports or network.internal:
            return endpoint
        groups = [expand(port, side.options.binding) for port in ports]
        try:
            held = self._holder.hold(groups)
        except Conflict:
            if not self._unpublishing:
                raise
            await asyncio.wait(set(self._unpublishing))
            held = self._holder.hold(groups)
        published = msgspec.structs.replace(endpoint, ports=(*endpoint.ports, *held))
        try:
            await self._forward(side, published, held)
        except BaseException:
            self._holder.release(held)
            raise
        return published

    async def _forward(self, side: Side, endpoint: Endpoint, ports: Sequence[Port]) -> None:
        await blocking(_open_ways, side.options.bridge, endpoint.interface.device)
        elements = []
        for port in ports:
            target = _target(endpoint, port)
            elements += (direct := port_elements(port, target))
            if not direct or port.host_ip == "::":
                await self._holder.proxy(port, target)
        await self._firewall.change(elements)
        if any(port.protocol == "udp" for port in ports):
            await blocking(conntrack.forget_ports, [port.host_port for port in ports if port.protocol == "udp"])

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """Ports, rules, device, address."""
        await self._unpublish(endpoint)
        await self._take_apart([endpoint])
        self._give_back(endpoint)

    async def _unpublish(self, endpoint: Endpoint) -> None:
        elements = [element for port in endpoint.ports for element in port_elements(port, _target(endpoint, port))]
        await self._firewall.change(removed=elements)
        self._holder.release(endpoint.ports)
        if elements:
            addresses = [ipam.address(cidr) for cidr in endpoint.interface.addresses]
            await blocking(conntrack.forget_targets, addresses)

    def _give_back(self, endpoint: Endpoint) -> None:
        if side := self._sides.get(endpoint.network):
            for cidr in endpoint.interface.addresses:
                side.leases.give_back(cidr)

    async def _take_apart(self, endpoints: Sequence[Endpoint]) -> None:
        """Remove devices and rules."""
        await blocking(prepared.remove_devices, [endpoint.interface.device for endpoint in endpoints])
        await self._firewall.change(
            removed=[element for endpoint in endpoints for element in endpoint_elements(endpoint.interface)]
        )

    async def restore(self, network: Network, endpoints: Sequence[Endpoint]) -> None:
        """Tell the model first, so that one transaction brings all of it; then compare devices."""
        side = self._sides.get(network.id)
        if side is None:
            side = self._sides[network.id] = Side(network, parse(network, self.settings))
        for endpoint in endpoints:
            for cidr in endpoint.interface.addresses:
                side.leases.mark(cidr)
            self._firewall.expect(endpoint_elements(endpoint.interface))
            for port in endpoint.ports:
                self._firewall.expect(port_elements(port, _target(endpoint, port)))
                self._holder.take_up(port)
        await self.up(network)
        known = {endpoint.interface.device for endpoint in endpoints}
        known |= {endpoint.interface.device for _, endpoint in self._ready}
        await blocking(_remove_strangers, side.options.bridge, known, self.tag)
        for endpoint in endpoints:
            if endpoint.ports:
                await self._forward(side, endpoint, endpoint.ports)

    # -- prepared namespaces -------------------------------------------------------------------

    def take(self, network: Network, container: str) -> tuple[Path, Endpoint] | None:
        """The first that is ready."""
        for number, (path, endpoint) in enumerate(self._ready):
            if endpoint.network == network.id:
                del self._ready[number]
                self.refill(network)
                return path, msgspec.structs.replace(endpoint, container=container)
        self.refill(network)
        return None

    def refill(self, network: Network) -> None:
        """Fill up to the settings' number, a moment after the last one was taken."""
        if network.id in self._sides and self.settings.prepared_namespaces:
            self._later(f"refill {network.id}", _REFILL_SECONDS, lambda: self._prepare(network))

    async def _prepare(self, network: Network) -> None:
        async with self._preparing:
            side = self._sides.get(network.id)
            missing = self.settings.prepared_namespaces - len(self._ready)
            if side is not None and missing > 0:
                self._ready += await self._make_ready(side, missing)

    async def _make_ready(self, side: Side, count: int) -> list[tuple[Path, Endpoint]]:
        made = [self._reserve(side, "", EndpointSettings(), "eth0", "v") for _ in range(count)]
        paths = [prepared.new_path(self.settings) for _ in made]
        interfaces = [endpoint.interface for endpoint in made]
        try:
            await self._firewall.change([each for interface in interfaces for each in endpoint_elements(interface)])
            await blocking(_prepare_all, side.options, paths, interfaces)
        except BaseException:
            await asyncio.shield(self._take_apart(made))
            for endpoint in made:
                self._give_back(endpoint)
            raise
        return list(zip(paths, made, strict=True))

    async def release(self, network: Network, endpoint: Endpoint) -> None:
        """Free the address, put the rest on the list of what is taken apart soon.

        Ports go in the background too; who wants the same ones next waits for that.
        """
        if endpoint.ports:
            task = asyncio.ensure_future(self._logged("unpublish", self._unpublish(endpoint)))
            self._unpublishing.add(task)
            task.add_done_callback(self._unpublishing.discard)
        self._give_back(endpoint)
        self._ended.append(endpoint)
        self._later("sweep", 0 if len(self._ended) >= _SWEEP_AT else _SWEEP_SECONDS, self._sweep)

    async def _sweep(self) -> None:
        ended, self._ended = self._ended, []
        await self._take_apart(ended)

    def _later(self, name: str, delay: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work` after `delay` seconds, unless it waits to be done already."""
        if self._closed or (delay and name in self._waiting):
            return
        task = self._waiting[name] = asyncio.ensure_future(self._delayed(name, delay, work))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _delayed(self, name: str, delay: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(delay)
        self._waiting.pop(name, None)
        await self._logged(name, work())

    async def _logged(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Background work has nobody to raise to."""
        try:
            await work
        except BastideError as error:
            log.warning("%s: %s", name.partition(" ")[0], error.message)

    async def close(self) -> None:
        """Stop background work and resolvers, let go of the ports' sockets and of what nobody took."""
        self._closed = True
        for task in self._waiting.values():
            task.cancel()
        if running := {*self._working, *self._unpublishing}:
            await asyncio.wait(running, timeout=5)
        for side in self._sides.values():
            for service in side.services:
                service.close()
        self._holder.close()
        for path, endpoint in self._ready:
            await blocking(netns.unpin, path)
            self._ended.append(endpoint)
        self._ready.clear()
        if self._ended:
            with contextlib.suppress(BastideError):
                await self._sweep()
        await self._firewall.close()


def _target(endpoint: Endpoint, port: Port) -> ipam.Address:
    """Where a port leads: the container's address of the same family if it has one."""
    version = 6 if ":" in port.host_ip else 4
    own = [ipam.address(cidr) for cidr in endpoint.interface.addresses]
    return next((address for address in own if address.version == version), own[0])


# -- what blocks: called in threads, on the host's side ----------------------------------------


def _raise_bridge(network: Network, options: Options, gateways: Sequence[str]) -> None:
    with Netlink() as channel:
        index = links.index_of(options.bridge)
        if index:
            _check_bridge(channel, options.bridge, index)
        else:
            mac = f"02:42:{hashlib.sha256(network.id.encode()).digest()[:4].hex(':')}"
            channel.request([links.bridge(options.bridge, mac, options.mtu or default_mtu())], tolerated=(_EEXIST,))
            index = links.index_of(options.bridge)
        channel.request([links.up(index), *(links.address(index, gateway) for gateway in gateways)])


def _check_bridge(channel: Netlink, name: str, index: int) -> None:
    kinds = {link.number: link.kind for link in links.all_links(channel)}
    if kinds.get(index) != "bridge":
        raise Conflict(f"the device {name} exists and is no bridge: name another with com.docker.network.bridge.name")


def _lower_bridge(name: str) -> None:
    """Remove a bridge and the devices on it."""
    with Netlink() as channel:
        found = links.all_links(channel)
    index = next((link.number for link in found if link.name == name and link.kind == "bridge"), 0)
    if index:
        prepared.remove_devices([*(link.name for link in found if link.master == index), name])


def _master(options: Options) -> int:
    if index := links.index_of(options.bridge):
        return index
    raise HostError("bridge", _ENODEV, options.bridge)


def _join_namespace(options: Options, interface: Interface, path: Path) -> None:
    master = _master(options)
    with path.open("rb") as namespace, Netlink() as channel:
        channel.request(_pair(interface, namespace.fileno()))
        netns.inside(path, lambda: prepared.configure(interface))
        channel.request(_port(options, interface, master))


def _pair(interface: Interface, descriptor: int) -> list[Message]:
    return links.veth(interface.device, interface.mtu, interface.name, interface.mac, descriptor)


def _port(options: Options, interface: Interface, master: int) -> list[Message]:
    own = [cidr.partition("/")[0] for cidr in interface.addresses]
    return [
        *links.enslave(interface.device, master, isolated=not options.icc),
        *(links.neighbour(master, address, interface.mac) for address in own),
    ]


def _prepare_all(options: Options, paths: Sequence[Path], interfaces: Sequence[Interface]) -> None:
    master = _master(options)
    with Netlink() as channel:

        def connect(number: int, descriptor: int) -> None:
            channel.request(_pair(interfaces[number], descriptor))
            prepared.configure(interfaces[number])
            channel.request(_port(options, interfaces[number], master))

        prepared.make(paths, connect)


def _join_tap(options: Options, interface: Interface, owner: int) -> None:
    tap.make(interface.device, owner)
    with Netlink() as channel:
        channel.request([links.without_ipv6(interface.device), links.mtu(interface.device, interface.mtu)])
        channel.request(_port(options, interface, _master(options)))


def _open_ways(bridge: str, device: str) -> None:
    """Let published ports be reached from the host's loopback and from the container itself."""
    localnet(bridge)
    with Netlink() as channel:
        channel.request([links.hairpin(device)])


def _remove_strangers(bridge: str, known: set[str], tag: str) -> None:
    """Remove the bridge's ports that nobody knows, and taps of ours that never became a port."""
    with Netlink() as channel:
        found = links.all_links(channel)
        master = next((link.number for link in found if link.name == bridge), 0)
        doomed = [
            link.name
            for link in found
            if link.name not in known
            and ((master and link.master == master and link.kind in ("veth", "tun")) or _unfinished(link, tag))
        ]
    prepared.remove_devices(doomed)


def _unfinished(link: links.Link, tag: str) -> bool:
    return not link.master and link.kind in ("veth", "tun") and link.name[:5] in (f"t{tag}", f"v{tag}")
