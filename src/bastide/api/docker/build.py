"""Building: a context in the body, Docker's messages in the answer; and the cache that builds leave.

The parameters are the Docker Engine API's for the classic builder (1.47, ImageBuild). Beyond them,
`secrets` names values that were sent before with `POST /build/secrets`, and `ssh` gives sockets of agents
(`ID=PATH`): what a Dockerfile's `RUN --mount=type=secret` and `type=ssh` ask for. `compression` chooses the
layers' form (`gzip`, `zstd`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from typing import Any

import msgspec
from aiohttp import web

from bastide.api.http import ENGINE, body, filters, flag, number, reply, streaming
from bastide.engine.build.options import DEFAULT_NAME, Options
from bastide.engine.build.output import Output
from bastide.engine.build.running import StepFailed
from bastide.model.container import Ulimit
from bastide.model.errors import BastideError, InvalidArgument, Unsupported
from bastide.model.image import Image

_BLOCK = 256 << 10
_encode = msgspec.json.Encoder().encode


def _json(request: web.Request, name: str, kind: Any) -> Any:
    """A parameter that holds JSON, None when it is absent or null. Raises InvalidArgument."""
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind | None)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"error reading {name}: {error}") from error


def _many(request: web.Request, name: str) -> list[str]:
    """A parameter that is repeated, or one JSON list."""
    values = request.query.getall(name, [])
    if len(values) == 1 and values[0].startswith("["):
        return list(_json(request, name, list[str]) or [])
    return [value for value in values if value]


def _credentials(request: web.Request) -> dict[str, dict[str, str]]:
    """The `X-Registry-Config` header: base64 of JSON, credentials by registry. What is malformed counts as none."""
    header = request.headers.get("X-Registry-Config", "")
    try:
        data = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        found: dict[str, dict[str, str]] = msgspec.json.decode(data, type=dict[str, dict[str, str]])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return {}
    return found


def _agents(request: web.Request) -> dict[str, str]:
    found = {}
    for entry in _many(request, "ssh"):
        name, _, path = entry.partition("=")
        if not path.startswith("/"):
            raise InvalidArgument(f"invalid ssh {entry!r}: ID=PATH of an agent's socket is needed")
        found[name] = path
    return found


def _refuse(request: web.Request) -> None:
    """What is refused by name. Raises Unsupported."""
    if request.query.get("version", "1") not in ("", "1"):
        raise Unsupported("BuildKit is not offered by this engine: set DOCKER_BUILDKIT=0")
    if request.query.get("session"):
        raise Unsupported("BuildKit sessions are not offered by this engine: set DOCKER_BUILDKIT=0")
    if request.query.get("outputs", "") not in ("", "[]", "null"):
        raise Unsupported("build outputs other than an image are not offered")


def _isolation(request: web.Request) -> str:
    """The wall around steps; Docker's `default` is none asked for."""
    value = request.query.get("isolation", "")
    return "" if value == "default" else value


def _options(request: web.Request) -> Options:
    """Everything that a request asks for. Raises InvalidArgument, Unsupported."""
    _refuse(request)
    query = request.query
    return Options(
        dockerfile=query.get("dockerfile", "") or DEFAULT_NAME,
        tags=_many(request, "t"),
        remote=query.get("remote", ""),
        quiet=flag(request, "q"),
        no_cache=flag(request, "nocache"),
        cache_from=_many(request, "cachefrom"),
        pull=flag(request, "pull"),
        memory=number(request, "memory") or 0,
        memory_swap=number(request, "memswap") or 0,
        cpu_shares=number(request, "cpushares") or 0,
        cpuset_cpus=query.get("cpusetcpus", ""),
        cpuset_mems=query.get("cpusetmems", ""),
        cpu_period=number(request, "cpuperiod") or 0,
        cpu_quota=number(request, "cpuquota") or 0,
        shm_size=number(request, "shmsize") or 0,
        ulimits=_json(request, "ulimits", list[Ulimit]) or [],
        cgroup_parent=query.get("cgroupparent", ""),
        security_options=_many(request, "securityopt"),
        extra_hosts=[host for value in _many(request, "extrahosts") for host in value.split(",") if host],
        network=query.get("networkmode", ""),
        isolation=_isolation(request),
        arguments=_json(request, "buildargs", dict[str, str | None]) or {},
        labels=_json(request, "labels", dict[str, str]) or {},
        squash=flag(request, "squash"),
        platform=query.get("platform", ""),
        target=query.get("target", ""),
        compression=query.get("compression", "gzip"),
        credentials=_credentials(request),
        secrets=request.app[ENGINE].builder.secrets.take(query["secrets"]) if query.get("secrets") else {},
        agents=_agents(request),
    )


@streaming
async def build(request: web.Request) -> web.StreamResponse:
    """`POST /build`. What fails before the first message is an answer of its own."""
    options = _options(request)
    output = Output()
    builder = request.app[ENGINE].builder
    work = asyncio.create_task(builder.build(options, request.content.iter_chunked(_BLOCK), output))
    try:
        return await (_quietly if options.quiet else _loudly)(request, output, work)
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, BastideError):
            await work


async def _begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    return response


async def _loudly(request: web.Request, output: Output, work: asyncio.Task[Image]) -> web.StreamResponse:
    response: web.StreamResponse | None = None
    async for message in output:
        response = response or await _begin(request)
        await response.write(_encode(message) + b"\r\n")
    try:
        await work
    except BastideError as error:
        if response is None:
            raise
        await response.write(_encode(_failure(error)) + b"\r\n")
    response = response or await _begin(request)
    await response.write_eof()
    return response


async def _quietly(request: web.Request, output: Output, work: asyncio.Task[Image]) -> web.StreamResponse:
    """Only the id, or everything that was said and the error."""
    said = [message async for message in output]
    try:
        last: list[dict[str, Any]] = [{"stream": f"{(await work).id}\n"}]
    except BastideError as error:
        if not said:
            raise
        last = [*said, _failure(error)]
    response = await _begin(request)
    await response.write(b"".join(_encode(message) + b"\r\n" for message in last))
    await response.write_eof()
    return response


def _failure(error: BastideError) -> dict[str, Any]:
    detail: dict[str, Any] = {"message": error.message}
    if isinstance(error, StepFailed):
        detail["code"] = error.code
    return {"errorDetail": detail, "error": error.message}


async def keep_secrets(request: web.Request) -> web.Response:
    """`POST /build/secrets`: values (base64) by id, kept in memory for the one build that names the answer's `Id`."""
    given = await body(request, dict[str, bytes])
    return reply({"Id": request.app[ENGINE].builder.secrets.put(given)}, 201)


async def prune(request: web.Request) -> web.Response:
    """`POST /build/prune`."""
    keep = number(request, "keep-storage") or number(request, "reserved-space") or 0
    engine = request.app[ENGINE]
    gone, freed = await engine.builder.prune(every=flag(request, "all"), keep_bytes=keep, filters=filters(request))
    engine.events.publish("builder", "prune", "", {"reclaimed": str(freed)})
    return reply({"CachesDeleted": list(gone) or None, "SpaceReclaimed": freed})


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    return [
        web.post("/build", build),
        web.post("/build/secrets", keep_secrets),
        web.post("/build/prune", prune),
    ]
