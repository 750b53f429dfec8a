"""A container's streams: attach (raw and WebSocket) and logs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from aiohttp import web

from bastide.api import detach, hijack
from bastide.api.http import ENGINE, flag, streaming
from bastide.api.times import SECOND, moment
from bastide.engine.logs import LogQuery
from bastide.model.container import Container
from bastide.model.errors import Conflict, InvalidArgument
from bastide.runtime import Stdio, Stream

_BATCH = 256 << 10
"""Bytes of log that may wait for a client before reading stops."""


class _Replayed(Stdio):
    """A process's streams after what the log has of them already."""

    def __init__(self, past: AsyncIterator[tuple[Stream, bytes]], live: Stdio | None) -> None:
        self._past, self._live = past, live

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        async for piece in self._past:
            yield piece
        if self._live is not None:
            async for piece in self._live.output():
                yield piece

    async def write(self, data: bytes) -> None:
        if self._live is not None:
            await self._live.write(data)

    async def close_stdin(self) -> None:
        if self._live is not None:
            await self._live.close_stdin()

    async def close(self) -> None:
        if self._live is not None:
            await self._live.close()


def _wanted(request: web.Request, container: Container) -> hijack.Wanted:
    config = container.config
    return hijack.Wanted(
        stdin=flag(request, "stdin") and flag(request, "stream") and config.open_stdin,
        stdout=flag(request, "stdout"),
        stderr=flag(request, "stderr"),
        terminal=config.tty,
        close_stdin=config.stdin_once,
        detach=detach.parse(request.query.get("detachKeys", "")),
    )


async def _open(request: web.Request, container: Container) -> Stdio:
    """The streams that an attach asks for: the past with `logs`, the present with `stream`."""
    containers = request.app[ENGINE].containers
    if container.state.status == "restarting":
        raise Conflict(f"container {container.id} is restarting, wait until the container is running")
    live = await containers.attach(container.id) if flag(request, "stream") else None
    if live is not None and not flag(request, "logs"):
        return live
    query = LogQuery(stdout=flag(request, "stdout"), stderr=flag(request, "stderr"))
    empty = _nothing() if not flag(request, "logs") else containers.logs(container.id, query)
    return _Replayed(empty, live)


async def _nothing() -> AsyncIterator[tuple[Stream, bytes]]:
    none: tuple[tuple[Stream, bytes], ...] = ()
    for piece in none:
        yield piece


@streaming
async def attach(request: web.Request) -> web.StreamResponse:
    """`POST /containers/{name}/attach`."""
    container = request.app[ENGINE].containers.get(request.match_info["name"])
    wanted = _wanted(request, container)
    taken = await hijack.serve(request, await _open(request, container), wanted)
    if taken.detached:
        request.app[ENGINE].containers.detached(container.id)
    return taken


@streaming
async def attach_websocket(request: web.Request) -> web.StreamResponse:
    """`GET /containers/{name}/attach/ws`."""
    container = request.app[ENGINE].containers.get(request.match_info["name"])
    wanted = _wanted(request, container)
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise InvalidArgument("a WebSocket handshake is needed here")
    return await hijack.serve_websocket(request, await _open(request, container), wanted)


def log_query(request: web.Request) -> LogQuery:
    """The query of `logs`. Raises InvalidArgument."""
    if not (flag(request, "stdout") or flag(request, "stderr")):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    tail = request.query.get("tail", "all") or "all"
    times = {name: request.query.get(name, "") for name in ("since", "until")}
    return LogQuery(
        stdout=flag(request, "stdout"),
        stderr=flag(request, "stderr"),
        follow=flag(request, "follow"),
        timestamps=flag(request, "timestamps"),
        details=flag(request, "details"),
        since=moment(times["since"], name="since") / SECOND if times["since"] not in ("", "0") else 0.0,
        until=moment(times["until"], name="until") / SECOND if times["until"] not in ("", "0") else 0.0,
        tail=int(tail) if tail.isdecimal() else -1,
    )


@streaming
async def logs(request: web.Request) -> web.StreamResponse:
    """`GET /containers/{name}/logs`."""
    containers = request.app[ENGINE].containers
    query = log_query(request)
    container = containers.get(request.match_info["name"])
    pieces = containers.logs(container.id, query)
    kind = hijack.content_type(request, terminal=container.config.tty)
    response = web.StreamResponse(headers={"Content-Type": kind})
    await response.prepare(request)
    await _Batches(response, framed=not container.config.tty).send(pieces)
    await response.write_eof()
    return response


class _Batches:
    """Sends pieces of output together that are there together, so that a long log is few writes."""

    def __init__(self, response: web.StreamResponse, *, framed: bool) -> None:
        self._response, self._framed = response, framed
        self._waiting = bytearray()
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self._ended = False

    async def send(self, pieces: AsyncIterator[tuple[Stream, bytes]]) -> None:
        """Send everything; raises what reading or sending raises."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                await self._read(pieces)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _read(self, pieces: AsyncIterator[tuple[Stream, bytes]]) -> None:
        waiting = self._waiting
        async with aclosing(pieces) as source:  # type: ignore[type-var]
            async for stream, data in source:
                if self._framed:
                    waiting += hijack.header(stream, len(data))
                waiting += data
                self._filled.set()
                if len(waiting) > _BATCH:
                    self._emptied.clear()
                    await self._emptied.wait()
        self._ended = True
        self._filled.set()

    async def _write(self) -> None:
        while not self._ended or self._waiting:
            await self._filled.wait()
            self._filled.clear()
            batch = bytes(self._waiting)
            self._waiting.clear()
            self._emptied.set()
            if batch:
                await self._response.write(batch)


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    one = "/containers/{name}"
    return [
        web.post(f"{one}/attach", attach),
        web.get(f"{one}/attach/ws", attach_websocket, allow_head=False),
        web.get(f"{one}/logs", logs, allow_head=False),
    ]
