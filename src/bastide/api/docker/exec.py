"""More processes in a container: create, start, look at, resize."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from aiohttp import web

from bastide.api import detach, hijack
from bastide.api.docker import versions
from bastide.api.docker.containers import terminal_size
from bastide.api.http import ENGINE, body, nothing, reply, streaming, version
from bastide.engine.execs import Exec, ExecConfig
from bastide.model.errors import BastideError, Conflict, InvalidArgument
from bastide.model.process import TerminalSize
from bastide.model.wire import Wire
from bastide.runtime import Stdio, Stream


class ExecStart(Wire, frozen=True, kw_only=True):
    """The body of a start; the console's size is height and width."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


class _Complaint(Stdio):
    """The streams of a process that could not be run: one line of why."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        yield Stream.STDOUT, self._text.encode() + b"\r\n"

    async def write(self, data: bytes) -> None:
        return

    async def close_stdin(self) -> None:
        return

    async def close(self) -> None:
        return


async def create(request: web.Request) -> web.Response:
    """`POST /containers/{name}/exec`."""
    config = versions.exec_config(version(request), await body(request, ExecConfig))
    detach.parse(config.detach_keys)
    return reply({"Id": request.app[ENGINE].execs.create(request.match_info["name"], config)}, 201)


def _size(asked: ExecStart, version: tuple[int, int]) -> TerminalSize | None:
    """The console's size, which a start may say since 1.42."""
    size = asked.console_size
    if not size or version < (1, 42):
        return None
    if not asked.tty:
        raise InvalidArgument("console size is only supported when tty is set")
    if len(size) != 2 or not all(0 <= value <= 65535 for value in size):
        raise InvalidArgument("invalid console size: height and width must be numbers from 0 to 65535")
    return TerminalSize(rows=size[0], columns=size[1]) if all(size) else None


def _check_startable(request: web.Request, made: Exec) -> None:
    """What can still be refused as HTTP, before the connection is a stream. Raises Conflict, NotFound."""
    if made.running or made.exit_code is not None:
        raise Conflict(f"Error: Exec command {made.id} is already running")
    container = request.app[ENGINE].containers.get(made.container)
    if not container.state.running:
        raise Conflict(f"container {container.id} is not running")


@streaming
async def start(request: web.Request) -> web.StreamResponse:
    """`POST /exec/{id}/start`.

    The connection is a stream before the process runs, as with Docker: what the process writes at once
    must not reach a client together with the answer's head, which some read into a buffer of its own.
    """
    execs = request.app[ENGINE].execs
    asked = await body(request, ExecStart, ExecStart())
    made = execs.get(request.match_info["id"])
    size = _size(asked, version(request))
    _check_startable(request, made)
    if asked.detach:
        await execs.start(made.id, detach=True, size=size)
        return nothing(200)
    config = made.config
    wanted = hijack.Wanted(
        stdin=config.attach_stdin,
        stdout=config.attach_stdout,
        stderr=config.attach_stderr,
        terminal=config.tty,
        detach=detach.parse(config.detach_keys),
    )
    taking = hijack.Taking(request, hijack.content_type(request, terminal=config.tty))
    stdio: Stdio | None
    try:
        stdio = await _kept(execs.start(made.id, detach=False, size=size))
    except BastideError as error:
        # As Docker does: the client has its stream, and learns the exit code from the exec's record.
        stdio = _Complaint(error.message)
    except BaseException:
        taking.drop()
        raise
    taken = await hijack.join(taking, stdio or _Complaint(""), wanted)
    if taken.detached:
        execs.detached(made.id)
    return taken


async def _kept(starting: Coroutine[Any, Any, Stdio | None]) -> Stdio | None:
    """Let a start come to its end even when the client goes away meanwhile; nobody reads its streams then."""
    work = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_let_go)
        raise


def _let_go(work: asyncio.Future[Stdio | None]) -> None:
    stdio = None if work.cancelled() or work.exception() else work.result()
    if stdio is not None:
        _closing.add(task := asyncio.ensure_future(stdio.close()))
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()


def _shown(made: Exec) -> dict[str, Any]:
    """The Docker Engine API 1.47, `ContainerExecInspect`."""
    words = made.config.cmd or [""]
    process: dict[str, Any] = {
        "tty": made.config.tty,
        "entrypoint": words[0],
        "arguments": words[1:],
        "privileged": made.config.privileged,
    }
    if made.config.user:
        process["user"] = made.config.user
    if made.config.working_dir:
        process["workingDir"] = made.config.working_dir
    return {
        "ID": made.id,
        "Running": made.running,
        "ExitCode": made.exit_code,
        "ProcessConfig": process,
        "OpenStdin": made.config.attach_stdin,
        "OpenStderr": made.config.attach_stderr,
        "OpenStdout": made.config.attach_stdout,
        "CanRemove": False,
        "ContainerID": made.container,
        "DetachKeys": made.config.detach_keys,
        "Pid": made.pid,
    }


async def inspect(request: web.Request) -> web.Response:
    """`GET /exec/{id}/json`."""
    return reply(_shown(request.app[ENGINE].execs.get(request.match_info["id"])))


async def resize(request: web.Request) -> web.Response:
    """`POST /exec/{id}/resize`."""
    await request.app[ENGINE].execs.resize(request.match_info["id"], terminal_size(request))
    return nothing(200)


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    return [
        web.post("/containers/{name}/exec", create),
        web.post("/exec/{id}/start", start),
        web.get("/exec/{id}/json", inspect),
        web.post("/exec/{id}/resize", resize),
    ]
