"""The NetworkDriver contract, on real bridges and namespaces; run as root.

Every test has a bridge, subnets and firewall tables of its own, and finds the host as it was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bastide.host import netns
from bastide.model.config import Settings
from bastide.model.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted, Unsupported
from bastide.model.network import IPAM, EndpointIPAM, EndpointSettings, IPAMPool, Network
from bastide.network import (
    Endpoint,
    Feature,
    NamespacePlug,
    Naming,
    NetworkDriver,
    Port,
    Preparing,
    TapPlug,
    drivers,
    load,
    prepared,
)

TABLE = f"bastide_nt{os.getpid() % 10000}"
BRIDGE = f"bsn{os.getpid() % 10000}"
NUMBER = os.getpid() % 250
"""Runs beside each other have subnets and ports of their own."""
PORTS = 18000 + 10 * NUMBER
PREFIX, OTHER, POOL = f"10.211.{NUMBER}", f"10.213.{NUMBER}", f"10.212.{NUMBER}"
SUBNET, SUBNET6 = f"{PREFIX}.0/24", f"fd00:211:{NUMBER}::/64"


def network(driver: str, name: str = "contract", **fields: object) -> Network:
    """A network record as the engine makes them."""
    base: dict[str, object] = {"name": name, "id": name.encode().hex().ljust(64, "0"), "created": "", "driver": driver}
    return Network(**{**base, **fields})  # type: ignore[arg-type]


def bridged(name: str = "contract", six: bool = False, bridge: str = BRIDGE, **fields: object) -> Network:
    """A bridge network with fixed subnets."""
    pools = [IPAMPool(subnet=SUBNET)] + ([IPAMPool(subnet=SUBNET6)] if six else [])
    options = {"com.docker.network.bridge.name": bridge}
    return network("bridge", name, **{"ipam": IPAM(config=pools), "enable_ipv6": six, "options": options} | fields)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    assert os.geteuid() == 0, "networks need root"
    return Settings(
        data_root=tmp_path / "data",
        run_root=tmp_path / "run",
        bridge=BRIDGE,
        bridge_subnet=SUBNET,
        address_pools=(f"{POOL}.0/24",),
        firewall_table=TABLE,
        prepared_namespaces=2,
    )


@pytest.fixture(autouse=True)
def clean(settings: Settings) -> Iterator[None]:
    """Whatever a test leaves behind is found, and removed."""
    tag = load("bridge")(settings).tag  # type: ignore[attr-defined]
    settings.run_root.mkdir(parents=True)
    prepared.open_folder(settings)
    yield
    folder = prepared.folder(settings)
    for path in folder.iterdir():
        netns.unpin(path)
    subprocess.run(["umount", str(folder)], check=False)
    left = {name for name in devices() if name.startswith((BRIDGE, f"v{tag}", f"t{tag}", "dm-636f6e", "dp-636f6e"))}
    for device in left:
        subprocess.run(["ip", "link", "delete", device], check=False, capture_output=True)
    tables = [table for table in nft_tables() if TABLE in table]
    for table in tables:
        subprocess.run(["nft", "delete", "table", *table.split()], check=False)
    assert not left
    assert not tables


@pytest.fixture
async def bridge(settings: Settings) -> AsyncIterator[NetworkDriver]:
    driver = load("bridge")(settings)
    assert isinstance(driver, Preparing)
    yield driver
    await driver.close()


def devices() -> set[str]:
    return {entry.name for entry in Path("/sys/class/net").iterdir()}


def nft_tables() -> list[str]:
    listed = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=True)
    found = [entry["table"] for entry in json.loads(listed.stdout)["nftables"] if "table" in entry]
    return [f"{table['family']} {table['name']}" for table in found]


def delete_table(family: str) -> None:
    subprocess.run(["nft", "delete", "table", family, TABLE], check=True)


def namespace(settings: Settings) -> Path:
    path = prepared.new_path(settings)
    prepared.make([path])
    return path


def planned(driver: NetworkDriver, wanted: Network) -> Network:
    return driver.plan(wanted, [])


def within(path: Path, *command: str, check: bool = True) -> str:
    """What a program says inside a namespace."""
    done = subprocess.run(
        ["nsenter", f"--net={path}", *command], capture_output=True, text=True, check=False, timeout=20
    )
    assert not check or done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def answers(path: Path | None, address: str, port: int, seconds: float, udp: bool) -> bytes | None:
    """What a server says to somebody in a namespace (or on the host); None when there is no way to it."""

    def ask() -> bytes | None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as channel:
            channel.settimeout(seconds)
            try:
                # With the device, where one is named after `%`.
                channel.connect(socket.getaddrinfo(address, port, family)[0][4])
                channel.sendall(b"?")
                return channel.recv(100)
            except OSError:
                return None

    return netns.own_thread(ask) if path is None else netns.inside(path, ask)


class Server:
    """A server inside a namespace that tells each client the client's address."""

    def __init__(self, path: Path | None, port: int, udp: bool = False, six: bool = False, bind: str = "") -> None:
        family = socket.AF_INET6 if six else socket.AF_INET

        def make() -> socket.socket:
            made = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((bind or ("::" if six else "0.0.0.0"), port))
            return made

        self.socket = netns.inside(path, make) if path else make()
        self.socket.setblocking(False)
        if not udp:
            self.socket.listen()
        self.task = asyncio.ensure_future(self._datagrams() if udp else self._stream())

    async def _datagrams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            _, peer = await loop.sock_recvfrom(self.socket, 100)
            await loop.sock_sendto(self.socket, peer[0].encode(), peer)

    async def _stream(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            channel, peer = await loop.sock_accept(self.socket)
            with channel:
                await loop.sock_recv(channel, 10)
                await loop.sock_sendall(channel, peer[0].encode())

    def close(self) -> None:
        self.task.cancel()
        self.socket.close()


async def ask(path: Path | None, address: str, port: int, udp: bool = False, seconds: float = 1) -> str | None:
    """`answers`, while servers of this loop go on."""
    said = await asyncio.to_thread(answers, path, address, port, seconds, udp)
    return None if said is None else said.decode()


async def told(path: Path | None, address: str, port: int, udp: bool = False) -> str | None:
    """As `ask`, for an answer that is expected: a busy machine may take its time."""
    return await ask(path, address, port, udp, seconds=5)


def ip_of(endpoint: Endpoint, version: int = 4) -> str:
    found = [ipaddress.ip_interface(cidr).ip for cidr in endpoint.interface.addresses]
    return str(next(address for address in found if address.version == version))


# -- every driver ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none", "host"])
async def test_drivers_of_no_devices(name: str, settings: Settings) -> None:
    driver = load(name)(settings)
    assert await driver.probe() == ""
    plan = driver.plan(network(name), [])
    with pytest.raises(PermissionDenied):
        driver.plan(network(name, "second"), [plan])
    await driver.up(plan)
    path = namespace(settings)
    endpoint = await driver.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    assert endpoint.interface.device == ""
    assert "eth0" not in within(path, "ip", "link")
    await driver.leave(plan, endpoint)
    await driver.down(plan)


def test_every_driver_loads(settings: Settings) -> None:
    for name in drivers():
        assert load(name)(settings).name == name
    with pytest.raises(InvalidArgument):
        load("overlay")


# -- the bridge --------------------------------------------------------------------------------


async def test_up_and_down_can_be_repeated(bridge: NetworkDriver) -> None:
    plan = planned(bridge, bridged(six=True))
    for _ in range(2):
        await bridge.up(plan)
    assert BRIDGE in devices()
    assert f"inet {TABLE}" in nft_tables()
    for _ in range(2):
        await bridge.down(plan)
    assert BRIDGE not in devices()
    assert not [table for table in nft_tables() if TABLE in table]


async def test_join_gives_addresses_routes_and_a_way_out(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged(six=True))
    await bridge.up(plan)
    path = namespace(settings)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    interface = endpoint.interface
    shown = within(path, "ip", "-j", "addr", "show", "dev", "eth0")
    eth0 = json.loads(shown)[0]
    assert eth0["address"] == interface.mac
    assert {f"{one['local']}/{one['prefixlen']}" for one in eth0["addr_info"] if one["scope"] == "global"} == set(
        interface.addresses
    )
    assert "UP" in eth0["flags"]
    assert f"default via {interface.gateways[0]}" in within(path, "ip", "route")
    assert f"default via {interface.gateways[1]}" in within(path, "ip", "-6", "route")
    assert within(path, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start") == "0\n"
    server = Server(None, PORTS + 9, bind=interface.gateways[0])
    assert await told(path, interface.gateways[0], PORTS + 9) == ip_of(endpoint)
    server.close()
    for _ in range(2):
        await bridge.leave(plan, endpoint)
    assert "eth0" not in within(path, "ip", "link")
    await bridge.down(plan)


async def test_taken_and_asked_for_addresses(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(
        bridge, bridged(ipam=IPAM(config=[IPAMPool(subnet=f"{PREFIX}.0/29", auxiliary_addresses={"a": f"{PREFIX}.2"})]))
    )
    await bridge.up(plan)
    paths = [namespace(settings) for _ in range(3)]
    asked = EndpointSettings(ipam_config=EndpointIPAM(ipv4_address=f"{PREFIX}.6"), mac_address="02:11:22:33:44:55")
    first = await bridge.join(plan, "c1", NamespacePlug(path=paths[0]), asked)
    assert (ip_of(first), first.interface.mac) == (f"{PREFIX}.6", "02:11:22:33:44:55")
    with pytest.raises(Conflict, match="Address already in use"):
        await bridge.join(plan, "c2", NamespacePlug(path=paths[1]), asked)
    outside = EndpointSettings(ipam_config=EndpointIPAM(ipv4_address="10.1.1.1"))
    with pytest.raises(InvalidArgument):
        await bridge.join(plan, "c2", NamespacePlug(path=paths[1]), outside)
    others = [await bridge.join(plan, "c", NamespacePlug(path=path), EndpointSettings()) for path in paths[1:]]
    assert {ip_of(one) for one in others} == {f"{PREFIX}.3", f"{PREFIX}.4"}
    spare = namespace(settings)
    last = await bridge.join(plan, "c", NamespacePlug(path=spare), EndpointSettings())
    with pytest.raises(ResourceExhausted):
        await bridge.join(plan, "c", NamespacePlug(path=namespace(settings)), EndpointSettings())
    for endpoint in (first, *others, last):
        await bridge.leave(plan, endpoint)
    await bridge.down(plan)


async def test_plan_refuses_overlaps_and_nonsense(bridge: NetworkDriver) -> None:
    first = planned(bridge, bridged())
    with pytest.raises(PermissionDenied, match="Pool overlaps"):
        bridge.plan(bridged("second", bridge="bsn-two"), [first])
    free = bridge.plan(network("bridge", "third"), [first])
    assert (free.ipam.config or [])[0].subnet == f"{POOL}.0/24"
    assert (free.ipam.config or [])[0].gateway == f"{POOL}.1"
    for pool in (
        IPAMPool(subnet="10.1.0.0/16", gateway="10.2.0.1"),
        IPAMPool(subnet="nonsense"),
        IPAMPool(gateway="10.1.0.1"),
    ):
        with pytest.raises(InvalidArgument):
            bridge.plan(network("bridge", "x", ipam=IPAM(config=[pool])), [])
    with pytest.raises(InvalidArgument, match="unknown option"):
        bridge.plan(network("bridge", "x", options={"com.docker.network.bridge.typo": "1"}), [])
    six = bridge.plan(network("bridge", "x", enable_ipv6=True), [])
    assert (six.ipam.config or [])[1].subnet.startswith("fd")


async def test_a_tap_for_a_hypervisor(bridge: NetworkDriver) -> None:
    plan = planned(bridge, bridged())
    await bridge.up(plan)
    endpoint = await bridge.join(plan, "vm1", TapPlug(owner=4711), EndpointSettings())
    device = Path("/sys/class/net") / endpoint.interface.device
    assert (device / "owner").read_text() == "4711\n"
    assert (device / "brport").exists()
    for _ in range(2):
        await bridge.leave(plan, endpoint)
    assert not device.exists()
    await bridge.down(plan)


# -- published ports ---------------------------------------------------------------------------


def port(number: int, host_ip: str = "", protocol: str = "tcp", container_port: int = 80) -> Port:
    return Port(container_port=container_port, protocol=protocol, host_ip=host_ip, host_port=number)


@pytest.mark.parametrize("six", [False, True])
async def test_published_everywhere(bridge: NetworkDriver, settings: Settings, six: bool) -> None:
    plan = planned(bridge, bridged(six=six))
    await bridge.up(plan)
    path, other = namespace(settings), namespace(settings)
    server = Server(path, 80)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    neighbour = await bridge.join(plan, "c2", NamespacePlug(path=other), EndpointSettings())
    published = await bridge.publish(plan, endpoint, [port(0)])
    number = published.ports[0].host_port
    assert [(one.host_ip, one.host_port) for one in published.ports] == [("0.0.0.0", number), ("::", number)]
    gateway = endpoint.interface.gateways[0]
    assert await told(None, "127.0.0.1", number) == gateway
    assert await told(None, gateway, number) == gateway
    assert await told(other, gateway, number) is not None
    assert await told(path, gateway, number) is not None
    if not six:
        assert await told(None, "::1", number) is not None
    await bridge.leave(plan, published)
    assert await ask(None, "127.0.0.1", number) is None
    await bridge.leave(plan, neighbour)
    server.close()
    await bridge.down(plan)


async def test_published_over_ipv6(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged(six=True))
    await bridge.up(plan)
    path, other = namespace(settings), namespace(settings)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    neighbour = await bridge.join(plan, "c2", NamespacePlug(path=other), EndpointSettings())
    server = Server(path, 80, six=True)
    published = await bridge.publish(plan, endpoint, [port(0, "::")])
    number = published.ports[0].host_port
    assert await told(None, "::1", number) is not None
    assert await told(other, endpoint.interface.gateways[1], number) is not None
    assert await ask(None, "127.0.0.1", number) is None
    await bridge.leave(plan, published)
    await bridge.leave(plan, neighbour)
    server.close()
    await bridge.down(plan)


async def test_the_bind_address_is_honoured(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged())
    await bridge.up(plan)
    path, other = namespace(settings), namespace(settings)
    server = Server(path, 80)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    neighbour = await bridge.join(plan, "c2", NamespacePlug(path=other), EndpointSettings())
    published = await bridge.publish(plan, endpoint, [port(0, "127.0.0.1")])
    number = published.ports[0].host_port
    gateway = endpoint.interface.gateways[0]
    assert await told(None, "127.0.0.1", number) == gateway
    assert await ask(None, gateway, number) is None
    assert await ask(other, gateway, number) is None
    assert await ask(None, "::1", number) is None
    assert await ask(other, "127.0.0.1", number) is None
    await bridge.leave(plan, published)
    await bridge.leave(plan, neighbour)
    server.close()
    await bridge.down(plan)


async def test_published_udp(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged())
    await bridge.up(plan)
    path = namespace(settings)
    server = Server(path, 53, udp=True)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    published = await bridge.publish(plan, endpoint, [port(0, "", "udp", 53)])
    number = published.ports[0].host_port
    gateway = endpoint.interface.gateways[0]
    assert await told(None, "127.0.0.1", number, udp=True) == gateway
    assert await told(None, "::1", number, udp=True) == gateway
    await bridge.leave(plan, published)
    server.close()
    await bridge.down(plan)


async def test_a_taken_port_is_named(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged())
    await bridge.up(plan)
    path = namespace(settings)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    with socket.create_server(("127.0.0.1", 0)) as busy:
        number = busy.getsockname()[1]
        with pytest.raises(Conflict, match=f"Bind for 0.0.0.0:{number} failed: port is already allocated"):
            await bridge.publish(plan, endpoint, [port(0), port(number)])
    published = await bridge.publish(plan, endpoint, [port(number)])
    with pytest.raises(Conflict, match="port is already allocated"):
        await bridge.publish(plan, endpoint, [port(number, "127.0.0.1")])
    with pytest.raises(InvalidArgument, match="cannot assign requested address"):
        await bridge.publish(plan, endpoint, [port(number, "203.0.113.9")])
    spread = ports_between(number, number + 3)
    more = await bridge.publish(plan, published, [spread])
    assert more.ports[-1].host_port in range(number + 1, number + 4)
    await bridge.leave(plan, more)
    second = await bridge.join(plan, "c2", NamespacePlug(path=path), EndpointSettings())
    again = await bridge.publish(plan, second, [port(number)])
    assert isinstance(bridge, Preparing)
    await bridge.release(plan, again)
    third = await bridge.join(plan, "c3", NamespacePlug(path=namespace(settings)), EndpointSettings())
    await bridge.leave(plan, await bridge.publish(plan, third, [port(number)]))
    await bridge.down(plan)


def ports_between(first: int, last: int) -> Port:
    return Port(container_port=80, protocol="tcp", host_ip="", host_port=first, host_port_end=last)


# -- walls -------------------------------------------------------------------------------------


async def two_networks(driver: NetworkDriver, **second: object) -> tuple[Network, Network]:
    first = planned(driver, bridged())
    pools = IPAM(config=[IPAMPool(subnet=f"{OTHER}.0/24")])
    other = driver.plan(bridged("other", bridge=f"{BRIDGE}b", ipam=pools, **second), [first])
    await driver.up(first)
    await driver.up(other)
    return first, other


async def test_networks_do_not_reach_each_other(bridge: NetworkDriver, settings: Settings) -> None:
    first, other = await two_networks(bridge)
    here, near, there = (namespace(settings) for _ in range(3))
    one = await bridge.join(first, "c1", NamespacePlug(path=here), EndpointSettings())
    two = await bridge.join(first, "c2", NamespacePlug(path=near), EndpointSettings())
    three = await bridge.join(other, "c3", NamespacePlug(path=there), EndpointSettings())
    servers = [Server(near, 80), Server(there, 80), Server(None, PORTS + 7, bind="127.0.0.1")]
    servers.append(Server(None, PORTS + 6, bind=three.interface.gateways[0]))
    assert await told(here, ip_of(two), 80) == ip_of(one)
    assert await ask(here, ip_of(three), 80) is None
    assert await told(None, ip_of(three), 80) is not None
    assert await ask(here, "127.0.0.1", PORTS + 7) is None
    assert await told(there, three.interface.gateways[0], PORTS + 6) is not None
    assert await ask(here, three.interface.gateways[0], PORTS + 6) is None
    # Loopback of the host, asked for by way of the gateway.
    within(here, "ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local", check=False)
    within(here, "ip", "link", "set", "lo", "down")
    within(here, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1", check=False)
    within(here, "ip", "route", "add", "127.0.0.0/8", "via", one.interface.gateways[0], check=False)
    assert await ask(here, "127.0.0.1", PORTS + 7) is None
    for server in servers:
        server.close()
    for net, endpoint in ((first, one), (first, two), (other, three)):
        await bridge.leave(net, endpoint)
    await bridge.down(first)
    await bridge.down(other)


async def test_an_internal_network_has_no_way_out(bridge: NetworkDriver, settings: Settings) -> None:
    first, other = await two_networks(bridge, internal=True)
    here, there, near = (namespace(settings) for _ in range(3))
    one = await bridge.join(first, "c1", NamespacePlug(path=here), EndpointSettings())
    two = await bridge.join(other, "c2", NamespacePlug(path=there), EndpointSettings())
    three = await bridge.join(other, "c3", NamespacePlug(path=near), EndpointSettings())
    assert "default" not in within(there, "ip", "route")
    servers = [Server(here, 80), Server(near, 80), Server(None, PORTS + 5)]
    published = await bridge.publish(first, one, [port(0)])
    assert await told(there, ip_of(three), 80) == ip_of(two)
    within(there, "ip", "route", "add", "default", "via", f"{OTHER}.1")
    assert await ask(there, ip_of(one), 80) is None
    assert await ask(there, one.interface.gateways[0], PORTS + 5) is None
    assert await ask(there, one.interface.gateways[0], published.ports[0].host_port) is None
    for server in servers:
        server.close()
    for net, endpoint in ((first, published), (other, two), (other, three)):
        await bridge.leave(net, endpoint)
    await bridge.down(first)
    await bridge.down(other)


async def test_without_icc_neighbours_do_not_speak(bridge: NetworkDriver, settings: Settings) -> None:
    options = {"com.docker.network.bridge.name": BRIDGE, "com.docker.network.bridge.enable_icc": "false"}
    plan = planned(bridge, bridged(options=options))
    await bridge.up(plan)
    here, there = namespace(settings), namespace(settings)
    one = await bridge.join(plan, "c1", NamespacePlug(path=here), EndpointSettings())
    two = await bridge.join(plan, "c2", NamespacePlug(path=there), EndpointSettings())
    server = Server(there, 80)
    assert await ask(here, ip_of(two), 80) is None
    # Nor by way of the gateway.
    within(here, "ip", "route", "replace", f"{ip_of(two)}/32", "via", one.interface.gateways[0])
    assert await ask(here, ip_of(two), 80) is None
    published = await bridge.publish(plan, two, [port(0)])
    assert await told(None, "127.0.0.1", published.ports[0].host_port) is not None
    server.close()
    await bridge.leave(plan, one)
    await bridge.leave(plan, published)
    await bridge.down(plan)


async def test_nobody_speaks_as_somebody_else(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged(six=True))
    await bridge.up(plan)
    here, there = namespace(settings), namespace(settings)
    one = await bridge.join(plan, "c1", NamespacePlug(path=here), EndpointSettings())
    two = await bridge.join(plan, "c2", NamespacePlug(path=there), EndpointSettings())
    server = Server(there, 80)
    assert await told(here, ip_of(two), 80) == ip_of(one)
    # Another address of the subnet.
    within(here, "ip", "addr", "add", f"{PREFIX}.77/24", "dev", "eth0")
    within(here, "ip", "route", "replace", f"{ip_of(two)}/32", "dev", "eth0", "src", f"{PREFIX}.77")
    assert await ask(here, ip_of(two), 80) is None
    within(here, "ip", "route", "del", f"{ip_of(two)}/32")
    # The gateway's address, claimed by an unasked ARP reply.
    forged = arp_reply(one.interface.mac, one.interface.gateways[0], ip_of(two))
    send_frame(here, forged)
    honest = arp_reply(one.interface.mac, ip_of(one), ip_of(two))
    send_frame(here, honest)
    await asyncio.sleep(0.1)
    neighbours = within(there, "ip", "neigh")
    assert f"{one.interface.gateways[0]} dev eth0 lladdr {one.interface.mac}" not in neighbours
    # Another MAC address.
    within(here, "ip", "link", "set", "eth0", "address", "02:99:99:99:99:99")
    assert await ask(here, ip_of(two), 80) is None
    server.close()
    await bridge.leave(plan, one)
    await bridge.leave(plan, two)
    await bridge.down(plan)


@pytest.mark.parametrize(
    ("mine", "yours", "stolen"), [("169.254.7.1", "169.254.7.2", "169.254.7.3"), ("fe80::71", "fe80::72", "fe80::73")]
)
async def test_link_local_addresses_that_are_asked_for(
    bridge: NetworkDriver, settings: Settings, mine: str, yours: str, stolen: str
) -> None:
    plan = planned(bridge, bridged())
    await bridge.up(plan)
    here, there = namespace(settings), namespace(settings)
    ends = []
    for path, address in ((here, mine), (there, yours)):
        wanted = EndpointSettings(ipam_config=EndpointIPAM(link_local_ips=[address]))
        ends.append(await bridge.join(plan, address, NamespacePlug(path=path), wanted))
    six = ":" in mine
    server = Server(there, 80, six=six)
    target = f"{yours}%eth0" if six else yours
    route = ("ip", "route", "replace", f"{yours}/{128 if six else 32}", "dev", "eth0", "src")
    within(here, *route, mine)
    assert (await told(here, target, 80) or "").partition("%")[0] == mine
    # Another one, that it was not given.
    within(here, "ip", "addr", "add", f"{stolen}/{64 if six else 16}", "dev", "eth0", "nodad")
    within(here, *route, stolen)
    assert await ask(here, target, 80) is None
    server.close()
    for end in ends:
        await bridge.leave(plan, end)
    await bridge.down(plan)


def arp_reply(mac: str, claimed: str, target: str) -> bytes:
    """An Ethernet frame that says `claimed` is at `mac`."""
    own = bytes.fromhex(mac.replace(":", ""))
    addresses = ipaddress.ip_address(claimed).packed, ipaddress.ip_address(target).packed
    body = b"\x00\x01\x08\x00\x06\x04\x00\x02" + own + addresses[0] + b"\xff" * 6 + addresses[1]
    return b"\xff" * 6 + own + b"\x08\x06" + body


def send_frame(path: Path, frame: bytes) -> None:
    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            channel.bind(("eth0", 0))
            channel.send(frame)

    netns.inside(path, send)


# -- after a crash -----------------------------------------------------------------------------


async def test_a_new_daemon_takes_up_what_is_used(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged())
    await bridge.up(plan)
    path, lost = namespace(settings), namespace(settings)
    server = Server(path, 80)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    stranger = await bridge.join(plan, "c2", NamespacePlug(path=lost), EndpointSettings())
    tap = await bridge.join(plan, "c3", TapPlug(owner=0), EndpointSettings())
    published = await bridge.publish(plan, endpoint, [port(0)])
    number = published.ports[0].host_port
    assert isinstance(bridge, Preparing)
    await bridge.close()

    second = load("bridge")(settings)
    assert isinstance(second, Preparing)
    await second.restore(plan, [published])
    assert stranger.interface.device not in devices()
    assert tap.interface.device not in devices()
    assert await told(None, "127.0.0.1", number) is not None
    with pytest.raises(Conflict):
        await second.publish(plan, endpoint, [port(number)])
    asked = EndpointSettings(ipam_config=EndpointIPAM(ipv4_address=ip_of(endpoint)))
    with pytest.raises(Conflict):
        await second.join(plan, "c4", NamespacePlug(path=lost), asked)
    await second.leave(plan, published)
    await second.down(plan)
    await second.close()
    server.close()


async def test_flushed_tables_come_back(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged())
    await bridge.up(plan)
    path = namespace(settings)
    server = Server(path, 80)
    delete_table("bridge")
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    delete_table("inet")
    published = await bridge.publish(plan, endpoint, [port(0)])
    assert await told(None, "127.0.0.1", published.ports[0].host_port) is not None
    await bridge.leave(plan, published)
    server.close()
    await bridge.down(plan)


# -- prepared ----------------------------------------------------------------------------------


async def test_prepared_namespaces_are_whole_and_handed_out_once(bridge: NetworkDriver, settings: Settings) -> None:
    plan = planned(bridge, bridged())
    assert isinstance(bridge, Preparing)
    await bridge.up(plan)
    assert bridge.take(plan, "c0") is None
    got: list[tuple[Path, Endpoint]] = []
    deadline = time.monotonic() + 10
    while len(got) < 4:
        assert time.monotonic() < deadline
        if found := bridge.take(plan, f"c{len(got)}"):
            got.append(found)
        await asyncio.sleep(0.02)
    assert len({path for path, _ in got}) == len({ip_of(endpoint) for _, endpoint in got}) == 4
    server = Server(got[1][0], 80)
    assert await told(got[0][0], ip_of(got[1][1]), 80) == ip_of(got[0][1])
    assert got[0][1].container == "c0"
    server.close()
    for path, endpoint in got:
        netns.unpin(path)
        await bridge.release(plan, endpoint)
    gone = {endpoint.interface.device for _, endpoint in got}
    while gone & devices():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await bridge.down(plan)


# -- names -------------------------------------------------------------------------------------


async def test_the_bridge_offers_names(bridge: NetworkDriver) -> None:
    assert Feature.NAMES in bridge.features
    assert isinstance(bridge, Naming)
    plan = planned(bridge, bridged())
    assert list(bridge.resolvers(plan)) == []
    await bridge.up(plan)
    assert list(bridge.resolvers(plan)) == [f"{PREFIX}.1"]
    await bridge.down(plan)


# -- macvlan -----------------------------------------------------------------------------------


async def test_macvlan_without_a_parent_connects_two_namespaces(settings: Settings) -> None:
    driver = load("macvlan")(settings)
    plan = driver.plan(network("macvlan", ipam=IPAM(config=[IPAMPool(subnet=SUBNET)])), [])
    assert plan.internal
    for _ in range(2):
        await driver.up(plan)
    paths = [namespace(settings) for _ in range(2)]
    one, two = [await driver.join(plan, "c", NamespacePlug(path=path), EndpointSettings()) for path in paths]
    server = Server(paths[1], 80)
    assert await told(paths[0], ip_of(two), 80) == ip_of(one)
    server.close()
    with pytest.raises(Unsupported):
        await driver.join(plan, "vm", TapPlug(owner=0), EndpointSettings())
    for endpoint in (one, two, two):
        await driver.leave(plan, endpoint)
    assert "eth0" not in within(paths[0], "ip", "link")
    for _ in range(2):
        await driver.down(plan)


async def test_macvlan_on_a_parent_that_is_not_there(settings: Settings) -> None:
    driver = load("macvlan")(settings)
    with pytest.raises(NotFound):
        await driver.up(driver.plan(network("macvlan", options={"parent": "nowhere9"}), []))
    with pytest.raises(InvalidArgument):
        driver.plan(network("macvlan", options={"macvlan_mode": "fast"}), [])
