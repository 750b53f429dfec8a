"""Answers that go on: JSON documents, one a line, as they come about."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web

_encode = msgspec.json.Encoder().encode


class JsonStream:
    """A context manager: the headers are sent when it is entered, the end when it is left well."""

    def __init__(self, request: web.Request, content_type: str = "application/json") -> None:
        self._request = request
        self.response = web.StreamResponse(headers={"Content-Type": content_type})

    async def __aenter__(self) -> JsonStream:
        await self.response.prepare(self._request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.response.write_eof()

    async def send(self, value: Any) -> None:
        """One document; waits when the client does not read."""
        await self.response.write(_encode(value) + b"\n")
