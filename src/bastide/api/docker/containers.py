"""Containers: make, find, run, change, remove."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from bastide.api.detach import parse as parse_keys
from bastide.api.docker import container_filters as selection
from bastide.api.docker import container_request as asked
from bastide.api.docker import container_view as view
from bastide.api.docker import versions
from bastide.api.http import (
    ENGINE,
    body,
    filters,
    flag,
    nothing,
    number,
    raw_body,
    reply,
    streaming,
    version,
)
from bastide.api.json_stream import JsonStream
from bastide.model.container import Container, HostConfig, Status
from bastide.model.errors import BastideError, InvalidArgument, NotFound, PermissionDenied, Unsupported
from bastide.model.process import TerminalSize


def _name(request: web.Request) -> str:
    return request.match_info["name"]


class ImageNames:
    """Under which name a container's image is shown: as asked for while that still means the same image."""

    def __init__(self, request: web.Request) -> None:
        self._images = request.app[ENGINE].images
        self._known: dict[str, str] = {}

    def id(self, reference: str) -> str:
        """The id of the image that a reference means now, empty when it means none."""
        if reference not in self._known:
            try:
                self._known[reference] = self._images.get(reference).id
            except BastideError:
                self._known[reference] = ""
        return self._known[reference]

    def shown(self, container: Container) -> str:
        """The name, or the image's id when the name is gone or means another image now."""
        reference = container.config.image
        return reference if self.id(reference) == container.image_id else container.image_id

    def descends(self, container: Container, ancestors: Sequence[str]) -> bool:
        """Whether a container comes from one of these images or from one made on top of it."""
        for reference in ancestors:
            image = self.id(reference)
            if image and (image == container.image_id or self._below(image, container)):
                return True
        return False

    def _below(self, image: str, container: Container) -> bool:
        layers = self._images.get(image).diff_ids
        return bool(layers) and container.layers[: len(layers)] == layers


async def list_containers(request: web.Request) -> web.Response:
    """`GET /containers/json`."""
    containers = request.app[ENGINE].containers
    wanted = filters(request, selection.ACCEPTED)
    limit = max(0, number(request, "limit") or 0)
    names = ImageNames(request)
    everything = flag(request, "all") or limit > 0 or "status" in wanted
    present = [
        container
        for container in containers.list()
        if everything or container.state.running or container.state.status is Status.RESTARTING
    ]
    chosen = selection.select(present, wanted, containers.get, names.descends)
    rows = [
        view.summary(container, names.shown(container)) | _insecure(request, container)
        for container in chosen[: limit or None]
    ]
    if flag(request, "size"):
        for row in rows:
            row.update(await _sizes(request, row["Id"]))
    return reply(rows)


async def _sizes(request: web.Request, reference: str) -> dict[str, int]:
    """What a container adds to its image on disk, and both together."""
    engine = request.app[ENGINE]
    own = (await engine.containers.size(reference)).size
    try:
        image = engine.images.get(engine.containers.get(reference).image_id).size
    except NotFound:
        image = 0
    return {"SizeRw": own, "SizeRootFs": own + image}


async def create(request: web.Request) -> web.Response:
    """`POST /containers/create`."""
    if request.can_read_body and request.content_type != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({request.content_type}): must be 'application/json'")
    wanted = asked.read_create(await raw_body(request), version(request))
    engine = request.app[ENGINE]
    try:
        container, warnings = await engine.containers.create(
            request.query.get("name", "").removeprefix("/"),
            wanted.config,
            wanted.host,
            wanted.endpoints,
            request.query.get("platform", "") if version(request) >= (1, 41) else "",
        )
    except NotFound as error:
        if "image" in error.message:
            raise
        # A client takes 404 as "pull the image and try again"; that helps nothing else that is missing.
        raise InvalidArgument(error.message) from error
    return reply({"Id": container.id, "Warnings": [*wanted.warnings, *warnings]}, 201)


def _insecure(request: web.Request, container: Container) -> dict[str, Any]:
    """What the container's image was not protected from, where somebody asked for that."""
    image = request.app[ENGINE].images.find(container.image_id) if container.image_id else None
    return {"InsecureOptions": image.insecure_options} if image and image.insecure_options else {}


async def inspect(request: web.Request) -> web.Response:
    """`GET /containers/{name}/json`."""
    engine = request.app[ENGINE]
    container = engine.containers.get(_name(request))
    shown = view.inspect(container, engine.execs.of(container.id)) | _insecure(request, container)
    shown = versions.inspected(version(request), container, shown)
    if flag(request, "size"):
        shown.update(await _sizes(request, container.id))
    return reply(shown)


async def start(request: web.Request) -> web.Response:
    """`POST /containers/{name}/start`."""
    containers = request.app[ENGINE].containers
    if request.query.get("checkpoint"):
        raise Unsupported("starting from a checkpoint is not offered")
    parse_keys(request.query.get("detachKeys", ""))
    container = containers.get(_name(request))
    try:
        await containers.start(container.id)
    except (NotFound, PermissionDenied) as error:
        raise asked.plain_start(container, error) from error
    return nothing()


def _seconds(request: web.Request) -> float | None:
    value = number(request, "t")
    return None if value is None else float(value)


def _signal(request: web.Request) -> str | None:
    """The signal to end it with, which a request may name since 1.42."""
    return (request.query.get("signal") or None) if version(request) >= (1, 42) else None


async def stop(request: web.Request) -> web.Response:
    """`POST /containers/{name}/stop`."""
    await request.app[ENGINE].containers.stop(_name(request), timeout=_seconds(request), signal=_signal(request))
    return nothing()


async def restart(request: web.Request) -> web.Response:
    """`POST /containers/{name}/restart`."""
    await request.app[ENGINE].containers.restart(_name(request), timeout=_seconds(request), signal=_signal(request))
    return nothing()


async def kill(request: web.Request) -> web.Response:
    """`POST /containers/{name}/kill`."""
    await request.app[ENGINE].containers.kill(_name(request), request.query.get("signal") or "SIGKILL")
    return nothing()


async def pause(request: web.Request) -> web.Response:
    """`POST /containers/{name}/pause`."""
    await request.app[ENGINE].containers.pause(_name(request))
    return nothing()


async def unpause(request: web.Request) -> web.Response:
    """`POST /containers/{name}/unpause`."""
    await request.app[ENGINE].containers.unpause(_name(request))
    return nothing()


async def rename(request: web.Request) -> web.Response:
    """`POST /containers/{name}/rename`."""
    await request.app[ENGINE].containers.rename(_name(request), request.query.get("name", "").removeprefix("/"))
    return nothing()


async def update(request: web.Request) -> web.Response:
    """`POST /containers/{name}/update`."""
    changes = asked.read_update(await body(request, HostConfig))
    warnings = await request.app[ENGINE].containers.update(_name(request), changes)
    return reply({"Warnings": warnings})


@streaming
async def wait(request: web.Request) -> web.StreamResponse:
    """`POST /containers/{name}/wait`: the headers say that waiting has begun, the body that it is over."""
    condition = request.query.get("condition", "") if version(request) >= (1, 30) else ""
    waiter = request.app[ENGINE].containers.waiter(_name(request), condition)
    try:
        async with JsonStream(request) as stream:
            ended = await asyncio.shield(waiter)
            answer: dict[str, Any] = {"StatusCode": ended.code}
            if ended.error:
                answer["Error"] = {"Message": ended.error}
            await stream.send(answer)
    finally:
        waiter.cancel()
    return stream.response


async def remove(request: web.Request) -> web.Response:
    """`DELETE /containers/{name}`."""
    if flag(request, "link"):
        raise Unsupported("removing a legacy link is not offered: remove and create the container without it")
    await request.app[ENGINE].containers.remove(
        _name(request), force=flag(request, "force"), volumes=flag(request, "v")
    )
    return nothing()


async def prune(request: web.Request) -> web.Response:
    """`POST /containers/prune`."""
    engine = request.app[ENGINE]
    wanted = filters(request, selection.PRUNE_ACCEPTED)
    removed, freed = await engine.containers.prune(selection.select_for_prune(engine.containers.list(), wanted))
    engine.events.publish("container", "prune", "", {"reclaimed": str(freed)})
    return reply({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


async def resize(request: web.Request) -> web.Response:
    """`POST /containers/{name}/resize`."""
    await request.app[ENGINE].containers.resize(_name(request), terminal_size(request))
    return nothing(200)


def terminal_size(request: web.Request) -> TerminalSize:
    """The parameters `h` and `w`. Raises InvalidArgument when one is missing or out of range."""
    rows, columns = number(request, "h"), number(request, "w")
    if rows is None or columns is None or not (0 <= rows <= 65535 and 0 <= columns <= 65535):
        raise InvalidArgument("invalid terminal size: h and w must be numbers from 0 to 65535")
    return TerminalSize(rows=rows, columns=columns)


async def top(request: web.Request) -> web.Response:
    """`GET /containers/{name}/top`."""
    try:
        arguments = shlex.split(request.query.get("ps_args") or "-ef")
    except ValueError as error:
        raise InvalidArgument(f"invalid ps_args: {error}") from error
    titles, rows = await request.app[ENGINE].containers.top(_name(request), arguments)
    return reply({"Titles": titles, "Processes": rows})


async def changes(request: web.Request) -> web.Response:
    """`GET /containers/{name}/changes`."""
    found = await request.app[ENGINE].containers.changes(_name(request))
    return reply([{"Path": path, "Kind": kind} for kind, path in found] or None)


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    one = "/containers/{name}"
    return [
        web.get("/containers/json", list_containers),
        web.post("/containers/create", create),
        web.post("/containers/prune", prune),
        web.get(f"{one}/json", inspect),
        web.get(f"{one}/top", top),
        web.get(f"{one}/changes", changes),
        web.post(f"{one}/start", start),
        web.post(f"{one}/stop", stop),
        web.post(f"{one}/restart", restart),
        web.post(f"{one}/kill", kill),
        web.post(f"{one}/pause", pause),
        web.post(f"{one}/unpause", unpause),
        web.post(f"{one}/rename", rename),
        web.post(f"{one}/update", update),
        web.post(f"{one}/wait", wait),
        web.post(f"{one}/resize", resize),
        web.delete(one, remove),
    ]
