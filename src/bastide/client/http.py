"""HTTP/1.1 over a connected stream socket, as much of it as the Docker Engine API uses (RFC 9112).

Requests with a sized or a chunked body; answers that are sized, chunked or end with the connection;
and connections that stop being HTTP (`101`, attach and exec).
"""

from __future__ import annotations

from bastide.client.endpoint import Unreachable
from bastide.model.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    class Socket(Protocol):
        """The part of a socket that is used."""

        def recv(self, size: int, flags: int = 0, /) -> bytes: ...
        def send(self, data: bytes, flags: int = 0, /) -> int: ...
        def sendall(self, data: bytes, /) -> None: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...
        def fileno(self) -> int: ...


_BLOCK = 1 << 16
_HEAD_LIMIT = 1 << 20
_SHUT_WR = 1
_NOW = 0x40  # MSG_DONTWAIT
_PEEK_NOW = 0x02 | 0x40  # MSG_PEEK | MSG_DONTWAIT


class Closed(Unreachable):
    """The daemon closed the connection before it answered."""


class Connection:
    """One connection: a request, then its answer, in turn."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._buffer = b""

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None) -> None:
        """Send a request. A body that is not `bytes` goes out in chunks. Raises OSError."""
        lines = [f"{method} {target} HTTP/1.1", "Host: bastide", "User-Agent: bastide-client"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is None:
            if method in ("POST", "PUT"):
                lines.append("Content-Length: 0")
            body = b""
        elif isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        else:
            lines.append("Transfer-Encoding: chunked")
        head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
        if isinstance(body, bytes):
            self.socket.sendall(head + body)
            return
        self.socket.sendall(head)
        for block in body:
            if block:
                self.socket.sendall(b"%x\r\n%b\r\n" % (len(block), block))
        self.socket.sendall(b"0\r\n\r\n")

    def answer(self, bodyless: bool = False) -> Response:
        """Read an answer's head; its body is read from the result. `bodyless`: it answers a HEAD."""
        while True:
            lines = self._head()
            status = int(lines[0].split(" ", 2)[1])
            if status >= 200 or status == 101:
                break
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if bodyless or status in (204, 304):
            headers["content-length"] = "0"
            headers.pop("transfer-encoding", None)
        return Response(self, status, headers)

    def close(self) -> None:
        """Close the connection; safe to repeat."""
        self.socket.close()

    def finish(self) -> None:
        """Tell the other side that no more will be sent (it sees the end of standard input)."""
        self.socket.shutdown(_SHUT_WR)

    def send_now(self, data: bytes) -> int:
        """Send what can be sent without waiting: how many bytes that was. Raises OSError."""
        try:
            return self.socket.send(data, _NOW)
        except BlockingIOError:
            return 0

    def some(self, size: int = _BLOCK) -> bytes:
        """Up to `size` bytes, at least one; empty at the end of the connection."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        return self.socket.recv(size)

    @property
    def alive(self) -> bool:
        """Whether an idle connection can carry another request: open, and with nothing unread."""
        try:
            self.socket.recv(1, _PEEK_NOW)
        except BlockingIOError:
            return not self._buffer
        except (OSError, ValueError):  # TLS refuses flags: a new connection then
            return False
        return False

    @property
    def pending(self) -> bool:
        """Whether bytes are here already, so that polling the socket would miss them."""
        waiting = getattr(self.socket, "pending", None)
        return bool(self._buffer) or (waiting is not None and waiting() > 0)

    @property
    def held(self) -> int:
        """How many bytes were received and not asked for yet."""
        return len(self._buffer)

    def line(self) -> bytes:
        """The next line without its CR LF."""
        return self._until(b"\r\n")

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises Closed when there are fewer."""
        parts = []
        while size:
            data = self.some(min(size, 1 << 20))
            if not data:
                raise Closed("the daemon closed the connection in the middle of an answer")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _head(self) -> list[str]:
        return self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")

    def _until(self, mark: bytes) -> bytes:
        while (found := self._buffer.find(mark)) < 0:
            data = self.socket.recv(_BLOCK)
            if not data:
                raise Closed("the daemon closed the connection without an answer: look at its log")
            self._buffer += data
            if len(self._buffer) > _HEAD_LIMIT:
                raise Unavailable("the answer is not HTTP: is this a bastide or Docker socket?")
        data, self._buffer = self._buffer[:found], self._buffer[found + len(mark) :]
        return data


class Response:
    """An answer: `status`, `headers` (names in lower case) and a body to be read once."""

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self.connection = connection
        self.status = status
        self.headers = headers
        self.reusable = (
            status != 101
            and headers.get("connection", "").lower() != "close"
            and ("content-length" in headers or self._chunked)
        )

    @property
    def _chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    def blocks(self) -> Iterator[bytes]:
        """The body, piece by piece, as it arrives."""
        connection = self.connection
        if self._chunked:
            while size := int(connection.line().split(b";")[0], 16):
                while size:
                    data = connection.some(min(size, _BLOCK))
                    if not data:
                        raise Closed("the daemon closed the connection in the middle of an answer")
                    size -= len(data)
                    yield data
                connection.line()
            connection.line()
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left:
                data = connection.some(min(left, _BLOCK))
                if not data:
                    raise Closed("the daemon closed the connection in the middle of an answer")
                left -= len(data)
                yield data
        else:
            while data := connection.some():
                yield data

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.blocks())

    def lines(self) -> Iterator[bytes]:
        """The body line by line (newline-delimited JSON), empty lines left out."""
        rest = b""
        for block in self.blocks():
            *whole, rest = (rest + block).split(b"\n")
            yield from (line for line in whole if line.strip())
        if rest.strip():
            yield rest

    def close(self) -> None:
        """Give the connection up, read to the end or not."""
        self.connection.close()
