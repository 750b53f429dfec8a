"""The drivers of networks that connect nothing: `none`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from bastide.model.errors import InvalidArgument, PermissionDenied
from bastide.model.network import EndpointSettings, Network
from bastide.model.process import Interface
from bastide.network import Endpoint, NetworkDriver, Plug, Port


class Without(NetworkDriver):
    """A driver that does nothing on the host; only the predefined network of its name exists."""

    async def probe(self) -> str:
        """It always works."""
        return ""

    def plan(self, network: Network, existing: Sequence[Network]) -> Network:
        """One network of this driver is enough. Raises PermissionDenied in Docker's words."""
        if any(other.driver == self.name for other in existing):
            raise PermissionDenied(f'only one instance of "{self.name}" network is allowed')
        if network.options or network.ipam.config:
            raise InvalidArgument(f"network driver {self.name} takes no options and no subnets")
        return network

    async def up(self, network: Network) -> None:
        """Nothing to make."""

    async def down(self, network: Network) -> None:
        """Nothing to remove."""

    async def join(
        self, network: Network, container: str, plug: Plug, wanted: EndpointSettings, name: str = "eth0"
    ) -> Endpoint:
        """An endpoint without a device."""
        return Endpoint(
            id=secrets.token_hex(32),
            container=container,
            network=network.id,
            interface=Interface(name="", device="", mac=""),
        )

    async def publish(self, network: Network, endpoint: Endpoint, ports: Sequence[Port]) -> Endpoint:
        """Ports are discarded, as in Docker."""
        return endpoint

    async def leave(self, network: Network, endpoint: Endpoint) -> None:
        """Nothing to undo."""

    async def restore(self, network: Network, endpoints: Sequence[Endpoint]) -> None:
        """Nothing to take up."""


class Loopback(Without, name="none"):
    """Only loopback."""
