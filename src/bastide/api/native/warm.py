"""The pool and what is made beforehand: bastide's own calls, below `/bastide`."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from bastide.api.http import ENGINE, body, nothing, reply
from bastide.model.pool import PoolState
from bastide.model.wire import Wire


class Resize(Wire, frozen=True, kw_only=True):
    """How many bytes of memory the pool may use; 0 turns it off."""

    memory: int = 0


class Prewarm(Wire, frozen=True, kw_only=True):
    """The images whose templates are wanted; none: those that serve any image."""

    images: list[str] = []


def _described(state: PoolState) -> dict[str, Any]:
    shapes = [
        {name.capitalize(): value for name, value in msgspec.structs.asdict(each).items()} for each in state.shapes
    ]
    return {"Limit": state.limit, "Used": state.used, "Reason": state.reason, "Shapes": shapes}


async def pool(request: web.Request) -> web.StreamResponse:
    """GET /bastide/pool"""
    return reply(_described(await request.app[ENGINE].warmth.pool()))


async def resize(request: web.Request) -> web.StreamResponse:
    """POST /bastide/pool"""
    wanted = await body(request, Resize)
    return reply(_described(await request.app[ENGINE].warmth.resize(wanted.memory)))


async def prewarm(request: web.Request) -> web.StreamResponse:
    """POST /bastide/prewarm"""
    wanted = await body(request, Prewarm, Prewarm())
    await request.app[ENGINE].warmth.prewarm(wanted.images)
    return nothing()


def routes() -> list[web.RouteDef]:
    """The table."""
    return [
        web.get("/bastide/pool", pool),
        web.post("/bastide/pool", resize),
        web.post("/bastide/prewarm", prewarm),
    ]
