"""The NetworkDriver contract: how containers and VMs reach each other and the world.

A driver makes the host's side of a network (`up`), connects one container to it (`join`, an
Endpoint) and takes both away again. The engine keeps the records (`model.network`) and hands them
back after a restart; a driver keeps nothing that it cannot read from the host or be told again.

A plug says what to connect: a network namespace on this host (a container) or a tap device that a
hypervisor will open (a VM). Addresses are the driver's choice unless asked for.

Rules, checked by `tests/contract/test_network.py`: every verb can be repeated; `leave` and `down` of
something absent are no errors; firewall changes are one atomic nft transaction; nothing of the host
but the table, the bridges and the devices named after the settings is touched.
"""

from __future__ import annotations

import abc
import enum
import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument
from bastide.model.network import EndpointSettings, Network
from bastide.model.process import Interface, Struct

if TYPE_CHECKING:
    from bastide.network.names import Directory


class Feature(enum.StrEnum):
    """What a driver offers beyond joining."""

    PORTS = "ports"
    NAMES = "names"
    STATIC_ADDRESSES = "static-addresses"
    CONNECT = "connect"
    TAP = "tap"
    PREPARED = "prepared"
    SUBNETS = "subnets"


class NamespacePlug(Struct, frozen=True, kw_only=True):
    """Connect the network namespace at `path`."""

    path: Path


class TapPlug(Struct, frozen=True, kw_only=True):
    """Make a tap device that `owner` (a uid) may open by name."""

    owner: int


Plug = NamespacePlug | TapPlug


class Port(Struct, frozen=True, kw_only=True):
    """A published port. `host_ip` "" is every IPv4 and IPv6 address; `protocol` tcp, udp or sctp.

    `host_port_end`, when it is not 0, asks for any port from `host_port` up to it.
    """

    container_port: int
    protocol: str
    host_ip: str
    host_port: int
    host_port_end: int = 0


class Endpoint(Struct, frozen=True, kw_only=True):
    """A container's place on a network, as kept by the engine: enough to undo and to restore it.

    `namespace` is the path of the network namespace, for drivers whose device is only there.
    """

    id: str
    container: str
    network: str
    interface: Interface
    ports: tuple[Port, ...] = ()
    namespace: str = ""


_FILES = {"bridge": "bridge", "host": "host", "none": "none", "macvlan": "macvlan"}


class NetworkDriver(abc.ABC):
    """Eight verbs."""

    name: ClassVar[str]
    features: ClassVar[frozenset[Feature]] = frozenset()
    registry: ClassVar[dict[str, type[NetworkDriver]]] = {}

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name and not inspect.isabstract(cls):
            cls.name = name
            NetworkDriver.registry[name] = cls

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abc.abstractmethod
    async def probe(self) -> str:
        """Empty when it works here, else one line that says why not and what to do."""

    @abc.abstractmethod
    def plan(self, network: Network, existing: Sequence[Network]) -> Network:
        """Check a new network and fill in what was left out (subnets, gateways, MTU).

        Raises InvalidArgument (an option or address that cannot be), PermissionDenied (subnets overlap,
        Docker's 403), Conflict (the host uses them), ResourceExhausted (no subnet is free).
        """

    @abc.abstractmethod
    async def up(self, network: Network) -> None:
        """Make, or mend, the host's side of the network."""

    @abc.abstractmethod
    async def down(self, network: Network) -> None:
        """Remove the host's side."""

    @abc.abstractmethod
    async def join(
        self, network: Network, container: str, plug: Plug, wanted: EndpointSettings, name: str = "eth0"
    ) -> Endpoint:
        """Connect a container as interface `name`. The interface is up and has its addresses when
        this returns (for a tap, the guest sets them). Raises Conflict (address taken), ResourceExhausted."""

    @abc.abstractmethod
    async def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> Endpoint:
        """Publish ports; `host_port` 0 gets a free one. All or none. Raises Conflict (port taken, named)."""

    @abc.abstractmethod
    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """Undo `publish` and `join`."""

    @abc.abstractmethod
    async def restore(self, network: Network, endpoints: Sequence[Endpoint]) -> None:
        """After the daemon's start: take up leases, ports and rules of endpoints that are still
        in use, and remove every device and rule of this network that belongs to none of them."""


@runtime_checkable
class Naming(Protocol):
    """Feature.NAMES: the driver's networks have a resolver."""

    def answer_from(self, directory: Directory) -> None:
        """Answer from `directory`; called once, before the first `up`."""

    def resolvers(self, network: Network) -> Sequence[str]:
        """Addresses at which endpoints of the network can ask; empty when nobody serves there."""


@runtime_checkable
class Preparing(Protocol):
    """Feature.PREPARED: connected network namespaces are kept ready for one network."""

    def take(self, network: Network, container: str) -> tuple[Path, Endpoint] | None:
        """A namespace with its endpoint, at once; None when none is ready. Nobody else gets it."""

    def refill(self, network: Network) -> None:
        """Prepare more in the background, soon."""

    async def release(self, network: Network, endpoint: Endpoint) -> None:
        """As `leave`, for an endpoint whose namespace or tap nobody uses any more: the address
        is free when this returns, and the ports are for the next `publish`; device and rules go soon after,
        many at a time."""

    async def close(self) -> None:
        """Let go of sockets and background work; what is on the host stays."""


def drivers() -> Sequence[str]:
    """The names of all drivers."""
    return tuple(_FILES)


def load(name: str) -> type[NetworkDriver]:
    """The class of a driver. Raises InvalidArgument for an unknown name."""
    if name not in _FILES:
        raise InvalidArgument(f"unknown network driver {name!r}: choose one of {', '.join(_FILES)}")
    if name not in NetworkDriver.registry:
        importlib.import_module(f"bastide.network.{_FILES[name]}")
    return NetworkDriver.registry[name]
