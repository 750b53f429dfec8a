"""The daemon itself: ping, version, info, disk use, events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from bastide.api import http
from bastide.api.docker import container_view, versions, volumes
from bastide.api.docker.container_filters import has_label, matches_text
from bastide.api.docker.containers import ImageNames
from bastide.api.http import ENGINE, filters, reply, streaming
from bastide.api.json_stream import JsonStream
from bastide.api.times import SECOND, epoch, moment
from bastide.engine.disk_usage import measure
from bastide.engine.events import Event, Subscription

_EVENT_FILTERS = frozenset(
    "config container daemon event image label network node plugin scope secret service type volume".split()
)
_FRESH = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


async def ping(request: web.Request) -> web.Response:
    """`GET` and `HEAD /_ping`."""
    return web.Response(
        body=b"OK", headers={"Content-Type": "text/plain; charset=utf-8", "Builder-Version": "1", **_FRESH}
    )


async def version(request: web.Request) -> web.Response:
    """`GET /version`."""
    return reply(await request.app[ENGINE].system.version())


async def info(request: web.Request) -> web.Response:
    """`GET /info`."""
    return reply(versions.info(http.version(request), await request.app[ENGINE].system.info()))


async def disk_usage(request: web.Request) -> web.Response:
    """`GET /system/df`; `type` (repeatable, since 1.42) chooses what is measured."""
    chosen = set(request.query.getall("type", [])) or {"container", "image", "volume", "build-cache"}
    shown: dict[str, Any] = {
        "LayersSize": 0,
        "Images": None,
        "Artifacts": None,
        "Containers": None,
        "Volumes": None,
        "BuildCache": None,
    }
    if "container" in chosen:
        shown["Containers"] = await _containers(request)
    if "image" in chosen:
        shown.update(await _images(request))
    if "volume" in chosen:
        shown["Volumes"] = await _volumes(request)
    if "build-cache" in chosen:
        shown["BuildCache"] = await _build_cache(request)
    return reply(shown)


async def _containers(request: web.Request) -> list[dict[str, Any]]:
    containers = request.app[ENGINE].containers
    names = ImageNames(request)
    rows = []
    for container in containers.list():
        row = container_view.summary(container, names.shown(container))
        row["SizeRw"] = (await containers.size(container.id)).size
        rows.append(row)
    return rows


async def _images(request: web.Request) -> dict[str, Any]:
    """Images with what each shares with others, blobs and disks included, what all take, and artifacts."""
    engine = request.app[ENGINE]
    users = Counter(container.image_id for container in engine.containers.list())
    found = await measure(engine.images)
    images = [
        {
            "Id": image.id,
            "ParentId": "",
            "RepoTags": list(engine.images.references(image.id)),
            "RepoDigests": list(engine.images.digests(image.id)),
            "Created": epoch(image.created) // SECOND if image.created else 0,
            "Size": use.size,
            "SharedSize": use.shared,
            "Labels": image.config.labels,
            "Containers": users[image.id],
            **({"VirtualSize": use.size} if http.version(request) < (1, 44) else {}),
        }
        for image, use in found.images
    ]
    artifacts = [
        {
            "Digest": artifact.descriptor.digest,
            "Names": list(engine.images.artifacts.names(artifact)),
            "Size": size,
        }
        for artifact, size in found.artifacts
    ]
    return {"Images": images, "LayersSize": found.total, "Artifacts": artifacts}


async def _build_cache(request: web.Request) -> list[dict[str, Any]]:
    return [
        {
            "ID": record.id,
            "Parents": [record.parent] if record.parent else None,
            "Type": record.kind,
            "Description": record.description,
            "InUse": record.in_use,
            "Shared": record.shared,
            "Size": record.size,
            "CreatedAt": record.created,
            "LastUsedAt": record.used,
            "UsageCount": record.uses,
        }
        for record in await request.app[ENGINE].builder.usage()
    ]


async def _volumes(request: web.Request) -> list[dict[str, Any]]:
    engine = request.app[ENGINE]
    used = engine.volumes.users()
    rows = []
    for volume in engine.volumes.list():
        usage = {"RefCount": len(used.get(volume.name, ())), "Size": await engine.volumes.size(volume.name)}
        rows.append({**volumes.shown(volume), "UsageData": usage})
    return rows


def event_shown(event: Event) -> dict[str, Any]:
    """An event as the Docker Engine API 1.47 shows it, the old fields `status`, `id` and `from` too."""
    shown: dict[str, Any] = {}
    if event.kind in ("container", "image"):
        shown = {"status": event.action, "id": event.id}
        if event.kind == "container" and "image" in event.attributes:
            shown["from"] = event.attributes["image"]
    return {
        **shown,
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": event.scope,
        "time": event.time // SECOND,
        "timeNano": event.time,
    }


def _about(kind: str, event: Event, values: list[str]) -> bool:
    """Whether an event is about one of these objects, by id, name or prefix, or tells of one of them."""
    if event.kind == kind:
        own = (event.id, event.attributes.get("name", ""))
    elif kind in event.attributes:
        own = (event.attributes[kind], "")
    else:
        return False
    return any(value in own or (value and event.id.startswith(value)) for value in values) or matches_text(
        own[1], values
    )


def _image(event: Event, values: list[str]) -> bool:
    own = (
        (event.id, event.attributes.get("name", "")) if event.kind == "image" else (event.attributes.get("image", ""),)
    )
    bare = [name.rpartition(":")[0] for name in own if ":" in name.rpartition("/")[2]]
    return any(value in own or value in bare for value in values)


_EVENT_TESTS: dict[str, Callable[[Event, list[str]], bool]] = {
    # Docker's "exec_start: sh" is found as "exec_start" too.
    "event": lambda event, values: event.action in values or event.action.partition(":")[0] in values,
    "type": lambda event, values: event.kind in values,
    "scope": lambda event, values: event.scope in values,
    "label": lambda event, values: all(has_label(event.attributes, value) for value in values),
    "image": _image,
}


def event_passes(event: Event, wanted: dict[str, list[str]]) -> bool:
    """Whether an event passes every filter."""
    for name, values in wanted.items():
        test = _EVENT_TESTS.get(name)
        if not (test(event, values) if test else _about(name, event, values)):
            return False
    return True


@streaming
async def events(request: web.Request) -> web.StreamResponse:
    """`GET /events`: what was kept from `since` on, then what happens, until `until`."""
    wanted = filters(request, _EVENT_FILTERS)
    since, until = (request.query.get(name, "") for name in ("since", "until"))
    begin = moment(since, name="since") if since and since != "0" else None
    end = moment(until, name="until") if until and until != "0" else 0
    channel = request.app[ENGINE].events
    async with JsonStream(request) as stream:
        with channel.subscribe() as listener:
            for event in channel.past(begin, end) if begin is not None else ():
                if event_passes(event, wanted):
                    await stream.send(event_shown(event))
            left = (end - time.time_ns()) / SECOND if end else None
            if left is None or left > 0:
                await _follow(stream, listener, wanted, left)
    return stream.response


async def _follow(
    stream: JsonStream, listener: Subscription, wanted: dict[str, list[str]], seconds: float | None
) -> None:
    """Send what happens from now on, for so many seconds or without end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for event in listener:
                if event_passes(event, wanted):
                    await stream.send(event_shown(event))


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    return [
        web.get("/_ping", ping),
        web.get("/version", version),
        web.get("/info", info),
        web.get("/system/df", disk_usage),
        web.get("/events", events, allow_head=False),
    ]
