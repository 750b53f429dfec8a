"""Artifacts and manifest lists over the API: bastide's own calls, below `/bastide`."""

from __future__ import annotations

from bastide.client import Client, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bastide.client import Object, Objects


class Artifacts:
    """What registries hold that is no image. They are pulled and pushed as images are."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> Objects:
        """All of them, those that refer to images too."""
        return list(self._client.call("GET", "/bastide/artifacts"))

    def inspect(self, name: str) -> Object:
        """Everything about one, by its name or digest."""
        result: Object = self._client.call("GET", f"/bastide/artifacts/{quote(name)}")
        return result

    def remove(self, name: str) -> None:
        """Take a name away, or with a digest the artifact."""
        self._client.call("DELETE", f"/bastide/artifacts/{quote(name)}")


class ManifestLists:
    """Lists of images for several platforms. `auth` is the X-Registry-Auth header."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, name: str, sources: Sequence[str], amend: bool, auth: str) -> str:
        """Make a list, or add to one; gives its full name."""
        body = {"Name": name, "Sources": list(sources), "Amend": amend}
        return str(self._client.call("POST", "/bastide/manifests", None, body, _auth(auth))["Name"])

    def inspect(self, name: str, auth: str) -> Object:
        """A list that is here, or what a registry has under the name."""
        result: Object = self._client.call("GET", f"/bastide/manifests/{quote(name)}", None, None, _auth(auth))
        return result

    def annotate(self, name: str, wanted: Object) -> None:
        """Say what an image of a list runs on."""
        self._client.call("POST", f"/bastide/manifests/{quote(name)}/annotate", None, wanted)

    def push(self, name: str, purge: bool, auth: str) -> str:
        """Bring a list to its registry; gives its digest."""
        path = f"/bastide/manifests/{quote(name)}/push"
        return str(self._client.call("POST", path, {"purge": purge}, None, _auth(auth))["Digest"])

    def remove(self, name: str) -> None:
        """Forget a list."""
        self._client.call("DELETE", f"/bastide/manifests/{quote(name)}")


def _auth(auth: str) -> dict[str, str]:
    return {"X-Registry-Auth": auth} if auth else {}
