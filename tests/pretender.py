"""A pretender of the daemon for unit tests: answers scripted requests on a unix socket, and notes what was asked."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


class Request(NamedTuple):
    """What a client asked: `query` has lists of values, `body` the bytes, chunks already joined."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


Answer = Callable[[Request, socket.socket], None]


def reply(value: Any, status: int = 200) -> Answer:
    """Answer with JSON (or bytes as they are) and a length."""

    def send(_request: Request, channel: socket.socket) -> None:
        data = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\nContent-Type: application/json\r\n\r\n"
        channel.sendall(head.encode() + data)

    return send


def stream(*lines: Any) -> Answer:
    """Answer with JSON documents in chunks, one each."""

    def send(_request: Request, channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for line in lines:
            data = json.dumps(line).encode() + b"\n"
            channel.sendall(b"%x\r\n%b\r\n" % (len(data), data))
        channel.sendall(b"0\r\n\r\n")

    return send


def hijack(talk: Callable[[socket.socket], None]) -> Answer:
    """Turn the connection into a raw stream, and close it after `talk`."""

    def send(_request: Request, channel: socket.socket) -> None:
        channel.sendall(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        talk(channel)
        channel.shutdown(socket.SHUT_RDWR)
        channel.close()

    return send


def frame(number: int, data: bytes) -> bytes:
    """A frame of the API's stream format."""
    return bytes([number, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class Pretender:
    """Listens at `path`; `answers` maps `METHOD /path` to what is sent."""

    def __init__(self, path: Path) -> None:
        self.url = f"unix://{path}"
        self.requests: list[Request] = []
        self.answers: dict[str, Answer] = {}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def asked(self) -> list[str]:
        """Method and path of every request so far, in order of their arrival."""
        return [f"{request.method} {request.path}" for request in self.requests]

    def last(self, what: str) -> Request:
        """The last request of that method and path."""
        return next(r for r in reversed(self.requests) if f"{r.method} {r.path}" == what)

    def _serve(self) -> None:
        while True:
            try:
                channel, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(channel,), daemon=True).start()

    def _talk(self, channel: socket.socket) -> None:
        with channel, channel.makefile("rb") as reader:
            while line := reader.readline():
                method, target, _ = line.decode().split(" ")
                headers = {}
                while (header := reader.readline().decode().rstrip("\r\n")) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = self._body(reader, headers)
                parts = urlsplit(target)
                request = Request(method, unquote(parts.path), parse_qs(parts.query), headers, body)
                self.requests.append(request)
                answer = self.answers.get(f"{method} {request.path}")
                if answer is None:
                    answer = reply({"message": f"page not found: {request.path}"}, 404)
                try:
                    answer(request, channel)
                except OSError:
                    return
                if channel.fileno() < 0:
                    return

    @staticmethod
    def _body(reader: Any, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(reader.readline(), 16):
                parts.append(reader.read(size))
                reader.readline()
            reader.readline()
            return b"".join(parts)
        data: bytes = reader.read(int(headers.get("content-length", 0)))
        return data
