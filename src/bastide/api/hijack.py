"""Streams of a process over a connection that was HTTP: attach and exec, raw and WebSocket.

Framing of output without a terminal: one byte stream number, three zero bytes, four bytes length
(big-endian), then the data. Source: the Docker Engine API 1.47, `ContainerAttach`, "Stream format".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import msgspec
from aiohttp import WSMsgType, web

from bastide.api.connection import Connection
from bastide.api.detach import Detector
from bastide.api.hangup import hung_up
from bastide.api.http import BEGUN, version
from bastide.model.errors import BastideError
from bastide.runtime import Stdio, Stream

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_BLOCK = 64 << 10
_END_SECONDS = 10.0
"""How long a client may take to read the rest once the process has closed its output."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which streams a client wants, and how.

    `terminal`: raw instead of framed; `close_stdin`: the client's end of file reaches the process;
    `detach`: the sequence of bytes that ends the connection and not the process.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    terminal: bool = False
    close_stdin: bool = True
    detach: bytes = b""

    def wants(self, stream: Stream) -> bool:
        """Whether pieces of that stream are sent; a terminal has but one."""
        if self.terminal:
            return self.stdout or self.stderr
        return self.stdout if stream is Stream.STDOUT else self.stderr


def header(stream: Stream, size: int) -> bytes:
    """The eight bytes before a piece of `size` bytes."""
    return stream.to_bytes(1, "big") + b"\0\0\0" + size.to_bytes(4, "big")


def content_type(request: web.Request, *, terminal: bool) -> str:
    """The type of a stream: since 1.42 framed and raw ones are told apart."""
    return MULTIPLEXED if not terminal and version(request) >= (1, 42) else RAW


class _Raw(asyncio.StreamReaderProtocol):
    """The connection after it stopped being HTTP; it still tells aiohttp when it is lost."""

    def __init__(self, reader: asyncio.StreamReader, http: Connection) -> None:
        super().__init__(reader)
        self._http = http

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._http.connection_lost(exc)


class Taken(web.StreamResponse):
    """What a handler returns whose connection is no longer HTTP: nothing more is written."""

    detached = False
    """Whether the client let go by the keys for it."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing."""
        self._keep_alive = False

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing."""

    @property
    def keep_alive(self) -> bool | None:
        """The connection ends here."""
        return False


class Taking:
    """A connection taken over from HTTP: `reader` and `writer` are its raw streams."""

    def __init__(self, request: web.Request, kind: str) -> None:
        """Answer 101 when the client asked for an upgrade, else 200, and leave HTTP.

        Raises ConnectionResetError when the client has gone.
        """
        http, transport = request.protocol, request.transport
        if transport is None or not isinstance(http, Connection):
            raise ConnectionResetError("the client has gone")
        loop = asyncio.get_running_loop()
        self.reader = asyncio.StreamReader(limit=_BLOCK, loop=loop)
        raw = _Raw(self.reader, http)
        transport.set_protocol(raw)
        raw.connection_made(transport)
        http.stream = transport
        held = http.take_held()
        transport.resume_reading()
        if held:
            self.reader.feed_data(held)
        if http.held_eof:
            self.reader.feed_eof()
        self.writer = asyncio.StreamWriter(transport, raw, self.reader, loop)
        if request.headers.get("Upgrade"):
            start = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        else:
            start = "HTTP/1.1 200 OK\r\n"
        request[BEGUN] = True
        self.writer.write(f"{start}Content-Type: {kind}\r\n\r\n".encode())

    async def finish(self) -> Taken:
        """Send the rest, close; gives what the handler returns."""
        with suppress(ConnectionError, OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self.writer.drain()
        self.writer.close()
        return Taken()

    def drop(self) -> None:
        """Close at once."""
        self.writer.close()


async def serve(request: web.Request, stdio: Stdio, wanted: Wanted) -> Taken:
    """Take over a client's connection and join it with a process's streams."""
    try:
        taking = Taking(request, content_type(request, terminal=wanted.terminal))
    except BaseException:
        await stdio.close()
        raise
    return await join(taking, stdio, wanted)


async def join(taking: Taking, stdio: Stdio, wanted: Wanted) -> Taken:
    """Join a taken connection and a process's streams until the output ends or the client detaches."""
    try:
        incoming = asyncio.ensure_future(_incoming(taking.reader, stdio, wanted))
        outgoing = asyncio.ensure_future(_outgoing(taking.writer, stdio, wanted))
        detached = await _until_over(incoming, outgoing, taking.writer.transport)
    except BaseException:
        taking.drop()
        raise
    finally:
        await stdio.close()
    taken = await taking.finish()
    taken.detached = detached
    return taken


async def _until_over(
    incoming: asyncio.Future[bool], outgoing: asyncio.Future[None], transport: asyncio.BaseTransport | None = None
) -> bool:
    """Wait for the end of the output, or for `incoming` to say that the client detached; gives whether it did.

    A client that has ended what it sends still gets the output, unless it has gone.
    """
    try:
        await asyncio.wait((incoming, outgoing), return_when=asyncio.FIRST_COMPLETED)
        if incoming.done() and not outgoing.done():
            if incoming.result():
                return True
            await _rest(outgoing, transport)
        elif outgoing.done():
            outgoing.result()
        return False
    except ConnectionError:
        return False
    finally:
        incoming.cancel()
        outgoing.cancel()
        await asyncio.wait((incoming, outgoing))


async def _rest(outgoing: asyncio.Future[None], transport: asyncio.BaseTransport | None) -> None:
    """Wait for the end of the output, or of the client."""
    if transport is None:
        await outgoing
        return
    gone = asyncio.ensure_future(hung_up(transport))
    try:
        await asyncio.wait((outgoing, gone), return_when=asyncio.FIRST_COMPLETED)
        if outgoing.done():
            outgoing.result()
    finally:
        gone.cancel()
        await asyncio.wait((gone,))


async def _incoming(reader: asyncio.StreamReader, stdio: Stdio, wanted: Wanted) -> bool:
    """Hand the client's bytes to the process. Gives True when the client detached."""
    return await _feed(_blocks(reader), stdio, wanted)


async def _blocks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while data := await reader.read(_BLOCK):
        yield data


async def _feed(blocks: AsyncIterator[bytes], stdio: Stdio, wanted: Wanted) -> bool:
    detector = Detector(wanted.detach) if wanted.detach and wanted.terminal else None
    writing = wanted.stdin
    async for data in blocks:
        if not writing:
            continue
        if detector is not None:
            data = detector.feed(data)
        try:
            if data:
                await stdio.write(data)
        except (BastideError, ConnectionError):
            # The process reads no more: what else comes is dropped, its output still counts.
            writing = False
        if detector is not None and detector.detached:
            return True
    if writing and wanted.close_stdin and not wanted.terminal:
        with suppress(BastideError, ConnectionError):
            await stdio.close_stdin()
    return False


async def _outgoing(writer: asyncio.StreamWriter, stdio: Stdio, wanted: Wanted) -> None:
    """Send the process's output; waits when the client does not read."""
    async for stream, data in stdio.output():
        if not wanted.wants(stream):
            continue
        if wanted.terminal:
            writer.write(data)
        else:
            writer.writelines((header(stream, len(data)), data))
        await writer.drain()


async def serve_websocket(request: web.Request, stdio: Stdio, wanted: Wanted) -> web.StreamResponse:
    """The same over a WebSocket: messages of raw bytes both ways, no framing."""
    socket = web.WebSocketResponse(max_msg_size=1 << 20)
    try:
        await socket.prepare(request)
        incoming = asyncio.ensure_future(_feed_messages(socket, stdio, wanted))
        outgoing = asyncio.ensure_future(_send_messages(socket.send_bytes, stdio, wanted))
        await _until_over(incoming, outgoing)
    finally:
        await stdio.close()
    await socket.close()
    return socket


async def _feed_messages(socket: web.WebSocketResponse, stdio: Stdio, wanted: Wanted) -> bool:
    """Hand the client's messages to the process. A WebSocket has no half close: its end is the client's."""
    await _feed(_messages(socket), stdio, wanted)
    return True


async def _messages(socket: web.WebSocketResponse) -> AsyncIterator[bytes]:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            yield message.data
        elif message.type is WSMsgType.TEXT:
            yield message.data.encode()


async def _send_messages(send: Callable[[bytes], object], stdio: Stdio, wanted: Wanted) -> None:
    async for stream, data in stdio.output():
        if wanted.wants(stream):
            sent = send(data)
            if asyncio.iscoroutine(sent):
                await sent
