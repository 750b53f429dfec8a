"""Volumes over the API."""

from __future__ import annotations

from bastide.client import Client, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Filters, Object, Objects

    Names = list[str]


class Volumes:
    """The calls below `/volumes`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, filters: Filters | None = None) -> tuple[Objects, Names]:
        """All volumes that pass the filters, and warnings."""
        answer = self._client.call("GET", "/volumes", {"filters": filters})
        return list(answer.get("Volumes") or []), list(answer.get("Warnings") or [])

    def create(self, body: Object) -> Object:
        """Create a volume, or find the one of that name."""
        result: Object = self._client.call("POST", "/volumes/create", None, body)
        return result

    def inspect(self, name: str) -> Object:
        """Everything about a volume."""
        result: Object = self._client.call("GET", f"/volumes/{segment(name)}")
        return result

    def remove(self, name: str, force: bool = False) -> None:
        """Remove a volume."""
        self._client.call("DELETE", f"/volumes/{segment(name)}", {"force": force})

    def prune(self, filters: Filters | None = None) -> Object:
        """Remove unused volumes: `{"VolumesDeleted": […], "SpaceReclaimed": …}`."""
        result: Object = self._client.call("POST", "/volumes/prune", {"filters": filters})
        return result
