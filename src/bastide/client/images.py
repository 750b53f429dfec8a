"""Images over the API: registries, archives, names, builds.

Progress comes as an iterator of Docker's messages (`status`, `progressDetail`, `id`, `stream`, `aux`);
a message that carries an error ends the iteration with StreamError.
"""

from __future__ import annotations

from bastide.client import Client, quote
from bastide.client.codec import decode
from bastide.model.errors import BastideError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bastide.client import Filters, Object, Objects
    from bastide.client.http import Response


class StreamError(BastideError):
    """What went wrong after the daemon had begun to answer; `code` is a failed build step's exit status, else 0."""

    code = 0


class Images:
    """The calls below `/images` and `/build`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, every: bool = False, filters: Filters | None = None) -> Objects:
        """Images, the newest first."""
        return list(self._client.call("GET", "/images/json", {"all": every, "filters": filters}))

    def inspect(self, name: str) -> Object:
        """Everything about an image."""
        result: Object = self._client.call("GET", f"/images/{quote(name)}/json")
        return result

    def history(self, name: str) -> Objects:
        """How an image was made, the newest step first."""
        return list(self._client.call("GET", f"/images/{quote(name)}/history"))

    def pull(
        self, name: str, tag: str, platform: str = "", auth: str = "", more: dict[str, str] | None = None
    ) -> Iterator[Object]:
        """Pull from a registry; `tag` may be a digest. `auth` is the X-Registry-Auth header.

        `more`: `referrers` and `insecure-options`, which are bastide's own.
        """
        query = {"fromImage": name, "tag": tag, "platform": platform} | (more or {})
        return self._progress("/images/create", query, None, {"X-Registry-Auth": auth} if auth else {})

    def push(self, name: str, tag: str, auth: str = "") -> Iterator[Object]:
        """Push to a registry."""
        headers = {"X-Registry-Auth": auth or "e30="}
        return self._progress(f"/images/{quote(name)}/push", {"tag": tag}, None, headers)

    def create_from(self, query: Object, archive: Iterable[bytes] | None) -> Iterator[Object]:
        """Import a root file system (`fromSrc`, `repo`, `message`, `changes`, `platform`)."""
        return self._progress("/images/create", query, archive, {"Content-Type": "text/plain"})

    def load(self, archive: Iterable[bytes], quiet: bool = False) -> Iterator[Object]:
        """Load images from an archive."""
        headers = {"Content-Type": "application/x-tar"}
        return self._progress("/images/load", {"quiet": quiet}, archive, headers)

    def build(self, query: Object, context: Iterable[bytes], headers: dict[str, str]) -> Iterator[Object]:
        """Build an image from a context in tar form."""
        return self._progress("/build", query, context, {"Content-Type": "application/x-tar", **headers})

    def keep_secrets(self, values: dict[str, str]) -> str:
        """Hand over secrets (base64 by id) for one build; what its query names as `secrets`."""
        return str(self._client.call("POST", "/build/secrets", None, values)["Id"])

    def save(self, names: Sequence[str]) -> Response:
        """Images as one archive."""
        return self._client.open("GET", "/images/get", {"names": tuple(names)})

    def tag(self, name: str, repository: str, tag: str) -> None:
        """Give an image one more name."""
        self._client.call("POST", f"/images/{quote(name)}/tag", {"repo": repository, "tag": tag})

    def remove(self, name: str, force: bool = False, keep_parents: bool = False) -> Objects:
        """Remove a name, and the image with its last name: `{"Untagged": …}` and `{"Deleted": …}`."""
        query = {"force": force, "noprune": keep_parents}
        return list(self._client.call("DELETE", f"/images/{quote(name)}", query) or [])

    def prune(self, filters: Filters | None = None) -> Object:
        """Remove unused images: `{"ImagesDeleted": […], "SpaceReclaimed": …}`."""
        result: Object = self._client.call("POST", "/images/prune", {"filters": filters})
        return result

    def prune_build_cache(self, query: Object) -> Object:
        """Remove build cache: `{"CachesDeleted": […], "SpaceReclaimed": …}`."""
        result: Object = self._client.call("POST", "/build/prune", query)
        return result

    def search(self, query: Object, auth: str = "") -> Objects:
        """Search Docker Hub."""
        headers = {"X-Registry-Auth": auth} if auth else {}
        return list(self._client.call("GET", "/images/search", query, None, headers))

    def _progress(
        self, path: str, query: Object, body: Iterable[bytes] | None, headers: dict[str, str]
    ) -> Iterator[Object]:
        response = self._client.open("POST", path, query, body, headers)
        for line in response.lines():
            message: Object = decode(line)
            if message.get("error") or message.get("errorDetail"):
                detail = message.get("errorDetail") or {}
                problem = StreamError(str(detail.get("message") or message.get("error")))
                problem.code = int(detail.get("code") or 0)
                raise problem
            yield message
        self._client.keep(response)
