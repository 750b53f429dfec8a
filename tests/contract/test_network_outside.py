"""A bridge network and somebody on the host's wire: what gets out, what gets in, what must not.

The wire is a veth pair to a namespace that plays the world outside; run as root.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bastide.model.config import Settings
from bastide.model.network import EndpointSettings, Network
from bastide.network import Endpoint, NamespacePlug, NetworkDriver

from .test_network import (
    NUMBER,
    PORTS,
    SUBNET,
    SUBNET6,
    Server,
    ask,
    bridge,
    bridged,
    clean,
    ip_of,
    namespace,
    planned,
    port,
    settings,
    told,
    within,
)

__all__ = ["bridge", "clean", "settings"]

WIRE = f"bso{os.getpid() % 10000}"
HOST, WORLD, HOST6, WORLD6 = (
    *(f"198.18.{NUMBER}.{end}" for end in (1, 2)),
    *(f"fd00:51:{NUMBER}::{end}" for end in (1, 2)),
)
METADATA = f"169.254.{NUMBER}.254"


def host(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def cut() -> None:
    subprocess.run(["ip", "link", "delete", WIRE], check=False)


@pytest.fixture
async def world(settings: Settings) -> AsyncIterator[Path]:
    """The namespace at the other end of the host's wire; it knows a way to the containers' subnet."""
    path = namespace(settings)
    host("ip", "link", "add", WIRE, "type", "veth", "peer", "name", "wire", "netns", str(path))
    try:
        # Nobody else is on this wire: no second of waiting for others who might have the same address.
        host("sysctl", "-qw", f"net.ipv6.conf.{WIRE}.accept_dad=0")
        within(path, "sysctl", "-qw", "net.ipv6.conf.wire.accept_dad=0")
        host("ip", "address", "add", f"{HOST}/24", "dev", WIRE)
        host("ip", "address", "add", f"{HOST6}/64", "dev", WIRE, "nodad")
        host("ip", "link", "set", WIRE, "up")
        within(path, "sysctl", "-qw", "net.ipv6.conf.wire.disable_ipv6=0")
        within(path, "ip", "address", "add", f"{WORLD}/24", "dev", "wire")
        within(path, "ip", "address", "add", f"{METADATA}/32", "dev", "wire")
        within(path, "ip", "address", "add", f"{WORLD6}/64", "dev", "wire", "nodad")
        within(path, "ip", "link", "set", "wire", "up")
        within(path, "ip", "route", "add", SUBNET, "via", HOST)
        within(path, "ip", "-6", "route", "add", SUBNET6, "via", HOST6)
        host("ip", "route", "add", METADATA, "dev", WIRE)
        yield path
    finally:
        cut()


class Site:
    """A network with one container that serves on port 80 of both families."""

    def __init__(self, driver: NetworkDriver, plan: Network, path: Path, endpoint: Endpoint) -> None:
        self.driver, self.plan, self.path, self.endpoint = driver, plan, path, endpoint
        self.servers = [Server(path, 80), Server(path, 81, six=True)]

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        await self.driver.leave(self.plan, self.endpoint)
        await self.driver.down(self.plan)

    async def publish(self, host_ip: str, container_port: int = 80) -> int:
        before = len(self.endpoint.ports)
        wanted = port(0, host_ip, container_port=container_port)
        self.endpoint = await self.driver.publish(self.plan, self.endpoint, [wanted])
        return self.endpoint.ports[before].host_port


@pytest.fixture
async def site(bridge: NetworkDriver, settings: Settings, world: Path) -> AsyncIterator[Site]:
    plan = planned(bridge, bridged(six=True))
    await bridge.up(plan)
    path = namespace(settings)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    made = Site(bridge, plan, path, endpoint)
    yield made
    await made.close()


async def test_the_world_sees_the_host(site: Site, world: Path) -> None:
    servers = [Server(world, 8000), Server(world, 8000, six=True, bind=WORLD6)]
    assert await told(site.path, WORLD, 8000) == HOST
    assert await told(site.path, WORLD6, 8000) == HOST6
    for server in servers:
        server.close()


async def test_without_masquerading_the_world_sees_the_container(
    bridge: NetworkDriver, settings: Settings, world: Path
) -> None:
    plan = planned(bridge, bridged())
    options = {**plan.options, "com.docker.network.bridge.enable_ip_masquerade": "false"}
    plan = planned(bridge, bridged(options=options))
    await bridge.up(plan)
    path = namespace(settings)
    endpoint = await bridge.join(plan, "c1", NamespacePlug(path=path), EndpointSettings())
    server = Server(world, 8000)
    assert await told(path, WORLD, 8000) == ip_of(endpoint)
    server.close()
    await bridge.leave(plan, endpoint)
    await bridge.down(plan)


async def test_a_published_port_is_open_to_the_world(site: Site, world: Path) -> None:
    number = await site.publish("")
    assert await told(world, HOST, number) == WORLD
    six = await site.publish("::", 81)
    assert await told(world, HOST6, six) == WORLD6


async def test_bind_addresses_open_no_more_than_was_asked(site: Site, world: Path) -> None:
    loopback, wire, six, loopback6 = [
        await site.publish(address, 81 if ":" in address else 80) for address in ("127.0.0.1", HOST, HOST6, "::1")
    ]
    assert await ask(world, HOST, loopback) is None
    assert await told(world, HOST, wire) == WORLD
    assert await ask(None, "127.0.0.1", wire) is None
    assert await told(world, HOST6, six) == WORLD6
    assert await ask(world, HOST6, wire) is None
    assert await ask(world, HOST6, loopback6) is None
    assert await told(None, "::1", loopback6) is not None
    # A neighbour who sends to loopback addresses by way of the host.
    within(world, "ip", "route", "flush", "table", "local", "127.0.0.0/8", check=False)
    within(world, "ip", "link", "set", "lo", "down")
    within(world, "ip", "route", "add", "127.0.0.0/8", "via", HOST)
    assert await ask(world, "127.0.0.1", loopback) is None


async def test_what_is_not_published_is_closed_to_neighbours(site: Site, world: Path) -> None:
    await site.publish("")
    assert await told(None, ip_of(site.endpoint), 80) is not None
    assert await ask(world, ip_of(site.endpoint), 80) is None
    assert await ask(world, ip_of(site.endpoint, 6), 81) is None


async def test_link_local_metadata_is_out_of_reach(site: Site, world: Path) -> None:
    server = Server(world, 80, bind=METADATA)
    assert await told(None, METADATA, 80) is not None
    assert await ask(site.path, METADATA, 80) is None
    server.close()


async def test_link_local_metadata_that_the_host_answers_itself(site: Site) -> None:
    """Some hosts send the question to a server of theirs."""
    gateway = site.endpoint.interface.gateways[0]
    server = Server(None, PORTS + 4)
    assert await told(site.path, gateway, PORTS + 4) is not None
    table = f"bstmeta{NUMBER}"
    rules = f"type nat hook prerouting priority -120; ip daddr {METADATA} tcp dport 80 dnat to {gateway}:{PORTS + 4}"
    host("nft", f"table ip {table} {{ chain arriving {{ {rules}; }}; }}")
    try:
        assert await ask(site.path, METADATA, 80) is None
    finally:
        host("nft", "delete", "table", "ip", table)
        server.close()


async def test_the_gateway_offers_what_the_host_offers_and_no_loopback(site: Site, world: Path) -> None:
    servers = [
        Server(None, PORTS + 1, bind="127.0.0.1"),
        Server(None, PORTS + 2, six=True, bind="::1"),
        Server(None, PORTS + 3),
    ]
    gateway = site.endpoint.interface.gateways[0]
    assert await told(site.path, gateway, PORTS + 3) is not None
    assert await ask(site.path, gateway, PORTS + 1) is None
    assert await ask(site.path, site.endpoint.interface.gateways[1], PORTS + 2) is None
    for server in servers:
        server.close()


async def test_large_answers_fit_the_way_out(site: Site) -> None:
    route = Path("/proc/net/route").read_text()
    assert site.endpoint.interface.mtu <= 1500
    assert "00000000" in route or site.endpoint.interface.mtu == 1500
