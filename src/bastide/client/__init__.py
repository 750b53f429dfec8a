"""Typed client of the daemon's Docker-compatible API; the command line and the tests use it.

It imports next to nothing: `bastide exec` as a whole may take some twenty milliseconds, so HTTP and JSON
are a page each here (`http`, `codec`). A noun is a file (`client.containers.start("web")`); what the
daemon answers is handed on as decoded JSON in Docker's own shape.

Errors are those of `bastide.model.errors`, by the status of the answer; `Unreachable` when no daemon
answers at all.
"""

from __future__ import annotations

from bastide.client.codec import decode, encode
from bastide.client.endpoint import Endpoint, Unreachable, environment
from bastide.client.http import Closed, Connection, Response
from bastide.model import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from bastide.client.artifacts import Artifacts, ManifestLists
    from bastide.client.containers import Containers
    from bastide.client.execs import Execs
    from bastide.client.images import Images
    from bastide.client.networks import Networks
    from bastide.client.snapshots import Snapshots
    from bastide.client.system import System
    from bastide.client.volumes import Volumes

    Object = dict[str, Any]
    Objects = list[Object]
    Filters = dict[str, list[str]]
    Query = Mapping[str, Any]

__all__ = ["Client", "Closed", "Connection", "Endpoint", "Response", "Unreachable", "environment"]

_ERRORS: dict[int, type[errors.BastideError]] = {
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    405: errors.Unsupported,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
    507: errors.ResourceExhausted,
}
_NOBODY = (2, 111)  # ENOENT, ECONNREFUSED
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@,")


class Client:
    """Speaks to one daemon. Not for use by several threads at once.

    `absent` is called once when nothing listens at the endpoint; if it returns True the connection is
    tried again.
    """

    def __init__(self, endpoint: Endpoint | None = None, absent: Callable[[], bool] | None = None) -> None:
        self.endpoint = endpoint or Endpoint.from_environment(environment())
        self._absent = absent
        self._idle: Connection | None = None
        version = environment().get("DOCKER_API_VERSION", "")
        self._prefix = f"/v{version}" if version else ""

    @property
    def artifacts(self) -> Artifacts:
        """What registries hold that is no image."""
        from bastide.client.artifacts import Artifacts

        return Artifacts(self)

    @property
    def manifests(self) -> ManifestLists:
        """Lists of images for several platforms."""
        from bastide.client.artifacts import ManifestLists

        return ManifestLists(self)

    @property
    def containers(self) -> Containers:
        """Everything about containers."""
        from bastide.client.containers import Containers

        return Containers(self)

    @property
    def execs(self) -> Execs:
        """Processes in running containers."""
        from bastide.client.execs import Execs

        return Execs(self)

    @property
    def images(self) -> Images:
        """Images and registries."""
        from bastide.client.images import Images

        return Images(self)

    @property
    def networks(self) -> Networks:
        """Networks."""
        from bastide.client.networks import Networks

        return Networks(self)

    @property
    def snapshots(self) -> Snapshots:
        """Saved states of containers."""
        from bastide.client.snapshots import Snapshots

        return Snapshots(self)

    @property
    def volumes(self) -> Volumes:
        """Volumes."""
        from bastide.client.volumes import Volumes

        return Volumes(self)

    @property
    def system(self) -> System:
        """The daemon itself."""
        from bastide.client.system import System

        return System(self)

    def connect(self) -> Connection:
        """A new connection. Raises Unreachable."""
        try:
            return Connection(self.endpoint.connect())
        except Unreachable as error:
            absent, self._absent = self._absent, None
            if absent is None or error.errno not in _NOBODY or not absent():
                raise
            return Connection(self.endpoint.connect())

    def send(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Connection:
        """Send a request and do not wait for its answer (`Connection.answer` reads it)."""
        return self._dispatch(method, self._target(path, query), headers or {}, body)

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Make a request and hand back the answer with its body unread.

        A `dict` or `list` as body goes as JSON, `bytes` and iterables of bytes as they are. Raises the
        error of a status of 400 and above.
        """
        return self.check(self.send(method, path, query, body, headers).answer(method == "HEAD"))

    def check(self, response: Response) -> Response:
        """Hand the answer on, or raise the error that it carries."""
        if response.status < 400:
            return response
        data = response.read()
        self.keep(response)
        try:
            message = str(decode(data)["message"])
        except (ValueError, KeyError, TypeError):
            message = data.decode("utf-8", "replace").strip() or f"status {response.status}"
        raise _ERRORS.get(response.status, errors.BastideError)(message)

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Make a request; the decoded answer, None when it is empty."""
        return self.read(self.open(method, path, query, body, headers))

    def read(self, response: Response) -> Any:
        """The decoded body of an answer, None when it is empty; or the error that it carries."""
        data = self.check(response).read()
        self.keep(response)
        try:
            return decode(data) if data else None
        except ValueError:
            return data.decode("utf-8", "replace")

    def hijack(self, path: str, query: Query | None = None, body: Any = None) -> Connection:
        """Make a request whose answer turns the connection into a raw stream. Raises the answer's error."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        connection = self.send("POST", path, query, body, headers)
        self.check(connection.answer())
        return connection

    def keep(self, response: Response) -> None:
        """Keep the connection of an answer that was read to its end, for the next request."""
        if response.reusable and self._idle is None:
            self._idle = response.connection
        elif response.connection is not self._idle:
            response.connection.close()

    def close(self) -> None:
        """Close the connection that is kept."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _dispatch(self, method: str, target: str, headers: Mapping[str, str], body: Any) -> Connection:
        """Send over the kept connection, or over a new one when there is none or the daemon has closed it."""
        if isinstance(body, dict | list):
            body, headers = encode(body), {**headers, "Content-Type": "application/json"}
        kept, self._idle = self._idle, None
        if kept is not None and not kept.alive:
            kept.close()
            kept = None
        connection = kept or self.connect()
        try:
            connection.send(method, target, headers, body)
        except BrokenPipeError:
            # The daemon may refuse before it has read a whole body: its answer says more than EPIPE.
            if body is None:
                raise Closed("the daemon closed the connection: look at its log") from None
        return connection

    def _target(self, path: str, query: Query | None) -> str:
        target = self._prefix + path
        pairs = [f"{key}={text}" for key, value in (query or {}).items() for text in _values(value)]
        return f"{target}?{'&'.join(pairs)}" if pairs else target


def quote(text: str) -> str:
    """A string as it may stand in a path or a query (RFC 3986, section 2.1); `/` stays."""
    return "".join([chr(b) if b in _SAFE else f"%{b:02X}" for b in text.encode("utf-8", "surrogateescape")])


def segment(text: str) -> str:
    """A string as ONE segment of a path: `/` and dots-only names cannot lead elsewhere."""
    return quote(text).replace("/", "%2F") if text.strip(".") else text.replace(".", "%2E")


def _values(value: Any) -> list[str]:
    """A query value as text: None and empty ones are left out, True is 1, maps are JSON."""
    if value is None or value == "" or value is False:
        return []
    if value is True:
        return ["1"]
    if isinstance(value, dict):
        return [quote(encode(value).decode())] if value else []
    if isinstance(value, list | tuple):
        return [quote(str(item)) for item in value]
    return [quote(str(value))]
