"""Snapshots and clones: bastide's own calls, below `/bastide`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bastide.api.http import ENGINE, body, flag, nothing, reply
from bastide.engine.engine import Engine
from bastide.model.snapshot import Snapshot
from bastide.model.wire import Wire


class CreateSnapshot(Wire, frozen=True, kw_only=True):
    """What to save: `memory` null means with it where the container runs and its wall can."""

    tag: str = ""
    memory: bool | None = None


class Clone(Wire, frozen=True, kw_only=True):
    """The clone's name (empty: a made one), and the snapshot to begin from (empty: the present)."""

    name: str = ""
    tag: str = ""


async def _described(engine: Engine, snapshot: Snapshot) -> dict[str, Any]:
    usage = await engine.snapshots.size(snapshot)
    return {
        "Id": snapshot.id,
        "Container": snapshot.container,
        "ContainerName": snapshot.record.name,
        "Tag": snapshot.tag,
        "Created": snapshot.created,
        "Parent": snapshot.parent,
        "Memory": snapshot.memory,
        "Isolation": snapshot.record.isolation,
        "Size": usage.size,
    }


async def create(request: web.Request) -> web.StreamResponse:
    """POST /bastide/containers/{name}/snapshots"""
    engine = request.app[ENGINE]
    wanted = await body(request, CreateSnapshot, CreateSnapshot())
    made = await engine.snapshots.create(request.match_info["name"], wanted.tag, memory=wanted.memory)
    return reply(await _described(engine, made), 201)


async def listing(request: web.Request) -> web.StreamResponse:
    """GET /bastide/snapshots[?container=NAME]"""
    engine = request.app[ENGINE]
    found = engine.snapshots.list(request.query.get("container", ""))
    return reply([await _described(engine, snapshot) for snapshot in found])


async def inspect(request: web.Request) -> web.StreamResponse:
    """GET /bastide/containers/{name}/snapshots/{tag}"""
    engine = request.app[ENGINE]
    snapshot = engine.snapshots.get(request.match_info["name"], request.match_info["tag"])
    return reply(await _described(engine, snapshot) | {"Record": snapshot.record})


async def remove(request: web.Request) -> web.StreamResponse:
    """DELETE /bastide/containers/{name}/snapshots/{tag}"""
    await request.app[ENGINE].snapshots.remove(request.match_info["name"], request.match_info["tag"])
    return nothing()


async def restore(request: web.Request) -> web.StreamResponse:
    """POST /bastide/containers/{name}/restore[?tag=TAG][&memory=0]"""
    engine = request.app[ENGINE]
    tag, memory = request.query.get("tag", ""), flag(request, "memory", True)
    restored = await engine.snapshots.restore(request.match_info["name"], tag, memory=memory)
    return reply(await _described(engine, restored))


async def clone(request: web.Request) -> web.StreamResponse:
    """POST /bastide/containers/{name}/clone"""
    wanted = await body(request, Clone, Clone())
    made = await request.app[ENGINE].snapshots.clone(request.match_info["name"], wanted.name, tag=wanted.tag)
    return reply({"Id": made.id, "Name": made.name, "State": made.state.status}, 201)


def routes() -> list[web.RouteDef]:
    """The calls of this file."""
    return [
        web.post("/bastide/containers/{name:[^/]+}/snapshots", create),
        web.get("/bastide/snapshots", listing),
        web.get("/bastide/containers/{name:[^/]+}/snapshots/{tag:[^/]+}", inspect),
        web.delete("/bastide/containers/{name:[^/]+}/snapshots/{tag:[^/]+}", remove),
        web.post("/bastide/containers/{name:[^/]+}/restore", restore),
        web.post("/bastide/containers/{name:[^/]+}/clone", clone),
    ]
