"""Images: list, inspect, history, tag, remove, prune, archives, registries."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from bastide.api.docker.image_filters import Selection
from bastide.api.http import ENGINE, body, filters, flag, nothing, reply, streaming, version
from bastide.api.times import SECOND, epoch
from bastide.engine.archives import ImportRequest, Progress
from bastide.images.auth import Credentials
from bastide.images.reference import parse
from bastide.model.errors import BastideError, InvalidArgument, Unsupported

_BLOCK = 256 << 10
_LIST_FILTERS = frozenset(("before", "dangling", "label", "reference", "since", "until"))
_PRUNE_FILTERS = frozenset(("dangling", "label", "label!", "until"))
_NO_CONTAINER = dict.fromkeys(("Hostname", "Domainname", "User", "Image", "WorkingDir"), "") | {
    **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"), False),
    **dict.fromkeys(("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels")),
}
"""The container that an image was committed from, for images that come from none."""
_encode = msgspec.json.Encoder().encode


def credentials(request: web.Request) -> Credentials | None:
    """The `X-Registry-Auth` header: URL-safe base64 of JSON. What is malformed counts as none, as in Docker."""
    header = request.headers.get("X-Registry-Auth", "")
    if not header:
        return None
    try:
        data = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        found = msgspec.json.decode(data, type=Credentials)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return None
    return None if found.empty else found


# -- look ----------------------------------------------------------------------------------------


def _seconds(stamp: str) -> int:
    return max(0, epoch(stamp) // SECOND) if stamp and not stamp.startswith("0001") else 0


async def listing(request: web.Request) -> web.Response:
    """`GET /images/json`."""
    images = request.app[ENGINE].images
    wanted = filters(request, _LIST_FILTERS)
    if version(request) < (1, 41) and (old := request.query.get("filter")):
        wanted.setdefault("reference", []).append(old)
    selection = Selection(images, wanted)
    rows = []
    for image in images.list():
        chosen = selection.names(image)
        if chosen is None:
            continue
        tags, digests = chosen
        row: dict[str, Any] = {
            "Id": image.id,
            "ParentId": "",
            "RepoTags": tags,
            "RepoDigests": digests,
            "Created": _seconds(image.created),
            "Size": image.size,
            "SharedSize": images.shared_size(image) if flag(request, "shared-size") else -1,
            "Labels": image.config.labels,
            "Containers": len(images.users(image.id)) if flag(request, "shared-size") else -1,
        }
        if version(request) < (1, 43) and not tags and not digests:
            row |= {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
        if version(request) < (1, 44):
            row["VirtualSize"] = image.size
        rows.append(row)
    return reply(rows)


async def inspect(request: web.Request) -> web.Response:
    """`GET /images/{name}/json`."""
    images = request.app[ENGINE].images
    image = images.get(request.match_info["name"])
    config = images.configuration(image)
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": images.references(image.id),
        "RepoDigests": images.digests(image.id),
        "Parent": "",
        "Comment": config.comment or (image.history[-1].comment or "" if image.history else ""),
        "Created": image.created,
        "DockerVersion": config.docker_version,
        "Author": image.author,
        "Config": image.config,
        "Architecture": image.platform.architecture,
        "Os": image.platform.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": images.tagged_at(image.id) or "0001-01-01T00:00:00Z"},
        "Descriptor": image.target,
        "Manifest": image.manifest,
        "Verified": image.verified,
        "InsecureOptions": image.insecure_options,
        "Referrers": [referrer.descriptor for referrer in images.referrers(image)],
    }
    if image.platform.variant:
        shown["Variant"] = image.platform.variant
    if version(request) < (1, 44):
        shown["VirtualSize"] = image.size
    if version(request) < (1, 45):
        shown |= {"ContainerConfig": config.container_config or _NO_CONTAINER}
        shown |= {"Container": config.container} if config.container else {}
    return reply(shown)


async def history(request: web.Request) -> web.Response:
    """`GET /images/{name}/history`."""
    steps = request.app[ENGINE].images.history(request.match_info["name"])
    return reply(
        [
            {
                "Id": step.id,
                "Created": _seconds(step.created),
                "CreatedBy": step.created_by,
                "Tags": step.tags or None,
                "Size": step.size,
                "Comment": step.comment,
            }
            for step in steps
        ]
    )


# -- names and removal ---------------------------------------------------------------------------


async def tag(request: web.Request) -> web.Response:
    """`POST /images/{name}/tag`."""
    images = request.app[ENGINE].images
    images.tag(request.match_info["name"], request.query.get("repo", ""), request.query.get("tag", ""))
    return nothing(201)


async def remove(request: web.Request) -> web.Response:
    """`DELETE /images/{name}`."""
    images = request.app[ENGINE].images
    return reply(await images.remove(request.match_info["name"], force=flag(request, "force")))


async def prune(request: web.Request) -> web.Response:
    """`POST /images/prune`."""
    images = request.app[ENGINE].images
    wanted = filters(request, _PRUNE_FILTERS)
    dangling = wanted.pop("dangling", ["true"])
    every = dangling[-1].lower() in ("0", "false")
    selection = Selection(images, wanted)
    done, freed = await images.prune(every=every, keep=lambda image: not selection.matches(image))
    return reply({"ImagesDeleted": done or None, "SpaceReclaimed": freed})


# -- streams of messages -------------------------------------------------------------------------


class _Messages:
    """Docker's progress messages to one client. Before the first one, an error is still an answer of its own."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._waiting: list[dict[str, Any]] = []
        self._ready = asyncio.Event()
        self.response: web.StreamResponse | None = None

    def add(self, message: dict[str, Any]) -> None:
        """One more message; it is sent soon."""
        self._waiting.append(message)
        self._ready.set()

    async def _flush(self) -> None:
        self._ready.clear()
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        if self.response is None:
            self.response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await self.response.prepare(self._request)
        await self.response.write(b"".join(_encode(message) + b"\r\n" for message in waiting))

    async def _forward(self) -> None:
        while True:
            await self._ready.wait()
            await self._flush()

    async def run(self, work: Awaitable[Any]) -> web.StreamResponse:
        """Send what `work` reports until it ends; its error becomes the last message, or the answer."""
        forward = asyncio.create_task(self._forward())
        try:
            try:
                await work
            except BastideError as error:
                if self.response is None and not self._waiting:
                    raise
                self.add({"errorDetail": {"message": error.message}, "error": error.message})
        finally:
            forward.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await forward
        await self._flush()
        if self.response is None:
            return web.Response(status=200, content_type="application/json")
        await self.response.write_eof()
        return self.response


async def _report(request: web.Request, work: Callable[[Progress], Awaitable[Any]]) -> web.StreamResponse:
    messages = _Messages(request)
    return await messages.run(work(messages.add))


@streaming
async def create(request: web.Request) -> web.StreamResponse:
    """`POST /images/create`: pull (`fromImage`) or import (`fromSrc`)."""
    images = request.app[ENGINE].images
    query = request.query
    if name := query.get("fromImage", ""):
        reference = parse(name)
        tag = query.get("tag", "")
        if tag:
            reference = reference.with_digest(tag) if tag.startswith("sha256:") else reference.with_tag(tag)
        platform, auth = query.get("platform", ""), credentials(request)
        insecure = [word for value in query.getall("insecure-options", []) for word in value.split(",") if word]
        # As in Docker, no tag at all means every tag: clients send `latest` when they mean that.
        pull = images.pull_any if reference.tag or reference.digest else images.pull_tags
        referrers = flag(request, "referrers")
        return await _report(request, lambda report: pull(reference, platform, auth, report, insecure, referrers))
    source = query.get("fromSrc", "")
    if not source:
        raise InvalidArgument("nothing to create an image from: fromImage or fromSrc is needed")
    if source != "-":
        raise Unsupported("an image is imported from the request's body only: fetch the archive first, then give '-'")
    wanted = ImportRequest(
        repository=query.get("repo", ""),
        tag=query.get("tag", ""),
        message=query.get("message", ""),
        changes=query.getall("changes", []),
        platform=query.get("platform", ""),
    )
    data = request.content.iter_chunked(_BLOCK)
    return await _report(request, lambda report: images.import_root(data, wanted, report))


@streaming
async def load(request: web.Request) -> web.StreamResponse:
    """`POST /images/load`."""
    images = request.app[ENGINE].images
    quiet = flag(request, "quiet")
    data = request.content.iter_chunked(_BLOCK)

    async def work(report: Progress) -> None:
        await images.load(data, lambda message: None if quiet and "progressDetail" in message else report(message))

    return await _report(request, work)


@streaming
async def push(request: web.Request) -> web.StreamResponse:
    """`POST /images/{name}/push`."""
    images = request.app[ENGINE].images
    name, tag, auth = request.match_info["name"], request.query.get("tag", ""), credentials(request)
    return await _report(request, lambda report: images.push(name, tag, auth, report))


# -- archives ------------------------------------------------------------------------------------


async def _send(request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send a tar stream. What fails before its first piece is still an answer of its own."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    async with aclosing(pieces) as source:  # type: ignore[type-var]
        first = await anext(source, b"")
        await response.prepare(request)
        await response.write(first)
        async for piece in source:
            await response.write(piece)
    await response.write_eof()
    return response


@streaming
async def save_one(request: web.Request) -> web.StreamResponse:
    """`GET /images/{name}/get`."""
    return await _send(request, request.app[ENGINE].images.save([request.match_info["name"]]))


@streaming
async def save_many(request: web.Request) -> web.StreamResponse:
    """`GET /images/get`; `names` is repeated, or a list with commas."""
    names = [name for value in request.query.getall("names", []) for name in value.split(",") if name]
    if not names:
        raise InvalidArgument("no image was named: names is needed")
    return await _send(request, request.app[ENGINE].images.save(names))


# -- registries ----------------------------------------------------------------------------------


async def login(request: web.Request) -> web.Response:
    """`POST /auth`: whether a registry takes these credentials."""
    given = await body(request, Credentials)
    token = await request.app[ENGINE].images.login(given)
    return reply({"Status": "Login Succeeded", "IdentityToken": token})


async def distribution(request: web.Request) -> web.Response:
    """`GET /distribution/{name}/json`: what a registry says about a reference."""
    found = await request.app[ENGINE].images.inspect_remote(request.match_info["name"], credentials(request))
    platforms = [
        {"architecture": p.architecture, "os": p.os, **({"variant": p.variant} if p.variant else {})}
        for p in found.platforms
    ]
    return reply({"Descriptor": found.descriptor, "Platforms": platforms})


async def search(request: web.Request) -> web.Response:
    """`GET /images/search`: what a registry that can search finds."""
    term = request.query.get("term", "")
    if not term:
        raise InvalidArgument("a search term is needed")
    images = request.app[ENGINE].images
    return reply(await images.search(term, request.query.get("limit", ""), filters(request), credentials(request)))


def routes() -> list[web.RouteDef]:
    """Everything below `/images`, and what clients ask a daemon about registries."""
    return [
        web.get("/images/json", listing, allow_head=False),
        web.get("/images/search", search, allow_head=False),
        web.get("/images/get", save_many, allow_head=False),
        web.post("/images/create", create),
        web.post("/images/load", load),
        web.post("/images/prune", prune),
        web.get("/images/{name:.+}/json", inspect, allow_head=False),
        web.get("/images/{name:.+}/history", history, allow_head=False),
        web.get("/images/{name:.+}/get", save_one, allow_head=False),
        web.post("/images/{name:.+}/tag", tag),
        web.post("/images/{name:.+}/push", push),
        web.delete("/images/{name:.+}", remove),
        web.post("/auth", login),
        web.get("/distribution/{name:.+}/json", distribution, allow_head=False),
    ]
