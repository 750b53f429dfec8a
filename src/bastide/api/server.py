"""The HTTP server: listeners, the `/vX.Y` prefix, headers, refusals; the routes are in `docker/` and `native/`."""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
import re
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion10, web
from aiohttp.http_parser import RawRequestMessage
from yarl import URL

import bastide
from bastide.api import browsers, docker, errors, native
from bastide.api.connection import Connection, ConnectionServer
from bastide.api.http import BEGUN, ENGINE, EXPOSED, NEWEST, OLDEST, VERSION, Handler
from bastide.host.syscalls import wrap
from bastide.model.config import Settings
from bastide.model.errors import BastideError, InvalidArgument

if TYPE_CHECKING:
    from bastide.engine.engine import Engine

log = logging.getLogger("bastide.api")

_PREFIX = re.compile(r"/v(\d{1,3})\.(\d{1,3})(?=/)")
_LINE_LIMIT = 1 << 16
"""Bytes of a request line and of a header: filters and registry credentials can be long."""
_IDLE_UNIX, _IDLE_TCP = 3600.0, 300.0
"""Seconds that a connection may be silent, or take for a request's head."""

HEADERS = {
    "Api-Version": ".".join(map(str, NEWEST)),
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"Bastide/{bastide.__version__} (linux)",
}


def load_routes() -> list[web.RouteDef]:
    """The routes of every module in `docker` and `native` that has `routes()`."""
    found: list[web.RouteDef] = []
    for package in (docker, native):
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            if hasattr(module, "routes"):
                found += module.routes()
    return found


def _kept(handler: Handler) -> Handler:
    """`handler` so that it runs to its end whether or not the client stays."""

    async def run(request: web.Request) -> web.StreamResponse:
        work = asyncio.ensure_future(handler(request))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(_settled)
            raise

    return run


def _following(handler: Handler) -> Handler:
    """`handler` so that the end of its client, or of the server, is its own."""

    async def run(request: web.Request) -> web.StreamResponse:
        if isinstance(request.protocol, Connection):
            request.protocol.following = asyncio.current_task()
        return await handler(request)

    return run


def _settled(work: asyncio.Future[web.StreamResponse]) -> None:
    """Hear the error of work whose client has gone."""
    if not work.cancelled() and (error := work.exception()) is not None:
        log.debug("a call whose client has gone: %s", error)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = True
    response.headers.update(HEADERS)


def make_application(engine: Engine, routes: list[web.RouteDef] | None = None) -> web.Application:
    """The application: every route, guarded."""
    application = web.Application(middlewares=[_guard])
    application[ENGINE] = engine
    for route in load_routes() if routes is None else routes:
        handler: Any = route.handler
        kept = _following(handler) if getattr(handler, "streaming", False) else _kept(handler)
        web.RouteDef(route.method, route.path, kept, route.kwargs).register(application.router)
    application.on_response_prepare.append(_add_headers)
    return application


def _check_version(request: web.Request) -> None:
    """Raise InvalidArgument, in Docker's words, for a version that is not spoken."""
    asked = request.get(VERSION)
    if asked is None or OLDEST <= asked <= NEWEST:
        return
    named, least, most = (f"{major}.{minor}" for major, minor in (asked, OLDEST, NEWEST))
    if asked > NEWEST:
        raise InvalidArgument(f"client version {named} is too new. Maximum supported API version is {most}")
    raise InvalidArgument(
        f"client version {named} is too old. Minimum supported API version is {least}, please upgrade your "
        "client to a newer version"
    )


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run a handler; whatever it raises becomes an answer of one line."""
    begun = time.monotonic()
    if request.version < HttpVersion10:
        return _abandon(request)  # HTTP/0.9 has no headers to judge a request by
    try:
        _check_version(request)
        browsers.check(request)
        response = await handler(request)
    except BastideError as error:
        response = _refuse(request, errors.answer(error))
    except web.HTTPRequestEntityTooLarge:
        response = _refuse(request, errors.refusal(413, "request body too large"))
    except web.HTTPException as error:
        known = error.status not in (404, 405)
        text = (error.text or error.reason) if known else "page not found"
        response = _refuse(request, errors.refusal(error.status if known else 404, text))
    except ConnectionError:
        response = _abandon(request)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        response = _refuse(request, errors.refusal(500, "internal error: see the daemon's log"))
    finally:
        if isinstance(request.protocol, Connection):
            request.protocol.release()
    if log.isEnabledFor(logging.DEBUG):
        spent = (time.monotonic() - begun) * 1000
        log.debug("%s %s %d %.1f ms", request.method, request.path_qs, response.status, spent)
    return response


def _refuse(request: web.Request, refusal: web.Response) -> web.Response:
    """Answer with a refusal, unless the answer has begun: then only breaking off tells the client."""
    return _abandon(request) if request.get(BEGUN) and request.transport is not None else refusal


def _abandon(request: web.Request) -> web.Response:
    """End a connection whose client has gone, or whose answer cannot be ended well. What is given reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


class Server:
    """The API of one engine on any number of sockets; `routes` are all there are unless some are given."""

    def __init__(self, engine: Engine, settings: Settings, routes: list[web.RouteDef] | None = None) -> None:
        self._engine, self._settings = engine, settings
        self._listeners: list[asyncio.Server] = []
        self._servers: list[ConnectionServer] = []
        self._application = make_application(engine, routes)

    async def start(self, sockets: list[socket.socket]) -> None:
        """Serve on listening sockets, and on TCP where the settings say so. Raises InvalidArgument, HostError."""
        self._application.freeze()
        await self._application.startup()
        loop = asyncio.get_running_loop()
        # What may be refused comes first: nobody has been answered by a daemon that does not stay.
        if self._settings.tcp:
            host, _, port = self._settings.tcp.rpartition(":")
            if not port.isdecimal():
                raise InvalidArgument(f"tcp = {self._settings.tcp!r}: must be HOST:PORT")
            await self._listen_tcp(host=host.strip("[]") or None, port=int(port))
        for listening in sockets:
            server = self._server(_IDLE_UNIX, exposed=False)
            if listening.family == socket.AF_UNIX:
                self._listeners.append(await loop.create_unix_server(server, sock=listening, backlog=1024))
            else:
                await self._listen_tcp(sock=listening)

    async def _listen_tcp(self, **where: Any) -> None:
        context = None if self._settings.insecure_tcp else tls_context(self._settings)
        server = self._server(_IDLE_TCP, exposed=context is None)
        if context is None:
            log.warning("the API is on TCP without TLS: whoever reaches it is root on this host")
        try:
            made = await asyncio.get_running_loop().create_server(server, ssl=context, **where)
        except OSError as error:
            raise wrap(error, f"listen on {self._settings.tcp}") from error
        self._listeners.append(made)

    def _server(self, idle: float, *, exposed: bool) -> ConnectionServer:
        application, loop = self._application, asyncio.get_running_loop()

        def request(message: RawRequestMessage, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
            found = _PREFIX.match(message.path)
            if found:
                target = message.path[found.end() :]
                path, _, query = target.partition("?")
                url = URL.build(path=path, query_string=query, encoded=True)
                message = message._replace(path=target, url=url)
            made = web.Request(message, payload, protocol, writer, task, loop, client_max_size=_LINE_LIMIT)
            if found:
                made[VERSION] = (int(found[1]), int(found[2]))
            if exposed:
                made[EXPOSED] = True
            return made

        server = ConnectionServer(
            application._handle,  # type: ignore[arg-type]
            request_factory=request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=idle,
            max_line_size=_LINE_LIMIT,
            max_field_size=_LINE_LIMIT,
            auto_decompress=False,
            lingering_time=2.0,
        )
        self._servers.append(server)
        return server

    @property
    def addresses(self) -> list[Any]:
        """Where the server listens."""
        return [sock.getsockname() for made in self._listeners for sock in made.sockets]

    async def stop(self, grace: float = 5.0) -> None:
        """Take no more connections, cut streams, let other calls end within `grace` seconds."""
        for listener in self._listeners:
            listener.close()
        for server in self._servers:
            for connection in server.connections:
                if isinstance(connection, Connection):
                    connection.cut()
            await server.shutdown(grace)
        await self._application.cleanup()


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Mutual TLS from `ca.pem`, `cert.pem`, `key.pem`: clients show a certificate of that authority.

    Raises InvalidArgument when a file is missing or wrong.
    """
    folder = settings.tls_directory
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(
            f"TCP needs ca.pem, cert.pem and key.pem in {folder} ({error}); to serve TCP without TLS set insecure_tcp"
        ) from error
    return context
