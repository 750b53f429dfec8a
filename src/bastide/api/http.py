"""What every handler needs of HTTP: the engine, the request's body and query, the answer.

A handler is `async def start(request: web.Request) -> web.StreamResponse`. It takes the engine from
`request.app[ENGINE]`, raises bastide's errors and never builds an error answer itself. It runs to its
end even when the client goes away; one marked `@streaming` is cancelled then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from aiohttp import web

from bastide.api.nulls import without_nulls
from bastide.model.errors import InvalidArgument, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from bastide.engine.engine import Engine

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ENGINE: web.AppKey[Engine] = web.AppKey("engine")
"""Where an application keeps its engine."""

VERSION: web.RequestKey[tuple[int, int]] = web.RequestKey("version", tuple[int, int])
"""Where a request keeps the API version that it names."""
EXPOSED: web.RequestKey[bool] = web.RequestKey("exposed", bool)
"""Set on a request that came where a browser could reach: TCP without TLS."""
BEGUN: web.RequestKey[bool] = web.RequestKey("begun", bool)
"""Set once the answer's head is on its way."""

OLDEST, NEWEST = (1, 24), (1, 47)
"""The API versions that are spoken."""

BODY_LIMIT = 4 << 20
"""Bytes that a JSON body may have."""
BODY_SECONDS = 60.0
"""How long a client may take to send one."""

_ENCODER = msgspec.json.Encoder()
_FALSE = frozenset(("", "0", "no", "false", "none"))


def streaming(handler: Handler) -> Handler:
    """Mark a handler that is of no use without its client: it is cancelled when the client goes away."""
    handler.streaming = True  # type: ignore[attr-defined]
    return handler


def version(request: web.Request) -> tuple[int, int]:
    """The API version that the client asked for; the newest when it named none."""
    found: tuple[int, int] = request.get(VERSION, NEWEST)
    return found


async def raw_body(request: web.Request) -> bytes:
    """The whole body. Raises ResourceExhausted above `BODY_LIMIT`, Unavailable when it takes too long."""
    if not request.can_read_body:
        return b""
    received = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                received += chunk
                if len(received) > BODY_LIMIT:
                    raise ResourceExhausted(f"request body too large: at most {BODY_LIMIT} bytes are taken")
    except TimeoutError:
        raise Unavailable(f"the request's body did not arrive within {BODY_SECONDS:.0f} s") from None
    return bytes(received)


async def body(request: web.Request, kind: type[T], default: T | None = None) -> T:
    """The JSON body as `kind`; `default` when the body is empty. Raises InvalidArgument in Docker's words.

    As in Go, unknown fields are passed over and a null is a field that was left out.
    """
    data = await raw_body(request)
    if not data.strip():
        if default is not None:
            return default
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    if request.content_type != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({request.content_type}): must be 'application/json'")
    return decode(data, kind)


def decode(data: bytes, kind: type[T]) -> T:
    """A JSON document as `kind`. Raises InvalidArgument."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as first:
        try:
            return msgspec.convert(without_nulls(msgspec.json.decode(data), kind), kind)
        except (msgspec.MsgspecError, RecursionError):
            raise InvalidArgument(f"invalid JSON: {first}") from first
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid JSON: {error}") from error


def reply(value: Any, status: int = 200) -> web.Response:
    """An answer of `value` (a msgspec type or plain data) as JSON, with a newline as Go's encoder writes it."""
    return web.Response(
        status=status, body=_ENCODER.encode(value) + b"\n", headers={"Content-Type": "application/json"}
    )


def nothing(status: int = 204) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status)


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A query parameter as Docker reads a truth value: absent is `default`; "", 0, no, false, none are false."""
    value = request.query.get(name)
    return default if value is None else value.strip().lower() not in _FALSE


def number(request: web.Request, name: str) -> int | None:
    """A query parameter as a whole number, None when it is absent or empty. Raises InvalidArgument."""
    value = request.query.get(name, "")
    if not value:
        return None
    try:
        return int(value)
    except ValueError:
        raise InvalidArgument(f'invalid value for {name}: "{value}" is not a number') from None


def filters(request: web.Request, accepted: frozenset[str] | None = None) -> dict[str, list[str]]:
    """The `filters` parameter: names to values. Both of Docker's forms are read, lists and maps to true.

    Raises InvalidArgument for anything else and for names that are not `accepted`.
    """
    text = request.query.get("filters", "")
    if not text:
        return {}
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise InvalidArgument("invalid filter: filters must be a JSON object")
    result: dict[str, list[str]] = {}
    for name, values in raw.items():
        if isinstance(values, dict):
            chosen = [value for value, wanted in values.items() if wanted]
        elif isinstance(values, list) and all(isinstance(value, str) for value in values):
            chosen = list(values)
        else:
            raise InvalidArgument(f"invalid filter '{name}': values must be a list of strings")
        if accepted is not None and name not in accepted:
            raise InvalidArgument(f"invalid filter '{name}'")
        if chosen:
            result[name] = chosen
    return result
