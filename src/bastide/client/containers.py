"""Containers over the API: create, start, streams, files. Names and ids are given as users give them."""

from __future__ import annotations

from bastide.client import Client, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from bastide.client import Connection, Filters, Object, Objects
    from bastide.client.http import Response


class Containers:
    """The calls below `/containers`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def _post(self, name: str, action: str, query: Object | None = None, body: Any = None) -> Any:
        return self._client.call("POST", f"/containers/{segment(name)}/{action}", query, body)

    def list(self, every: bool = False, limit: int = 0, size: bool = False, filters: Filters | None = None) -> Objects:
        """Containers, the newest first; only running ones unless `every`."""
        query = {"all": every, "limit": limit if limit > 0 else None, "size": size, "filters": filters}
        return list(self._client.call("GET", "/containers/json", query))

    def create(self, body: Object, name: str = "", platform: str = "") -> Object:
        """Create a container: `{"Id": …, "Warnings": […]}`."""
        result: Object = self._client.call("POST", "/containers/create", {"name": name, "platform": platform}, body)
        return result

    def inspect(self, name: str, size: bool = False) -> Object:
        """Everything about a container."""
        result: Object = self._client.call("GET", f"/containers/{segment(name)}/json", {"size": size})
        return result

    def start(self, name: str, detach_keys: str = "") -> None:
        """Start a container; one that runs already stays as it is."""
        self._post(name, "start", {"detachKeys": detach_keys})

    def stop(self, name: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop a container; `timeout` in seconds before SIGKILL, None as configured."""
        self._post(name, "stop", {"t": timeout, "signal": signal})

    def restart(self, name: str, timeout: int | None = None, signal: str = "") -> None:
        """Stop and start a container."""
        self._post(name, "restart", {"t": timeout, "signal": signal})

    def kill(self, name: str, signal: str = "") -> None:
        """Send a signal (SIGKILL when empty)."""
        self._post(name, "kill", {"signal": signal})

    def pause(self, name: str) -> None:
        """Freeze a container's processes."""
        self._post(name, "pause")

    def unpause(self, name: str) -> None:
        """Let a container's processes go on."""
        self._post(name, "unpause")

    def rename(self, name: str, new: str) -> None:
        """Give a container another name."""
        self._post(name, "rename", {"name": new})

    def update(self, name: str, changes: Object) -> Object:
        """Change limits and the restart policy: `{"Warnings": […]}`."""
        result: Object = self._post(name, "update", None, changes) or {}
        return result

    def resize(self, name: str, rows: int, columns: int) -> None:
        """Tell the container its terminal's size."""
        self._post(name, "resize", {"h": rows, "w": columns})

    def remove(self, name: str, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        """Remove a container; `volumes`: with its anonymous volumes."""
        query = {"force": force, "v": volumes, "link": link}
        self._client.call("DELETE", f"/containers/{segment(name)}", query)

    def prune(self, filters: Filters | None = None) -> Object:
        """Remove stopped containers: `{"ContainersDeleted": […], "SpaceReclaimed": …}`."""
        result: Object = self._client.call("POST", "/containers/prune", {"filters": filters})
        return result

    def waiting(self, name: str, condition: str = "not-running") -> Connection:
        """Begin to wait; `answer()` of the result comes at once, its body when it is over."""
        return self._client.send("POST", f"/containers/{segment(name)}/wait", {"condition": condition})

    def wait(self, name: str, condition: str = "not-running") -> tuple[int, str]:
        """Wait for a container: its exit status and the error, if any, that ended the wait."""
        result = self._post(name, "wait", {"condition": condition})
        return int(result["StatusCode"]), str((result.get("Error") or {}).get("Message", ""))

    def attach(self, name: str, query: Object) -> Connection:
        """A raw stream to and from the container's own process."""
        return self._client.hijack(f"/containers/{segment(name)}/attach", query)

    def attaching(self, name: str, query: Object) -> Connection:
        """Ask for `attach` without waiting for its answer."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        return self._client.send("POST", f"/containers/{segment(name)}/attach", query, None, headers)

    def logs(self, name: str, query: Object) -> Response:
        """What the container wrote, framed unless it has a terminal."""
        return self._client.open("GET", f"/containers/{segment(name)}/logs", query)

    def top(self, name: str, arguments: str = "") -> Object:
        """Its processes: `{"Titles": […], "Processes": [[…]]}`."""
        path = f"/containers/{segment(name)}/top"
        result: Object = self._client.call("GET", path, {"ps_args": arguments})
        return result

    def stats(self, name: str, stream: bool = True) -> Response:
        """Samples of its use of resources, a JSON document a line, one a second."""
        query = {"stream": "1" if stream else "0"}
        return self._client.open("GET", f"/containers/{segment(name)}/stats", query)

    def changes(self, name: str) -> Objects:
        """Paths that differ from the image: `{"Kind": 0|1|2, "Path": …}` (modified, added, deleted)."""
        return list(self._client.call("GET", f"/containers/{segment(name)}/changes") or [])

    def export(self, name: str) -> Iterator[bytes]:
        """The root file system as a tar archive."""
        return self._client.open("GET", f"/containers/{segment(name)}/export").blocks()

    def commit(self, query: Object, config: Object) -> str:
        """Make an image of a container; its id."""
        return str(self._client.call("POST", "/commit", query, config)["Id"])

    def stat(self, name: str, path: str) -> Object:
        """What `path` is, inside the container: `name`, `size`, `mode` (Go's bits), `mtime`, `linkTarget`."""
        response = self._client.open("HEAD", f"/containers/{segment(name)}/archive", {"path": path})
        self._client.keep(response)
        return self.described(response)

    def described(self, response: Response) -> Object:
        """What the path is that an archive was made of, as `stat` tells it."""
        from binascii import a2b_base64

        from bastide.client.codec import decode

        result: Object = decode(a2b_base64(response.headers.get("x-docker-container-path-stat", "e30=")))
        return result

    def get_archive(self, name: str, path: str) -> Response:
        """A file or folder as a tar archive."""
        return self._client.open("GET", f"/containers/{segment(name)}/archive", {"path": path})

    def put_archive(self, name: str, path: str, archive: Iterable[bytes], query: Object) -> None:
        """Unpack a tar archive in a folder of the container."""
        where = f"/containers/{segment(name)}/archive"
        self._client.call("PUT", where, {"path": path, **query}, archive)
