"""Files in and out of a container as tar streams, and the whole of it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from bastide.api.http import ENGINE, flag, nothing, streaming
from bastide.model.errors import InvalidArgument

_STAT = "X-Docker-Container-Path-Stat"
_BLOCK = 256 << 10


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path contains a null byte")
    return path


async def _described(request: web.Request) -> dict[str, str]:
    """The header that says what a path is."""
    found: dict[str, Any] = await request.app[ENGINE].containers.stat_path(request.match_info["name"], _path(request))
    return {_STAT: base64.b64encode(msgspec.json.encode(found)).decode()}


async def stat(request: web.Request) -> web.Response:
    """`HEAD /containers/{name}/archive`."""
    return web.Response(headers=await _described(request))


async def _send(request: web.Request, pieces: AsyncIterator[bytes], headers: dict[str, str]) -> web.StreamResponse:
    """Send a tar stream. What fails before its first piece is still an answer of its own."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **headers})
    async with aclosing(pieces) as source:  # type: ignore[type-var]
        first = await anext(source, b"")
        await response.prepare(request)
        await response.write(first)
        async for piece in source:
            await response.write(piece)
    await response.write_eof()
    return response


@streaming
async def get(request: web.Request) -> web.StreamResponse:
    """`GET /containers/{name}/archive`."""
    headers = await _described(request)
    pieces = request.app[ENGINE].containers.get_archive(request.match_info["name"], _path(request))
    return await _send(request, pieces, headers)


@streaming
async def export(request: web.Request) -> web.StreamResponse:
    """`GET /containers/{name}/export`."""
    containers = request.app[ENGINE].containers
    container = containers.get(request.match_info["name"])
    return await _send(request, containers.export(container.id), {})


@streaming
async def put(request: web.Request) -> web.Response:
    """`PUT /containers/{name}/archive`."""
    await request.app[ENGINE].containers.put_archive(
        request.match_info["name"],
        _path(request),
        request.content.iter_chunked(_BLOCK),
        no_overwrite_dir=flag(request, "noOverwriteDirNonDir"),
        as_user=flag(request, "copyUIDGID"),
    )
    return nothing(200)


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    one = "/containers/{name}"
    return [
        web.head(f"{one}/archive", stat),
        web.get(f"{one}/archive", get, allow_head=False),
        web.put(f"{one}/archive", put),
        web.get(f"{one}/export", export, allow_head=False),
    ]
