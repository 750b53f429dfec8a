"""Networks over the API."""

from __future__ import annotations

from bastide.client import Client, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Filters, Object, Objects


class Networks:
    """The calls below `/networks`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, filters: Filters | None = None) -> Objects:
        """All networks that pass the filters."""
        return list(self._client.call("GET", "/networks", {"filters": filters}))

    def create(self, body: Object) -> Object:
        """Create a network: `{"Id": …, "Warning": …}`."""
        result: Object = self._client.call("POST", "/networks/create", None, body)
        return result

    def inspect(self, name: str, verbose: bool = False) -> Object:
        """Everything about a network."""
        result: Object = self._client.call("GET", f"/networks/{segment(name)}", {"verbose": verbose})
        return result

    def remove(self, name: str) -> None:
        """Remove a network."""
        self._client.call("DELETE", f"/networks/{segment(name)}")

    def connect(self, name: str, container: str, endpoint: Object) -> None:
        """Connect a container; `endpoint` is an EndpointConfig."""
        body = {"Container": container, "EndpointConfig": endpoint}
        self._client.call("POST", f"/networks/{segment(name)}/connect", None, body)

    def disconnect(self, name: str, container: str, force: bool = False) -> None:
        """Disconnect a container."""
        body = {"Container": container, "Force": force}
        self._client.call("POST", f"/networks/{segment(name)}/disconnect", None, body)

    def prune(self, filters: Filters | None = None) -> Object:
        """Remove unused networks: `{"NetworksDeleted": […]}`."""
        result: Object = self._client.call("POST", "/networks/prune", {"filters": filters})
        return result
