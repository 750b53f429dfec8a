"""Volumes: make, find, remove."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bastide.api.docker.container_filters import has_label, labelled, matches_text
from bastide.api.http import ENGINE, body, filters, flag, nothing, reply, version
from bastide.api.times import epoch, moment
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.volume import Volume
from bastide.model.wire import Wire

_ACCEPTED = frozenset(("dangling", "driver", "label", "name"))
_PRUNE_ACCEPTED = frozenset(("all", "label", "label!", "until"))
_TRUTH = {"1": True, "true": True, "0": False, "false": False}


class Create(Wire, frozen=True, kw_only=True):
    """The body of a create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


def shown(volume: Volume) -> dict[str, Any]:
    """A volume as the Docker Engine API 1.47 shows it."""
    return {
        "CreatedAt": volume.created_at,
        "Driver": volume.driver,
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": volume.scope,
    }


def _truth(name: str, values: list[str]) -> bool:
    try:
        return _TRUTH[values[0].lower()]
    except KeyError:
        raise InvalidArgument(f"invalid filter '{name}={values}'") from None


async def list_volumes(request: web.Request) -> web.Response:
    """`GET /volumes`."""
    volumes = request.app[ENGINE].volumes
    wanted = filters(request, _ACCEPTED)
    chosen = volumes.list()
    if values := wanted.get("dangling"):
        used, dangling = volumes.users(), _truth("dangling", values)
        chosen = [volume for volume in chosen if (volume.name not in used) is dangling]
    if values := wanted.get("driver"):
        chosen = [volume for volume in chosen if volume.driver in values]
    if values := wanted.get("name"):
        chosen = [volume for volume in chosen if matches_text(volume.name, values)]
    if values := wanted.get("label"):
        chosen = [volume for volume in chosen if all(has_label(volume.labels, value) for value in values)]
    return reply({"Volumes": [shown(volume) for volume in chosen], "Warnings": None})


async def create(request: web.Request) -> web.Response:
    """`POST /volumes/create`."""
    wanted = await body(request, Create)
    if wanted.cluster_volume_spec is not None:
        raise Unsupported("cluster volumes are not offered: this engine is not part of a swarm")
    volume = await request.app[ENGINE].volumes.create(
        wanted.name, driver=wanted.driver or "local", options=wanted.driver_opts or {}, labels=wanted.labels or {}
    )
    return reply(shown(volume), 201)


async def inspect(request: web.Request) -> web.Response:
    """`GET /volumes/{name}`."""
    return reply(shown(request.app[ENGINE].volumes.get(request.match_info["name"])))


async def remove(request: web.Request) -> web.Response:
    """`DELETE /volumes/{name}`."""
    await request.app[ENGINE].volumes.remove(request.match_info["name"], force=flag(request, "force"))
    return nothing()


async def prune(request: web.Request) -> web.Response:
    """`POST /volumes/prune`: since 1.42 anonymous ones alone, unless `all` is asked for."""
    volumes = request.app[ENGINE].volumes
    wanted = filters(request, _PRUNE_ACCEPTED)
    everything = _truth("all", wanted["all"]) if "all" in wanted else version(request) < (1, 42)
    until = [moment(value, name="until") for value in wanted.get("until", ())]
    chosen = [
        volume
        for volume in volumes.list()
        if (everything or volume.anonymous)
        and labelled(volume.labels, wanted)
        and all(epoch(volume.created_at) <= end for end in until)
    ]
    removed, freed = await volumes.prune(chosen)
    return reply({"VolumesDeleted": removed or None, "SpaceReclaimed": freed})


async def update(request: web.Request) -> web.Response:
    """`PUT /volumes/{name}`: for cluster volumes alone."""
    raise Unsupported("cluster volumes are not offered: this engine is not part of a swarm")


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    return [
        web.get("/volumes", list_volumes),
        web.post("/volumes/create", create),
        web.post("/volumes/prune", prune),
        web.get("/volumes/{name}", inspect),
        web.put("/volumes/{name}", update),
        web.delete("/volumes/{name}", remove),
    ]
