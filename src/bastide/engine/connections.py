"""Containers on networks: connected when they start, let go when they end, changed while they run."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from bastide.engine import bundle as bundles
from bastide.engine import endpoints, ports
from bastide.engine.events import Events
from bastide.engine.ledger import Ledger
from bastide.engine.state import Store
from bastide.model.config import Settings
from bastide.model.container import Container
from bastide.model.errors import BastideError, Conflict, InvalidArgument, NotFound, PermissionDenied, Unsupported
from bastide.model.network import EndpointSettings, Network, PortBinding
from bastide.model.process import Networking, Struct
from bastide.network import (
    Endpoint,
    NamespacePlug,
    Naming,
    NetworkDriver,
    Plug,
    Preparing,
    TapPlug,
    endpoint_options,
    ipam,
    resolv,
)
from bastide.network import Feature as NetworkFeature
from bastide.network.names import Directory, Place, Resident
from bastide.network.namespaces import Namespaces
from bastide.runtime import Feature, Hotplugging, Runtime

log = logging.getLogger("bastide.engine")


class Attachment(Struct, frozen=True, kw_only=True):
    """What a running container holds of networks: enough to undo and to restore it.

    `namespace` is the file that keeps its network namespace, "" for a VM or the host's; `owned` says
    whether it ends with this container, `shareable` whether others can use it too. `endpoints` are by
    network name, in the order of devices.
    """

    namespace: str = ""
    owned: bool = True
    shareable: bool = True
    endpoints: dict[str, Endpoint] = {}


class Connected(Struct, frozen=True, kw_only=True):
    """What `connect_all` gives: for the bundle, for the record, and the contents of two files."""

    networking: Networking
    endpoints: dict[str, EndpointSettings]
    ports: dict[str, list[PortBinding] | None]
    hosts: str
    resolv_conf: str


class Catalogue(Protocol):
    """The networks and their drivers, as `Connections` needs them."""

    def get(self, reference: str) -> Network:
        """The network of a name or id. Raises NotFound."""

    def driver(self, name: str) -> NetworkDriver:
        """The driver of that name."""


class Connections:
    """The endpoints of all containers."""

    def __init__(self, settings: Settings, store: Store, events: Events, ledger: Ledger, catalogue: Catalogue) -> None:
        self._settings, self._events, self._ledger, self._catalogue = settings, events, ledger, catalogue
        self._table = store.table("attachments", Attachment)
        self._namespaces = Namespaces(settings)
        self.directory = Directory()
        self._host_resolv = resolv.HostResolv()

    def on(self, network: Network) -> dict[str, Endpoint]:
        """The endpoints on a network, by container id."""
        return {
            container: endpoint
            for container, attachment in self._table.items()
            for endpoint in attachment.endpoints.values()
            if endpoint.network == network.id
        }

    # -- start and end of a container ----------------------------------------------------------

    async def connect_all(self, container: Container, features: frozenset[Feature], uid: int = 0) -> Connected:
        """Connect a container that is about to start.

        `features` are its runtime's; `uid` is who may open the taps of a VM. Raises NotFound (a network),
        Conflict (address, port), InvalidArgument, ResourceExhausted, Unsupported, HostError; on error
        nothing is left.
        """
        await self.disconnect_all(container.id)
        mode = container.host_config.network_mode
        if other := endpoints.shares_with(mode):
            return self._share(container, self._ledger.find(other), features)
        wanted = {name: endpoints.asked(settings) for name, settings in container.networks.items()}
        if endpoints.mode_network(mode) == "host":
            return self._finish(container, Attachment(owned=False), wanted, Networking(host=True))
        if Feature.SYSCTLS not in features and any(endpoint_options.sysctls(each, "") for each in wanted.values()):
            raise Unsupported(
                f"isolation {container.isolation} does not offer {endpoint_options.SYSCTLS}: leave it out or use "
                "--isolation container"
            )
        in_namespace = Feature.NETWORK_NAMESPACE in features
        async with AsyncExitStack() as undo:
            attachment = await self._attach(container, wanted, in_namespace, uid, undo)
            attachment = msgspec.structs.replace(
                await self._publish(container, attachment), shareable=Feature.SHARED_NAMESPACES in features
            )
            interfaces = [each.interface for each in attachment.endpoints.values() if each.interface.name]
            routed = next((number for number, interface in enumerate(interfaces) if interface.gateways), 0)
            networking = Networking(
                namespace=Path(attachment.namespace) if attachment.namespace else None,
                interfaces=tuple(
                    interface if number == routed else msgspec.structs.replace(interface, gateways=())
                    for number, interface in enumerate(interfaces)
                ),
            )
            connected = self._finish(container, attachment, wanted, networking)
            undo.pop_all()
        return connected

    async def _attach(
        self,
        container: Container,
        wanted: dict[str, EndpointSettings],
        in_namespace: bool,
        uid: int,
        undo: AsyncExitStack,
    ) -> Attachment:
        """Take a prepared namespace if one serves, else join network after network."""
        order = endpoints.order(container, wanted)
        if in_namespace and len(order) == 1 and endpoints.is_plain(wanted[order[0]]):
            network = self._catalogue.get(order[0])
            driver = self._catalogue.driver(network.driver)
            if isinstance(driver, Preparing) and (taken := driver.take(network, container.id)):
                undo.callback(self._namespaces.discard, taken[0])
                undo.push_async_callback(driver.leave, network, taken[1])
                return Attachment(namespace=str(taken[0]), endpoints={network.name: taken[1]})
        plug: Plug = TapPlug(owner=uid)
        if in_namespace:
            plug = NamespacePlug(path=await self._namespaces.take())
            undo.callback(self._namespaces.discard, plug.path)
        joined: dict[str, Endpoint] = {}
        for number, name in enumerate(order):
            network = self._catalogue.get(name)
            driver = self._catalogue.driver(network.driver)
            endpoint = await driver.join(network, container.id, plug, wanted[name], f"eth{number}")
            undo.push_async_callback(driver.leave, network, endpoint)
            joined[network.name] = endpoint
        return Attachment(namespace=str(plug.path) if isinstance(plug, NamespacePlug) else "", endpoints=joined)

    async def _publish(self, container: Container, attachment: Attachment) -> Attachment:
        """Publish ports on the first network that can."""
        wanted = ports.wanted(container.config, container.host_config)
        for name, endpoint in attachment.endpoints.items() if wanted else ():
            network = self._catalogue.get(name)
            driver = self._catalogue.driver(network.driver)
            if NetworkFeature.PORTS in driver.features and not network.internal:
                published = await driver.publish(network, endpoint, wanted)
                return msgspec.structs.replace(attachment, endpoints={**attachment.endpoints, name: published})
        return attachment

    def _share(self, container: Container, other: Container, features: frozenset[Feature]) -> Connected:
        """Use another container's network."""
        if other.id == container.id:
            raise InvalidArgument("cannot join own network")
        if not other.state.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        held = self._table.get(other.id) or Attachment(owned=False)
        on_host = not held.owned and not held.namespace
        if not on_host and not (held.namespace and held.shareable and Feature.SHARED_NAMESPACES in features):
            raise Unsupported(
                f"isolation {other.isolation} of {other.name} does not let {container.name} share its network"
            )
        self._table.put(container.id, Attachment(namespace=held.namespace, owned=False))
        return Connected(
            networking=Networking(host=on_host, namespace=Path(held.namespace) if held.namespace else None),
            endpoints={},
            ports={},
            hosts=self._hosts(other, held),
            resolv_conf=self._resolv_conf(other, held),
        )

    def _finish(
        self,
        container: Container,
        attachment: Attachment,
        wanted: dict[str, EndpointSettings],
        networking: Networking,
    ) -> Connected:
        """Record what was done and tell everybody."""
        settings = dict(wanted)
        for name, endpoint in attachment.endpoints.items():
            network = self._catalogue.get(name)
            settings[name] = endpoints.described(container, wanted[name], network, endpoint)
        for name in wanted.keys() - attachment.endpoints.keys():
            network_id = self._catalogue.get(name).id
            settings[name] = msgspec.structs.replace(wanted[name], network_id=network_id)
        self._table.put(container.id, attachment)
        self._announce(msgspec.structs.replace(container, networks=settings), attachment)
        for name in settings:
            self._event(name, "connect", container.id)
        held = list(attachment.endpoints.values())
        return Connected(
            networking=networking,
            endpoints=settings,
            ports=ports.shown(container.config, endpoints.published(held)),
            hosts=self._hosts(container, attachment),
            resolv_conf=self._resolv_conf(container, attachment),
        )

    def _event(self, name: str, action: str, container_id: str) -> None:
        try:
            network = self._catalogue.get(name)
        except NotFound:
            return
        attributes = {"container": container_id, "name": network.name, "type": driver_name(network)}
        self._events.publish("network", action, network.id, attributes)

    async def disconnect_all(self, container_id: str) -> None:
        """Let go of everything that a container holds; repeatable."""
        attachment = self._table.get(container_id)
        if attachment is None:
            return
        self.directory.discard(container_id)
        for name, endpoint in attachment.endpoints.items():
            try:
                await self._let_go(name, endpoint)
            except BastideError as error:
                log.warning("network %s: %s", name, error.message)
            self._event(name, "disconnect", container_id)
        if attachment.namespace and attachment.owned:
            self._namespaces.discard(Path(attachment.namespace))
        self._table.delete(container_id)

    async def _let_go(self, name: str, endpoint: Endpoint) -> None:
        """End an endpoint whose container is gone."""
        network = self._catalogue.get(name)
        driver = self._catalogue.driver(network.driver)
        if isinstance(driver, Preparing):
            await driver.release(network, endpoint)
        else:
            await driver.leave(network, endpoint)

    # -- while it runs -------------------------------------------------------------------------

    async def connect(
        self, network: Network, container: Container, settings: EndpointSettings, runtime: Runtime
    ) -> None:
        """Connect a container to one more network, at once if it runs. Raises as `connect_all`, and Conflict
        when it is connected already."""
        wanted = endpoints.check_endpoint(settings, network.name)
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            self._check_connect(present, network)
            attachment = self._table.get(present.id)
            if attachment is None or not present.state.running:
                self._ledger.change(present, networks={**present.networks, network.name: wanted})
                return
            hotplugging = _hotplugging(present, attachment, runtime)
            driver = self._catalogue.driver(network.driver)
            taken = {endpoint.interface.name for endpoint in attachment.endpoints.values()}
            device = next(name for number in range(len(taken) + 1) if (name := f"eth{number}") not in taken)
            plug = TapPlug(owner=0) if hotplugging else NamespacePlug(path=Path(attachment.namespace))
            async with AsyncExitStack() as undo:
                endpoint = await driver.join(network, present.id, plug, wanted, device)
                undo.push_async_callback(driver.leave, network, endpoint)
                if hotplugging:
                    routed = any(each.interface.gateways for each in attachment.endpoints.values())
                    gateways = () if routed else endpoint.interface.gateways
                    await hotplugging.plug(present.id, msgspec.structs.replace(endpoint.interface, gateways=gateways))
                undo.pop_all()
            joined = {**attachment.endpoints, network.name: endpoint}
            described = endpoints.described(present, wanted, network, endpoint)
            attachment = msgspec.structs.replace(attachment, endpoints=joined)
            await self._changed(present, attachment, {network.name: described}, hotplugging)
            self._event(network.name, "connect", present.id)

    def _check_connect(self, container: Container, network: Network) -> None:
        if endpoints.shares_with(container.host_config.network_mode):
            raise InvalidArgument(
                "container sharing network namespace with another container or host cannot be connected to "
                "any other network"
            )
        if network.driver == "host":
            raise InvalidArgument(
                "cannot connect container to host network - container must be created in host network mode"
            )
        if network.name in container.networks:
            raise PermissionDenied(f"endpoint with name {container.name} already exists in network {network.name}")
        endpoints.check_together([*container.networks, network.name] if container.networks else [])

    async def disconnect(self, network: Network, container: Container, runtime: Runtime, force: bool) -> None:
        """Take a container from a network. Raises InvalidArgument, NotFound when it is not connected."""
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            if network.driver == "host":
                raise InvalidArgument("container cannot be disconnected from host network or connected to host network")
            if network.name not in present.networks:
                if force:
                    return
                raise PermissionDenied(f"container {present.id} is not connected to network {network.name}")
            attachment = self._table.get(present.id)
            kept = {name: settings for name, settings in present.networks.items() if name != network.name}
            if attachment is not None and (endpoint := attachment.endpoints.get(network.name)):
                hotplugging = _hotplugging(present, attachment, runtime)
                if hotplugging and endpoint.interface.name:
                    await hotplugging.unplug(present.id, endpoint.interface)
                await self._catalogue.driver(network.driver).leave(network, endpoint)
                left = {name: each for name, each in attachment.endpoints.items() if name != network.name}
                present = self._ledger.change(present, networks=kept)
                await self._changed(present, msgspec.structs.replace(attachment, endpoints=left), {}, hotplugging)
                self._event(network.name, "disconnect", present.id)
            else:
                self._ledger.change(present, networks=kept)

    async def _changed(
        self,
        container: Container,
        attachment: Attachment,
        settings: dict[str, EndpointSettings],
        hotplugging: Hotplugging | None,
    ) -> None:
        """Keep record, names and files of a running container current."""
        self._table.put(container.id, attachment)
        shown = ports.shown(container.config, endpoints.published(list(attachment.endpoints.values())))
        present = self._ledger.change(container, networks={**container.networks, **settings}, ports=shown)
        self._announce(present, attachment)
        paths = bundles.Paths(self._settings, container.id)
        paths.write(paths.hosts, self._hosts(present, attachment))
        paths.write(paths.resolv_conf, self._resolv_conf(present, attachment))
        if hotplugging:
            await hotplugging.rewrite(container.id, paths.hosts, paths.resolv_conf)

    def renamed(self, container: Container) -> None:
        """The container has another name now: lead the names to it."""
        if attachment := self._table.get(container.id):
            self._announce(container, attachment)

    # -- names and files -----------------------------------------------------------------------

    def _announce(self, container: Container, attachment: Attachment) -> None:
        """Make its names known on its networks."""
        places = []
        for name, endpoint in attachment.endpoints.items():
            network = self._catalogue.get(name)
            settings = container.networks.get(name, EndpointSettings())
            addresses = tuple(ipam.address(cidr) for cidr in endpoint.interface.addresses)
            places.append(
                Place(
                    network=network.id,
                    network_name=network.name,
                    addresses=addresses,
                    names=endpoints.names(container, settings),
                    internal=network.internal,
                )
            )
        links = {
            alias.lower(): other.id
            for settings in container.networks.values()
            for alias, other in self._links(settings.links)
        }
        servers = tuple(container.host_config.dns or ())
        self.directory.put(Resident(container=container.id, places=tuple(places), links=links, servers=servers))

    def _links(self, links: list[str] | None) -> list[tuple[str, Container]]:
        """`name:alias` as alias and container. Raises NotFound in Docker's words."""
        found = []
        for link in links or []:
            name, _, alias = link.partition(":")
            try:
                other = self._ledger.find(name)
            except (NotFound, InvalidArgument):
                raise InvalidArgument(f"could not get container for {name}") from None
            found.append((alias.rpartition("/")[2] or other.name, other))
        return found

    def _hosts(self, container: Container, attachment: Attachment) -> str:
        """The contents of /etc/hosts."""
        gateway = self._host_gateway()
        extra = [resolv.extra_host(entry, gateway) for entry in container.host_config.extra_hosts or []]
        if not attachment.owned and not attachment.namespace:
            own = Path("/etc/hosts").read_text(errors="replace") if Path("/etc/hosts").exists() else ""
            return own + "".join(f"{address}\t{name}\n" for name, address in extra)
        extra += self._link_hosts(container)
        addresses = [
            cidr.partition("/")[0]
            for endpoint in attachment.endpoints.values()
            for cidr in endpoint.interface.addresses
        ]
        return resolv.hosts_file(bundles.hostname(container), container.config.domainname, addresses, extra)

    def _link_hosts(self, container: Container) -> list[tuple[str, str]]:
        """Lines for links of the default network (`--link`): alias, name and short id lead to the other."""
        found: list[tuple[str, str]] = []
        if endpoints.mode_network(container.host_config.network_mode) != endpoints.DEFAULT:
            # Docker's command line sends the links of a user network both here and with its endpoint.
            return found
        for alias, other in self._links(container.host_config.links):
            own = other.networks.get(endpoints.DEFAULT)
            if not other.state.running or own is None or not own.ip_address:
                raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
            words = dict.fromkeys((alias, other.config.hostname or other.id[:12], other.name))
            found.append((" ".join(words), own.ip_address))
        return found

    def _host_gateway(self) -> str:
        """What `host-gateway` stands for: the host's address on the default network."""
        try:
            gateways = ipam.gateways(self._catalogue.get(endpoints.DEFAULT))
        except NotFound:
            gateways = []
        return gateways[0].partition("/")[0] if gateways else "127.0.0.1"

    def _resolv_conf(self, container: Container, attachment: Attachment) -> str:
        """The contents of /etc/resolv.conf: one server only, for some C libraries ask all of them at once.

        On the default network the servers that were asked for are the ones that are shown, as in Docker.
        """
        host = container.host_config
        own = self._host_resolv.read()
        if not attachment.owned and not attachment.namespace:
            servers = tuple(host.dns or own.servers)
        elif host.dns and attachment.endpoints.keys() <= {endpoints.DEFAULT}:
            servers = tuple(host.dns)
        else:
            servers = self._resolvers(attachment)[:1] or tuple(host.dns or self._host_resolv.reachable())
        return resolv.resolv_conf(servers, host.dns_search, host.dns_options, own)

    def _resolvers(self, attachment: Attachment) -> tuple[str, ...]:
        found: list[str] = []
        for name in attachment.endpoints:
            network = self._catalogue.get(name)
            driver = self._catalogue.driver(network.driver)
            if isinstance(driver, Naming):
                found += driver.resolvers(network)
        return tuple(found)

    # -- the daemon's start and end ------------------------------------------------------------

    async def open(self, alive: set[str]) -> None:
        """Forget what containers held that do not run any more, let go of namespaces that nobody has."""
        for container_id, _ in self._table.items():
            if container_id not in alive:
                self._table.delete(container_id)
        used = [Path(attachment.namespace) for _, attachment in self._table.items() if attachment.namespace]
        await self._namespaces.open(used)

    def announce_all(self) -> None:
        """Make the names of all running containers known."""
        for container_id, attachment in self._table.items():
            container = self._ledger.get(container_id)
            if container is not None and attachment.endpoints:
                try:
                    self._announce(container, attachment)
                except BastideError as error:
                    log.warning("names of container %s: %s", container.name, error.message)
        self._namespaces.tidy()

    async def close(self) -> None:
        """Let go of namespaces that nobody took."""
        await self._namespaces.close()


def _hotplugging(container: Container, attachment: Attachment, runtime: Runtime) -> Hotplugging | None:
    """How networks of a running container change: by its runtime, or (None) in its network namespace.

    Raises Unsupported when neither can.
    """
    if Feature.HOTPLUG_NETWORK in runtime.features:
        if attachment.namespace:
            return None
        if isinstance(runtime, Hotplugging):
            return runtime
    raise Unsupported(f"isolation {container.isolation} cannot change networks while running: stop it first")


def driver_name(network: Network) -> str:
    """The driver as Docker calls it."""
    return "null" if network.driver == "none" else network.driver
