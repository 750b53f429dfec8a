"""A connection that can stop being HTTP: what a client sends after such a request is kept for the stream.

Attach and exec turn their connection into a raw stream, with `Upgrade: tcp` or, as old clients do,
without. Bytes that follow the request must then reach the process's stdin, not the HTTP parser.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import web

_HEAD = re.compile(rb"POST [^ ]*/(?:containers/[^/ ]+/attach|exec/[^/ ]+/start)(?:\?[^ ]*)? HTTP/1\.1\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_HELD_LIMIT = 1 << 20


class Connection(web.RequestHandler):
    """aiohttp's side of one client connection."""

    __slots__ = ("_body_left", "_held", "following", "held_eof", "stream")

    _held: bytearray | None
    _body_left: int
    held_eof: bool
    following: asyncio.Task[Any] | None
    """The task of an answer that goes on until the client or the server ends it."""
    stream: asyncio.Transport | None
    """The transport, once the connection is a stream and no longer HTTP."""

    def begin(self) -> None:
        """Set the fields that aiohttp's constructor does not know."""
        self._held, self._body_left, self.held_eof, self.stream = None, 0, False, None
        self.following = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser with the request alone when it may become a stream, and hold back the rest."""
        if self._held is None and (self._current_request is not None or not _HEAD.match(data)):
            super().data_received(data)
            return
        if self._held is None:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4 or _CHUNKED.search(data, 0, end):
                super().data_received(data)
                return
            length = _LENGTH.search(data, 0, end)
            self._held, self._body_left = bytearray(), end + (int(length[1]) if length else 0)
        request, rest = data[: self._body_left], data[self._body_left :]
        self._body_left -= len(request)
        if request:
            super().data_received(request)
        if rest and self._held is not None:
            self._held += rest
            if len(self._held) > _HELD_LIMIT and self.transport is not None:
                self.transport.pause_reading()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Half a close before the stream begins is the end of its stdin, not of the connection."""
        if self._held is None:
            return None
        self.held_eof = True
        return True

    def take_held(self) -> bytes:
        """What arrived after the request; from now on nothing is held back."""
        held, self._held = bytes(self._held or b""), None
        return held

    def cut(self) -> None:
        """End what has no end of its own: a raw stream, or an answer that follows something."""
        if self.stream is not None:
            self.stream.close()
        elif self.following is not None:
            self.following.cancel()

    def release(self) -> None:
        """The request did not become a stream: what was held back is HTTP."""
        self.following = None
        held = self.take_held()
        if self.transport is None:
            return
        if held:
            self.transport.resume_reading()
            self.data_received(held)
        if self.held_eof:
            self.close()


class ConnectionServer(web.Server):
    """aiohttp's server with the connections above."""

    def __call__(self) -> Connection:
        """A handler for a new connection."""
        made = Connection(self, loop=self._loop, **self._kwargs)
        made.begin()
        return made
