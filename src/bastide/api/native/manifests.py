"""Manifest lists: bastide's own calls, below `/bastide`. The `X-Registry-Auth` header brings credentials."""

from __future__ import annotations

from aiohttp import web

from bastide.api.docker.images import credentials
from bastide.api.http import ENGINE, body, flag, nothing, reply
from bastide.engine.manifest_lists import Annotation
from bastide.model.wire import Wire


class Create(Wire, frozen=True, kw_only=True):
    """What to make a list of: references of images that registries hold."""

    name: str
    sources: list[str]
    amend: bool = False


async def create(request: web.Request) -> web.StreamResponse:
    """POST /bastide/manifests"""
    wanted = await body(request, Create)
    lists = request.app[ENGINE].manifest_lists
    name = await lists.create(wanted.name, wanted.sources, credentials(request), amend=wanted.amend)
    return reply({"Name": name}, 201)


async def inspect(request: web.Request) -> web.StreamResponse:
    """GET /bastide/manifests/{name}"""
    lists = request.app[ENGINE].manifest_lists
    return reply(await lists.inspect(request.match_info["name"], credentials(request)))


async def annotate(request: web.Request) -> web.StreamResponse:
    """POST /bastide/manifests/{name}/annotate"""
    request.app[ENGINE].manifest_lists.annotate(request.match_info["name"], await body(request, Annotation))
    return nothing()


async def push(request: web.Request) -> web.StreamResponse:
    """POST /bastide/manifests/{name}/push[?purge=1]"""
    lists = request.app[ENGINE].manifest_lists
    digest = await lists.push(request.match_info["name"], credentials(request), purge=flag(request, "purge"))
    return reply({"Digest": digest})


async def remove(request: web.Request) -> web.StreamResponse:
    """DELETE /bastide/manifests/{name}"""
    request.app[ENGINE].manifest_lists.remove(request.match_info["name"])
    return nothing()


def routes() -> list[web.RouteDef]:
    """Everything below `/bastide/manifests`."""
    return [
        web.post("/bastide/manifests", create),
        web.get("/bastide/manifests/{name:.+}", inspect, allow_head=False),
        web.post("/bastide/manifests/{name:.+}/annotate", annotate),
        web.post("/bastide/manifests/{name:.+}/push", push),
        web.delete("/bastide/manifests/{name:.+}", remove),
    ]
