"""The daemon over the API: what it is, what it uses, what happens in it."""

from __future__ import annotations

from bastide.client import Client
from bastide.client.codec import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from bastide.client import Filters, Object


class System:
    """The calls that belong to no noun."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def ping(self) -> dict[str, str]:
        """Whether the daemon answers: the headers of its answer (`api-version`, `ostype`)."""
        response = self._client.open("GET", "/_ping")
        response.read()
        self._client.keep(response)
        return response.headers

    def version(self) -> Object:
        """Versions of the daemon and of its parts."""
        result: Object = self._client.call("GET", "/version")
        return result

    def info(self) -> Object:
        """What the daemon is and what it runs on."""
        result: Object = self._client.call("GET", "/info")
        return result

    def pool(self) -> Object:
        """The VMs that wait for containers."""
        result: Object = self._client.call("GET", "/bastide/pool")
        return result

    def resize_pool(self, memory: int) -> Object:
        """Let them use `memory` bytes; 0 turns the pool off."""
        result: Object = self._client.call("POST", "/bastide/pool", None, {"Memory": memory})
        return result

    def prewarm(self, images: list[str]) -> None:
        """Make what the first VMs of these images would wait for."""
        self._client.call("POST", "/bastide/prewarm", None, {"Images": images})

    def disk_usage(self) -> Object:
        """What images, containers, volumes and the build cache take."""
        result: Object = self._client.call("GET", "/system/df")
        return result

    def login(self, credentials: dict[str, str]) -> Object:
        """Check credentials against a registry: `{"Status": …, "IdentityToken": …}`."""
        result: Object = self._client.call("POST", "/auth", None, credentials)
        return result

    def events(self, since: str = "", until: str = "", filters: Filters | None = None) -> Iterator[Object]:
        """Events as they happen; without end unless `until` is given."""
        query = {"since": since, "until": until, "filters": filters}
        for line in self._client.open("GET", "/events", query).lines():
            yield decode(line)
