"""Networks: their records, from creation to removal, and what containers ask of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from bastide import network as drivers
from bastide.engine import endpoints
from bastide.engine.backends import Backends
from bastide.engine.clock import now
from bastide.engine.connections import Connected, Connections, driver_name
from bastide.engine.events import Events
from bastide.engine.identity import new_id
from bastide.engine.ledger import Ledger
from bastide.engine.state import Store
from bastide.model.config import Settings
from bastide.model.container import Container, HostConfig
from bastide.model.errors import (
    BastideError,
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
    Unsupported,
)
from bastide.model.network import IPAM, EndpointSettings, IPAMPool, Network
from bastide.network import Endpoint, Naming, NetworkDriver, Preparing, ipam
from bastide.runtime import Feature

log = logging.getLogger("bastide.engine")

_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)
_RESERVED = (*endpoints.PREDEFINED, "default")


class Networks:
    """One method for each thing a user can ask of networks; `reference` is a name, id or unique prefix.

    `restore` comes first, `close` last.
    """

    def __init__(self, settings: Settings, store: Store, events: Events, ledger: Ledger, backends: Backends) -> None:
        self._settings, self._events = settings, events
        self._ledger, self._backends = ledger, backends
        self._table = store.table("networks", Network)
        self._drivers: dict[str, NetworkDriver] = {}
        self._lock = asyncio.Lock()
        self._connections = Connections(settings, store, events, ledger, self)

    # -- records -------------------------------------------------------------------------------

    def driver(self, name: str) -> NetworkDriver:
        """The driver of that name, made on first use. Raises InvalidArgument for an unknown one."""
        if name not in self._drivers:
            made = self._drivers[name] = drivers.load(name)(self._settings)
            if isinstance(made, Naming):
                made.answer_from(self._connections.directory)
        return self._drivers[name]

    def list(self) -> list[Network]:
        """Every network."""
        return self._table.values()

    def get(self, reference: str) -> Network:
        """By full id, then name, then unique prefix of an id. Raises NotFound, InvalidArgument."""
        if found := self._table.get(reference):
            return found
        named = [each for each in self._table.values() if each.name == reference]
        if named:
            return named[0]
        matches = [each for each in self._table.values() if reference and each.id.startswith(reference)]
        if len(matches) > 1:
            raise InvalidArgument(f"network {reference} is ambiguous ({len(matches)} matches found based on ID prefix)")
        if not matches:
            raise NotFound(f"network {reference} not found")
        return matches[0]

    def endpoints(self, network: Network) -> dict[str, Endpoint]:
        """Endpoints of running containers on a network, by container id."""
        return self._connections.on(network)

    def container_name(self, container_id: str) -> str:
        """The name of a container, "" when it has gone."""
        found = self._ledger.get(container_id)
        return found.name if found else ""

    async def create(self, wanted: Network) -> Network:
        """A new network; `wanted` has everything but id and time.

        Raises Conflict (name), PermissionDenied (predefined, subnets overlap), InvalidArgument, NotFound
        (driver), Unavailable (swarm), ResourceExhausted, HostError; on error nothing is left.
        """
        self._check_new(wanted)
        async with self._lock:
            if any(each.name == wanted.name for each in self._table.values()):
                raise Conflict(f"network with name {wanted.name} already exists")
            driver = self.driver(wanted.driver)
            if complaint := await driver.probe():
                raise Unsupported(f"network driver {wanted.driver} does not work here: {complaint}")
            made = msgspec.structs.replace(wanted, id=new_id(), created=now())
            planned = self._table.put(made.id, driver.plan(made, self._table.values()))
            try:
                await driver.up(planned)
            except BaseException:
                await asyncio.shield(driver.down(planned))
                self._table.delete(planned.id)
                raise
        self._event(planned, "create")
        return planned

    def _check_new(self, wanted: Network) -> None:
        name = wanted.name
        if not name.strip():
            raise InvalidArgument("network name cannot be empty")
        if name in _RESERVED:
            raise PermissionDenied(f"operation is not permitted on predefined {name} network")
        if len(name) > 255 or not name.isprintable() or "/" in name or name != name.strip():
            raise InvalidArgument(f"invalid network name: {name!r}")
        if wanted.driver == "overlay" or wanted.scope in ("swarm", "global") or wanted.ingress:
            raise Unavailable(_NO_SWARM)
        if wanted.driver not in drivers.drivers():
            raise NotFound(f"could not find plugin {wanted.driver} in v1 plugin registry: plugin not found")
        if wanted.config_only or wanted.config_from.get("Network"):
            raise Unsupported("config-only networks are not supported")
        if not wanted.enable_ipv4 and not wanted.enable_ipv6:
            raise InvalidArgument("IPv4 or IPv6 must be enabled")

    def _event(self, network: Network, action: str) -> None:
        attributes = {"name": network.name, "type": driver_name(network)}
        self._events.publish("network", action, network.id, attributes)

    async def remove(self, reference: str) -> Network:
        """Remove a network. Raises NotFound, PermissionDenied (predefined, in use: Docker's status)."""
        async with self._lock:
            network = self.get(reference)
            if network.name in endpoints.PREDEFINED:
                raise PermissionDenied(f"{network.name} is a pre-defined network and cannot be removed")
            active = self._connections.on(network)
            if active:
                held = " ".join(
                    f'name:"{self.container_name(container)}" id:"{endpoint.id[:12]}"'
                    for container, endpoint in active.items()
                )
                raise PermissionDenied(
                    f"error while removing network: network {network.name} has active endpoints ({held})"
                )
            await self.driver(network.driver).down(network)
            self._table.delete(network.id)
        self._event(network, "destroy")
        return network

    async def prune(self, candidates: Sequence[Network]) -> Sequence[Network]:
        """Remove those of `candidates` that no container is on; gives them."""
        removed = []
        for network in candidates:
            if network.name not in endpoints.PREDEFINED and not self._connections.on(network):
                try:
                    removed.append(await self.remove(network.id))
                except (NotFound, PermissionDenied):
                    continue
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return removed

    # -- containers ----------------------------------------------------------------------------

    def check(self, host: HostConfig, given: dict[str, EndpointSettings], mac: str = "") -> dict[str, EndpointSettings]:
        """A new container's endpoints by network name; `mac` is the container's own `MacAddress`.

        Raises NotFound (network), InvalidArgument.
        """
        return endpoints.wanted(host, given, mac, self.get)

    async def connect_all(self, container: Container, features: frozenset[Feature], uid: int = 0) -> Connected:
        """Connect a container that is about to start; see `Connections.connect_all`."""
        return await self._connections.connect_all(container, features, uid)

    async def disconnect_all(self, container_id: str) -> None:
        """Let go of everything that a container holds; repeatable."""
        await self._connections.disconnect_all(container_id)

    async def connect(self, reference: str, container: str, settings: EndpointSettings) -> None:
        """Connect a container to one more network, at once if it runs."""
        network, found = self.get(reference), self._ledger.find(container)
        await self._connections.connect(network, found, settings, self._backends.runtime(found.runtime))

    async def disconnect(self, reference: str, container: str, force: bool = False) -> None:
        """Take a container from a network, at once if it runs."""
        found = self._ledger.find(container)
        await self._connections.disconnect(self.get(reference), found, self._backends.runtime(found.runtime), force)

    def renamed(self, container: Container) -> None:
        """A container has another name now."""
        self._connections.renamed(container)

    # -- the daemon's start and end ------------------------------------------------------------

    async def restore(self, alive: set[str]) -> None:
        """Take up the networks with what the containers `alive` hold, and mend or remove everything else.

        A network that cannot be had is logged and keeps nothing else down.
        """
        await self._connections.open(alive)
        self._predefine()
        networks = self._table.values()
        await asyncio.gather(*map(self._restore, networks))
        self._connections.announce_all()
        driver = self.driver("bridge")
        for network in networks:
            if network.name == endpoints.DEFAULT and isinstance(driver, Preparing):
                driver.refill(network)

    async def _restore(self, network: Network) -> None:
        try:
            driver = self.driver(network.driver)
            await driver.restore(network, list(self._connections.on(network).values()))
        except BastideError as error:
            log.error("network %s cannot be taken up: %s", network.name, error.message)

    def _predefine(self) -> None:
        """See to it that the networks that always exist do, as the settings say."""
        for name in ("none", "host"):
            if not any(each.name == name for each in self._table.values()):
                made = Network(name=name, id=new_id(), created=now(), driver=name)
                self._table.put(made.id, made)
        present = next((each for each in self._table.values() if each.name == endpoints.DEFAULT), None)
        try:
            wanted = self._default(present)
        except BastideError as error:
            log.error("default network, settings bridge and bridge_subnet: %s", error.message)
            return
        if wanted != present:
            self._table.put(wanted.id, wanted)

    def _default(self, present: Network | None) -> Network:
        pools = [
            IPAMPool(subnet=text) for text in (self._settings.bridge_subnet, self._settings.bridge_subnet6) if text
        ]
        prefix = "com.docker.network.bridge"
        bare = Network(
            name=endpoints.DEFAULT,
            id=present.id if present else new_id(),
            created=present.created if present else now(),
            driver="bridge",
            enable_ipv6=bool(self._settings.bridge_subnet6),
            ipam=IPAM(config=pools),
            options={
                f"{prefix}.default_bridge": "true",
                f"{prefix}.enable_icc": "true",
                f"{prefix}.enable_ip_masquerade": "true",
                f"{prefix}.name": self._settings.bridge,
            },
        )
        others = [each for each in self._table.values() if each.name != endpoints.DEFAULT]
        return self.driver("bridge").plan(bare, [each for each in others if ipam.subnets(each)])

    async def close(self) -> None:
        """Stop resolvers, proxies and background work; what containers use stays."""
        for driver in self._drivers.values():
            if isinstance(driver, Preparing):
                await driver.close()
        await self._connections.close()
