"""Networks and endpoints in the engine, over a driver that does nothing on the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bastide.engine import connections
from bastide.engine.events import Events
from bastide.engine.ledger import Ledger
from bastide.engine.networks import Networks
from bastide.engine.state import Store
from bastide.model.config import Settings
from bastide.model.container import Config, Container, HostConfig, Isolation, State, Status
from bastide.model.errors import Conflict, InvalidArgument, NotFound, PermissionDenied, Unavailable, Unsupported
from bastide.model.network import EndpointIPAM, EndpointSettings, Network, PortBinding
from bastide.model.process import Interface
from bastide.network import Endpoint, NamespacePlug, NetworkDriver, Plug, Port, TapPlug, ipam
from bastide.network import Feature as NetworkFeature
from bastide.network.endpoint_options import SYSCTLS
from bastide.runtime import Feature

CONTAINER = frozenset({Feature.NETWORK_NAMESPACE, Feature.HOTPLUG_NETWORK, Feature.SHARED_NAMESPACES})
VM: frozenset[Feature] = frozenset()


class Paper(NetworkDriver):
    """A driver that only gives out addresses."""

    name = "bridge"
    features = frozenset({NetworkFeature.PORTS})

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.leases: dict[str, ipam.Leases] = {}
        self.joined: dict[str, Endpoint] = {}
        self.plugs: list[Plug] = []
        self.broken = ""

    async def probe(self) -> str:
        return ""

    def plan(self, network: Network, existing: Sequence[Network]) -> Network:
        return ipam.plan(network, existing, (), self.settings.address_pools)

    async def up(self, network: Network) -> None:
        if self.broken == "up":
            raise Unsupported("no bridge today")
        self.leases.setdefault(network.id, ipam.Leases(network))

    async def down(self, network: Network) -> None:
        self.leases.pop(network.id, None)

    async def join(
        self, network: Network, container: str, plug: Plug, wanted: EndpointSettings, name: str = "eth0"
    ) -> Endpoint:
        asked = wanted.ipam_config or EndpointIPAM()
        taken = self.leases[network.id].take(asked.ipv4_address, asked.ipv6_address)
        self.plugs.append(plug)
        interface = Interface(
            name=name,
            device=f"v-{name}",
            mac=wanted.mac_address or ipam.mac_for(taken[0][0]),
            addresses=tuple(f"{address}/{pool.subnet.prefixlen}" for address, pool in taken),
            gateways=tuple(str(pool.gateway) for _, pool in taken),
        )
        made = Endpoint(id=f"{container}-{network.name}", container=container, network=network.id, interface=interface)
        self.joined[made.id] = made
        return made

    async def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> Endpoint:
        if self.broken == "publish":
            raise Conflict("Bind for 0.0.0.0:80 failed: port is already allocated")
        numbered = tuple(msgspec.structs.replace(port, host_port=port.host_port or 49152) for port in ports)
        return msgspec.structs.replace(endpoint, ports=numbered)

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        self.joined.pop(endpoint.id, None)
        for cidr in endpoint.interface.addresses:
            self.leases[network.id].give_back(cidr)

    async def restore(self, network: Network, endpoints: Sequence[Endpoint]) -> None:
        await self.up(network)
        for endpoint in endpoints:
            for cidr in endpoint.interface.addresses:
                self.leases[network.id].mark(cidr)


class Stock:
    """Stands for `Namespaces`."""

    def __init__(self, settings: Settings) -> None:
        self.out: set[Path] = set()
        self.made = 0

    async def open(self, used: Any) -> None:
        self.out = set(used)

    async def take(self) -> Path:
        self.made += 1
        path = Path(f"/run/netns/{self.made}")
        self.out.add(path)
        return path

    def discard(self, path: Path) -> None:
        self.out.discard(path)

    def tidy(self) -> None:
        pass

    async def close(self) -> None:
        pass


class World:
    """The engine's networks with a ledger, a store on disk and the paper driver."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings(
            data_root=root / "data",
            run_root=root / "run",
            bridge_subnet="10.88.0.0/24",
            address_pools=("10.90.0.0/16",),
        )
        self.store = Store(self.settings.data_root)
        self.events = Events()
        self.ledger = Ledger(self.store, self.events)
        self.features = CONTAINER
        backends = SimpleNamespace(runtime=lambda name: SimpleNamespace(features=self.features))
        self.networks = Networks(self.settings, self.store, self.events, self.ledger, backends)  # type: ignore
        self.paper = Paper(self.settings)
        self.networks._drivers["bridge"] = self.paper

    @property
    def stock(self) -> Any:
        return self.networks._connections._namespaces

    async def container(self, name: str, network: str = "", running: bool = True, **fields: Any) -> Container:
        """A container that was created, and started when `running`."""
        host = HostConfig(network_mode=network or "default", **fields.pop("host", {}))
        given = fields.pop("endpoints", {})
        number = sum(name.encode())
        config = Config(hostname=f"{number:012x}", **fields.pop("config", {}))
        made = Container(
            id=f"{number:064x}", name=name, created="", config=config, host_config=host, image_id="", image_ref="",
            layers=[], isolation=Isolation.CONTAINER, runtime="crun", snapshotter="overlay", platform="linux",
            path="", args=[], networks=self.networks.check(host, given),
        )  # fmt: skip
        self.ledger.save(made)
        return await self.start(made) if running else made

    async def start(self, made: Container) -> Container:
        connected = await self.networks.connect_all(made, self.features)
        self.ledger.change(made, networks=connected.endpoints, ports=connected.ports)
        self.connected = connected
        return self.ledger.change_state(made, status=Status.RUNNING, pid=1)

    async def create(self, name: str, **fields: Any) -> Network:
        return await self.networks.create(
            Network(**{"name": name, "id": "", "created": "", "driver": "bridge"} | fields)
        )

    def told(self) -> list[str]:
        return [f"{event.kind} {event.action} {event.attributes.get('name', '')}" for event in self.events.past(0)]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(connections, "Namespaces", Stock)
    made = World(tmp_path)
    await made.networks.restore(set())
    yield made
    await made.networks.close()
    made.store.close()


# -- records -----------------------------------------------------------------------------------


async def test_predefined_networks(world: World) -> None:
    assert {network.name: network.driver for network in world.networks.list()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "none",
    }
    before = world.networks.get("bridge")
    await world.networks.restore(set())
    assert world.networks.get("bridge") == before
    for name in ("bridge", "host", "none"):
        with pytest.raises(PermissionDenied, match=f"{name} is a pre-defined network and cannot be removed"):
            await world.networks.remove(name)
        with pytest.raises(PermissionDenied, match=f"operation is not permitted on predefined {name} network"):
            await world.create(name)


async def test_create_find_remove(world: World) -> None:
    made = await world.create("meadow", labels={"a": "b"})
    assert world.networks.get("meadow") == world.networks.get(made.id) == world.networks.get(made.id[:8]) == made
    with pytest.raises(Conflict, match="network with name meadow already exists"):
        await world.create("meadow")
    for unknown in ("moor", "", "0" * 64):
        with pytest.raises(NotFound, match=f"network {unknown} not found"):
            world.networks.get(unknown)
    await world.networks.remove("meadow")
    with pytest.raises(NotFound):
        world.networks.get("meadow")
    assert world.told() == ["network create meadow", "network destroy meadow"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": " "}, InvalidArgument),
        ({"name": "a/../b"}, InvalidArgument),
        ({"name": "a\x1b[31m"}, InvalidArgument),
        ({"driver": "overlay"}, Unavailable),
        ({"scope": "swarm"}, Unavailable),
        ({"ingress": True}, Unavailable),
        ({"driver": "ipvlan"}, NotFound),
        ({"config_only": True}, Unsupported),
        ({"config_from": {"Network": "other"}}, Unsupported),
        ({"enable_ipv4": False}, InvalidArgument),
        ({"driver": "none"}, PermissionDenied),
    ],
    ids=str,
)
async def test_what_is_not_created(world: World, fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        await world.create(**{"name": "meadow"} | fields)
    assert len(world.networks.list()) == 3


async def test_a_creation_that_fails_leaves_nothing(world: World) -> None:
    world.paper.broken = "up"
    with pytest.raises(Unsupported):
        await world.create("meadow")
    assert len(world.networks.list()) == 3
    world.paper.broken = ""
    await world.create("meadow")


async def test_the_same_name_twice_at_once(world: World) -> None:
    done = await asyncio.gather(*(world.create("meadow") for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, Network) for each in done) == 1
    assert sum(isinstance(each, Conflict) for each in done) == 4


async def test_a_network_in_use_stays(world: World) -> None:
    await world.create("meadow")
    made = await world.container("web", "meadow")
    with pytest.raises(PermissionDenied, match=r'network meadow has active endpoints \(name:"web"'):
        await world.networks.remove("meadow")
    assert await world.networks.prune(world.networks.list()) == []
    await world.networks.disconnect_all(made.id)
    assert [network.name for network in await world.networks.prune(world.networks.list())] == ["meadow"]


# -- containers --------------------------------------------------------------------------------


async def test_a_container_on_the_default_network(world: World) -> None:
    made = await world.container("web", host={"port_bindings": {"80/tcp": [PortBinding(host_port="8080")]}})
    own = world.ledger.fresh(made).networks["bridge"]
    assert (own.ip_address, own.ip_prefix_len, own.gateway) == ("10.88.0.2", 24, "10.88.0.1")
    assert (own.mac_address, own.dns_names) == ("02:42:0a:58:00:02", None)
    assert world.connected.ports == {"80/tcp": [PortBinding(host_ip="", host_port="8080")]}
    assert world.connected.networking.namespace == Path("/run/netns/1")
    assert "10.88.0.2\t" + made.config.hostname in world.connected.hosts
    assert list(world.networks.endpoints(world.networks.get("bridge"))) == [made.id]
    await world.networks.disconnect_all(made.id)
    await world.networks.disconnect_all(made.id)
    assert world.networks.endpoints(world.networks.get("bridge")) == {}
    assert (world.paper.joined, world.stock.out) == ({}, set())
    assert world.told() == ["network connect bridge", "network disconnect bridge"]


async def test_a_derived_mac_address_follows_the_next_ip_address(world: World) -> None:
    made = await world.container("web")
    again = await world.start(world.ledger.fresh(made))
    assert again.networks["bridge"].ip_address == "10.88.0.3"
    assert again.networks["bridge"].mac_address == "02:42:0a:58:00:03"
    given = await world.container(
        "fixed", config={}, endpoints={"bridge": EndpointSettings(mac_address="02:11:22:33:44:55")}
    )
    again = await world.start(world.ledger.fresh(given))
    assert again.networks["bridge"].mac_address == "02:11:22:33:44:55"


async def test_several_networks_and_their_order(world: World) -> None:
    await world.create("meadow")
    await world.create("alley")
    made = await world.container(
        "web",
        "meadow",
        endpoints={
            "meadow": EndpointSettings(aliases=["www"], ipam_config=EndpointIPAM(ipv4_address="10.90.0.9")),
            "alley": EndpointSettings(),
        },
    )
    devices = [(each.name, each.gateways) for each in world.connected.networking.interfaces]
    assert devices == [("eth0", ("10.90.0.1",)), ("eth1", ())]
    own = world.ledger.fresh(made).networks
    assert own["meadow"].ip_address == "10.90.0.9"
    assert own["meadow"].dns_names == ["web", "www", made.id[:12], made.config.hostname]
    other = await world.container("db", "meadow")
    directory = world.networks._connections.directory
    network = world.networks.get("meadow").id
    asker = directory.asker(network, ipam.address(other.networks["meadow"].ip_address))
    assert directory.find(asker, network, "www") == [ipam.address("10.90.0.9")]
    renamed = world.ledger.change(made, name="site")
    world.networks.renamed(renamed)
    assert directory.find(asker, network, "web") is None
    assert directory.find(asker, network, "site") == [ipam.address("10.90.0.9")]


async def test_a_failure_leaves_nothing(world: World) -> None:
    await world.create("meadow")
    world.paper.broken = "publish"
    with pytest.raises(Conflict, match="port is already allocated"):
        await world.container(
            "web", "meadow", endpoints={"bridge": EndpointSettings()},
            host={"port_bindings": {"80/tcp": [PortBinding(host_port="80")]}},
        )  # fmt: skip
    assert (world.paper.joined, world.stock.out) == ({}, set())
    assert "network connect meadow" not in world.told()


async def test_host_and_none(world: World) -> None:
    await world.container("open", "host")
    assert world.connected.networking.host
    await world.container("closed", "none")
    assert not world.connected.networking.host
    assert world.connected.networking.interfaces == ()
    assert world.connected.networking.namespace is not None


async def test_a_vm_gets_taps(world: World) -> None:
    world.features = VM
    await world.container("vm")
    assert isinstance(world.paper.plugs[-1], TapPlug)
    assert world.connected.networking.namespace is None
    assert world.connected.networking.interfaces[0].device == "v-eth0"


async def test_sharing_another_containers_network(world: World) -> None:
    web = await world.container("web")
    hosts = world.connected.hosts
    await world.container("sidecar", "container:web")
    assert world.connected.networking.namespace == Path("/run/netns/1")
    assert world.connected.hosts == hosts
    await world.networks.disconnect_all(world.ledger.find("sidecar").id)
    assert world.stock.out == {Path("/run/netns/1")}
    world.ledger.change_state(web, status=Status.EXITED)
    with pytest.raises(Conflict, match="cannot join network of a non running container"):
        await world.container("late", "container:web")
    world.features = VM
    await world.container("vm")
    world.features = CONTAINER
    with pytest.raises(Unsupported):
        await world.container("guest", "container:vm")


async def test_what_is_not_asked_for_together(world: World) -> None:
    await world.create("meadow")
    for mode, endpoints in (
        ("host", {"meadow": EndpointSettings()}),
        ("none", {"meadow": EndpointSettings()}),
        ("default", {"bridge": EndpointSettings(ipam_config=EndpointIPAM(ipv4_address="10.88.0.9"))}),
        ("meadow", {"meadow": EndpointSettings(ipam_config=EndpointIPAM(ipv4_address="fd00::1"))}),
        ("meadow", {"meadow": EndpointSettings(aliases=["a\nb"])}),
        ("meadow", {"meadow": EndpointSettings(mac_address="nope")}),
        ("meadow", {"meadow": EndpointSettings(driver_opts={"x": "y"})}),
        ("none", {"none": EndpointSettings(driver_opts={SYSCTLS: "net.ipv4.conf.IFNAME.log_martians=1"})}),
        ("host", {"host": EndpointSettings(ipam_config=EndpointIPAM(link_local_ips=["169.254.1.1"]))}),
        ("container:", {}),
    ):
        with pytest.raises(InvalidArgument):
            world.networks.check(HostConfig(network_mode=mode), endpoints)
    with pytest.raises(NotFound, match="network moor not found"):
        world.networks.check(HostConfig(network_mode="moor"), {})
    for fields in (
        {"dns": ["1.1.1.1"]},
        {"extra_hosts": ["a:1.1.1.1"]},
        {"port_bindings": {"80/tcp": []}},
        {"publish_all_ports": True},
        {"links": ["a:b"]},
    ):
        with pytest.raises(InvalidArgument, match="conflicting options"):
            world.networks.check(HostConfig(network_mode="container:web", **fields), {})
    for fields in ({"dns": ["here"]}, {"dns_search": ["a\nnameserver 6.6.6.6"]}, {"extra_hosts": ["a"]}):
        with pytest.raises(InvalidArgument):
            world.networks.check(HostConfig(**fields), {})


# -- while it runs -----------------------------------------------------------------------------


async def test_connect_and_disconnect_a_running_container(world: World) -> None:
    await world.create("meadow")
    web = await world.container("web")
    paths = connections.bundles.Paths(world.settings, web.id)
    paths.hosts.parent.mkdir(parents=True)
    paths.hosts.write_text("old")
    await world.networks.connect("meadow", "web", EndpointSettings(aliases=["www"]))
    assert isinstance(world.paper.plugs[-1], NamespacePlug)
    present = world.ledger.fresh(web)
    assert present.networks["meadow"].ip_address == "10.90.0.2"
    assert "10.90.0.2" in paths.hosts.read_text()
    with pytest.raises(PermissionDenied, match="already exists in network meadow"):
        await world.networks.connect("meadow", "web", EndpointSettings())
    await world.networks.disconnect("bridge", "web")
    assert list(world.ledger.fresh(web).networks) == ["meadow"]
    assert "10.88" not in paths.hosts.read_text()
    with pytest.raises(PermissionDenied, match="is not connected to network bridge"):
        await world.networks.disconnect("bridge", "web")
    await world.networks.disconnect("bridge", "web", force=True)
    with pytest.raises(InvalidArgument, match="host network"):
        await world.networks.connect("host", "web", EndpointSettings())
    with pytest.raises(InvalidArgument, match="private"):
        await world.networks.connect("none", "web", EndpointSettings())


async def test_connect_a_stopped_container(world: World) -> None:
    await world.create("meadow")
    web = await world.container("web", running=False)
    await world.networks.connect("meadow", "web", EndpointSettings())
    assert set(world.ledger.fresh(web).networks) == {"bridge", "meadow"}
    assert world.paper.joined == {}
    await world.networks.disconnect("bridge", "web")
    assert set(world.ledger.fresh(web).networks) == {"meadow"}
    with pytest.raises(NotFound, match="No such container: moor"):
        await world.networks.connect("meadow", "moor", EndpointSettings())


async def test_a_running_vm_is_not_connected(world: World) -> None:
    await world.create("meadow")
    world.features = VM
    await world.container("vm")
    with pytest.raises(Unsupported, match="stop it first"):
        await world.networks.connect("meadow", "vm", EndpointSettings())
    with pytest.raises(Unsupported, match="stop it first"):
        await world.networks.disconnect("bridge", "vm")


# -- files -------------------------------------------------------------------------------------


async def test_links_of_the_default_network(world: World) -> None:
    database = await world.container("db")
    await world.container("web", host={"links": ["db:store", "db"]})
    lines = [line for line in world.connected.hosts.splitlines() if line.startswith("10.88.0.2\t")]
    assert lines == [f"10.88.0.2\tstore {database.config.hostname} db", f"10.88.0.2\tdb {database.config.hostname}"]
    with pytest.raises(InvalidArgument, match="could not get container for moor"):
        await world.container("late", host={"links": ["moor:x"]})


async def test_extra_hosts_and_dns(world: World) -> None:
    host = {"extra_hosts": ["a:1.2.3.4", "up:host-gateway"], "dns": ["9.9.9.9"], "dns_search": ["x.example"]}
    await world.container("web", host=host)
    assert "1.2.3.4\ta\n" in world.connected.hosts
    assert "10.88.0.1\tup\n" in world.connected.hosts
    # The paper driver has no resolver: the asked for server is told to the container itself.
    assert "nameserver 9.9.9.9\nsearch x.example" in world.connected.resolv_conf


# -- after a crash -----------------------------------------------------------------------------


async def test_restore_takes_up_what_runs_and_forgets_the_rest(world: World) -> None:
    await world.create("meadow")
    web, gone = await world.container("web", "meadow"), await world.container("gone", "meadow")
    world.store.close()
    again = World(world.settings.data_root.parent)
    try:
        await again.networks.restore({web.id})
        assert list(again.networks.endpoints(again.networks.get("meadow"))) == [web.id]
        assert again.stock.out == {Path("/run/netns/1")}
        asker = again.networks._connections.directory
        assert asker.find(None, again.networks.get("meadow").id, "web") == [ipam.address("10.90.0.2")]
        assert asker.find(None, again.networks.get("meadow").id, "gone") is None
        await again.networks.disconnect_all(gone.id)
        other = await again.container("other", "meadow")
        assert other.networks["meadow"].ip_address == "10.90.0.3"
    finally:
        again.store.close()


async def test_a_network_that_cannot_be_had_keeps_nothing_down(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.create("meadow")
    world.paper.broken = "up"
    await world.networks.restore(set())
    assert "cannot be taken up" in caplog.text
    assert State().running is False
