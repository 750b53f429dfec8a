"""Snapshots and clones: bastide's own calls, below `/bastide`."""

from __future__ import annotations

from bastide.client import Client, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Object, Objects


class Snapshots:
    """The calls about saved states of containers."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, container: str = "") -> Objects:
        """Snapshots of one container, or of all."""
        return list(self._client.call("GET", "/bastide/snapshots", {"container": container}))

    def create(self, container: str, tag: str = "", memory: bool | None = None) -> Object:
        """Save a state; `memory` None means with it where that is possible."""
        body = {"Tag": tag, "Memory": memory}
        result: Object = self._client.call("POST", f"{_of(container)}/snapshots", None, body)
        return result

    def inspect(self, container: str, tag: str) -> Object:
        """Everything about a snapshot."""
        result: Object = self._client.call("GET", f"{_of(container)}/snapshots/{segment(tag)}")
        return result

    def remove(self, container: str, tag: str) -> None:
        """Remove a snapshot."""
        self._client.call("DELETE", f"{_of(container)}/snapshots/{segment(tag)}")

    def restore(self, container: str, tag: str = "", *, memory: bool = True) -> Object:
        """Put a container back, with the memory if that was saved; the latest snapshot when none is named."""
        query = {"tag": tag, **({} if memory else {"memory": "0"})}
        result: Object = self._client.call("POST", f"{_of(container)}/restore", query)
        return result

    def clone(self, container: str, name: str = "", tag: str = "") -> Object:
        """A second container: `{"Id": …, "Name": …, "State": …}`."""
        body = {"Name": name, "Tag": tag}
        result: Object = self._client.call("POST", f"{_of(container)}/clone", None, body)
        return result


def _of(container: str) -> str:
    return f"/bastide/containers/{segment(container)}"
