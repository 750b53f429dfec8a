"""Processes in running containers (`exec`) over the API."""

from __future__ import annotations

from bastide.client import Client, segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bastide.client import Connection, Object


class Execs:
    """The calls below `/exec`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, container: str, config: Object) -> str:
        """Prepare a process in a running container; the exec's id."""
        return self.created(self.creating(container, config))

    def creating(self, container: str, config: Object) -> Connection:
        """Ask for `create` without waiting for its answer."""
        return self._client.send("POST", f"/containers/{segment(container)}/exec", None, config)

    def created(self, asked: Connection) -> str:
        """The id that `creating` asked for."""
        return str(self._client.read(asked.answer())["Id"])

    def start(self, exec_id: str, tty: bool = False, size: tuple[int, int] | None = None) -> Connection:
        """Start it, and speak with it over a raw stream; `size` is rows and columns."""
        body: Object = {"Detach": False, "Tty": tty}
        if size:
            body["ConsoleSize"] = list(size)
        return self._client.hijack(f"/exec/{segment(exec_id)}/start", None, body)

    def detach(self, exec_id: str, tty: bool = False) -> None:
        """Start it and leave it to itself."""
        self._client.call("POST", f"/exec/{segment(exec_id)}/start", None, {"Detach": True, "Tty": tty})

    def inspect(self, exec_id: str) -> Object:
        """What became of it (`Running`, `ExitCode`)."""
        result: Object = self._client.call("GET", f"/exec/{segment(exec_id)}/json")
        return result

    def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Tell it its terminal's size."""
        self._client.call("POST", f"/exec/{segment(exec_id)}/resize", {"h": rows, "w": columns})
