"""HTTP over a unix socket, with nothing between the test and the bytes."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote


class Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: str, timeout: float = 60) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Answer:
    """Status, headers and body of an answer."""

    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status, self.headers, self.body = response.status, response.headers, body

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The body as JSON documents, one a line."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


class Api:
    """Calls to one engine, each on a connection of its own."""

    def __init__(self, host: str, version: str = "") -> None:
        self.path = host.removeprefix("unix://")
        self.prefix = f"/v{version}" if version else ""

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Make a call; a body that is not bytes goes as JSON."""
        connection = Connection(self.path, timeout)
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, self.prefix + path, body, sent)
            response = connection.getresponse()
            return Answer(response, response.read())
        finally:
            connection.close()

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a call that must succeed, None when it has no body."""
        answer = self(method, path, body)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.json() if answer.body else None


def filters(**values: list[str]) -> str:
    """The query parameter `filters`."""
    return "filters=" + quote(json.dumps(values))
