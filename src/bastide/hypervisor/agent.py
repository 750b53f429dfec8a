"""The client of a guest agent: requests and streams over the channel that the VM monitor hands out.

Everything that arrives is hostile: frames are bounded by the codec, answers by MESSAGE_LIMIT, output that
nobody reads by its window (a guest that ignores the window is cut off), and every request has a timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from bastide.host.processes import readable
from bastide.hypervisor.frames import (
    HEADER,
    MESSAGE_LIMIT,
    MORE,
    NONCE,
    PADDING,
    PAYLOAD,
    VERSION,
    WINDOW_OUTPUT,
    WINDOW_STDIN,
    Ask,
    Decoder,
    ErrorKind,
    Frame,
    Tell,
    frame,
    numbers,
    u32,
)
from bastide.model.errors import (
    BastideError,
    Conflict,
    GuestError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)

_ERRORS: dict[int, type[BastideError]] = {
    ErrorKind.INVALID: InvalidArgument,
    ErrorKind.NOT_FOUND: NotFound,
    ErrorKind.CONFLICT: Conflict,
    ErrorKind.DENIED: PermissionDenied,
}
_TIMEOUT = 30.0
"""Seconds that a guest may take to answer; under emulation on a busy host a second is nothing."""
_STREAM_LIMIT = 1 << 31
STALE_LIMIT = 32 << 20
"""Bytes for a former daemon that may precede a guest's first answer: its agent keeps 8 MiB at most."""
_IDLE_LIMIT = 4096
"""Frames without content, or that nobody waits for, that a guest may send beyond one for each that it got."""


class Channel:
    """A process's streams in the guest, this side of them."""

    def __init__(self, agent: Agent, stream: int) -> None:
        self._agent, self.stream = agent, stream
        self._pieces: deque[tuple[int, bytearray]] = deque()
        self._more = asyncio.Event()
        self._over = False
        self._held = 0
        self._credit = WINDOW_STDIN
        self._room = asyncio.Event()
        self._detached = False
        self.ended: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        """The exit code and whether it was killed for memory; an error when the channel broke."""

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Pieces as `(1 stdout | 2 stderr, bytes)`; ends with the process or the channel."""
        while True:
            while self._pieces:
                which, data = self._pieces.popleft()
                self._held -= len(data)
                yield which, bytes(data)
                self._agent.send(Ask.WINDOW, self.stream, u32(len(data)))
            if self._over:
                return
            self._more.clear()
            await self._more.wait()

    async def write(self, data: bytes) -> None:
        """Write to stdin; waits for room. Raises NotFound when the process has ended."""
        at = 0
        while at < len(data):
            if self.ended.done():
                raise NotFound("the process has ended")
            if not self._credit:
                self._room.clear()
                await self._room.wait()
                continue
            piece = data[at : at + min(self._credit, PAYLOAD)]
            self._credit -= len(piece)
            at += len(piece)
            self._agent.send(Ask.STDIN, self.stream, piece)
            await self._agent.drained()

    def close_stdin(self) -> None:
        """End of file on stdin."""
        if not self.ended.done():
            self._agent.send(Ask.STDIN_EOF, self.stream)

    def detach(self) -> None:
        """Nobody reads any more: what still arrives is dropped so that the process goes on."""
        self._detached = True
        if self._held:
            self._agent.send(Ask.WINDOW, self.stream, u32(self._held))
        self._pieces.clear()
        self._held = 0
        self._close()

    def received(self, which: int, data: bytes) -> None:
        """Called by the agent's reader. Raises GuestError when the guest ignores the window."""
        if self._detached:
            self._agent.send(Ask.WINDOW, self.stream, u32(len(data)))
            return
        self._held += len(data)
        if self._held > WINDOW_OUTPUT:
            raise GuestError("the guest agent sent more output than it was allowed to")
        # Small pieces become one: a guest decides how many it sends.
        if self._pieces and self._pieces[-1][0] == which and len(self._pieces[-1][1]) < PAYLOAD:
            self._pieces[-1][1].extend(data)
        elif data:
            self._pieces.append((which, bytearray(data)))
        self._more.set()

    def _close(self) -> None:
        self._over = True
        self._more.set()

    def credited(self, count: int) -> None:
        """The guest has taken `count` bytes of stdin."""
        self._credit = min(self._credit + count, WINDOW_STDIN)
        self._room.set()

    def finish(self, code: int, oom: bool) -> None:
        """The last frame of the stream has come."""
        if not self.ended.done():
            self.ended.set_result((code & 255, oom))
        self._room.set()
        self._close()

    def abort(self, error: BastideError) -> None:
        """The channel broke."""
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()
        self._room.set()
        self._close()


class Agent(asyncio.Protocol):
    """One connection to one guest. Made by `connect`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder()
        self._nonce = os.urandom(NONCE)
        self._marker = HEADER.pack(Tell.HELLO, 0, 0, 0, NONCE + 8) + self._nonce
        self._hello: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._pieces: dict[int, bytearray] = {}
        self._channels: dict[int, Channel] = {}
        self._next = 1
        self._stale = 0
        self._idle = -_IDLE_LIMIT
        """Frames that brought nothing, less those that were sent and what is allowed: 0 is too many."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._error: BastideError | None = None

    @classmethod
    async def connect(cls, vendor: Path, *, again: bool = False) -> Agent:
        """Get the agent's channel from the VM monitor and take it up, without waiting for the guest.

        `again`: a former daemon may have stopped amid a frame. Raises NotFound when the VM has ended.
        """
        sock = await _channel(vendor)
        loop = asyncio.get_running_loop()
        _, agent = await loop.create_connection(cls, sock=sock)
        if again and agent._transport is not None:
            agent._transport.write(PADDING)
            # Numbers of streams that a former daemon used are not used again.
            agent._next = struct.unpack("<I", os.urandom(4))[0] % (_STREAM_LIMIT // 2) + (1 << 16)
        agent.send(Ask.HELLO, 0, agent._nonce)
        return agent

    async def hello(self, timeout: float = _TIMEOUT) -> int:
        """Wait for the guest's first answer; gives its phase (0 template, 1 configured)."""
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._hello)
        except TimeoutError as error:
            raise GuestError(f"the guest did not answer within {timeout:.0f} s") from error

    async def ask(self, kind: Ask, data: bytes = b"", timeout: float = _TIMEOUT) -> bytes:
        """Send a request and wait for its answer. Raises what the guest tells, or GuestError."""
        return await self.answer(self.request(kind, data), timeout)

    def request(self, kind: Ask, data: bytes = b"") -> int:
        """Send a request; gives its number for `answer`. Several may be under way."""
        number = self._number()
        self._expect(number)
        self.send(kind, number, data)
        return number

    async def answer(self, number: int, timeout: float = _TIMEOUT) -> bytes:
        """Wait for the answer to a request."""
        try:
            async with asyncio.timeout(timeout):
                return await self._answers[number]
        except TimeoutError as error:
            raise GuestError(f"the guest did not answer within {timeout:.0f} s") from error
        finally:
            self._answers.pop(number, None)
            self._pieces.pop(number, None)

    async def run(self, specification: bytes, timeout: float = _TIMEOUT) -> Channel:
        """Run a process (fields P_*); gives its streams once it runs."""
        number = self._number()
        channel = self._channels[number] = Channel(self, number)
        self._expect(number)
        self.send(Ask.EXEC, number, specification)
        try:
            await self.answer(number, timeout)
        except BaseException:
            self._channels.pop(number, None)
            raise
        return channel

    def send(self, kind: Ask, stream: int, data: bytes = b"") -> None:
        """Queue a frame. Nothing happens when the channel has broken."""
        if self._transport is not None and self._error is None:
            self._idle -= 1
            self._transport.write(frame(kind, stream, data))

    async def drained(self) -> None:
        """Wait until the guest has taken most of what was queued."""
        await self._writable.wait()

    def close(self) -> None:
        """Let go of the channel; the guest goes on."""
        if self._transport is not None:
            self._transport.close()

    @property
    def broken(self) -> bool:
        """Whether the channel cannot be used any more."""
        return self._error is not None

    def _number(self) -> int:
        self._next = self._next + 1 if self._next < _STREAM_LIMIT else 1
        return self._next

    def _expect(self, number: int) -> None:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        if self._error is not None:
            future.set_exception(self._error)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1 << 18)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(self._error or Unavailable("the virtual machine has ended"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            if self._hello.done():
                pieces = self._decoder.feed(data)
            else:
                # What precedes the answer to our nonce was for a former daemon.
                self._decoder.add(data)
                self._stale += len(data)
                if self._stale > STALE_LIMIT:
                    raise GuestError("the guest agent sends what nobody asked for and does not answer")
                if not self._decoder.seek(self._marker):
                    return
                pieces = self._decoder.feed(b"")
            for one in pieces:
                self._received(one)
        except BastideError as error:
            self._fail(error)
            if self._transport is not None:
                self._transport.abort()

    def _received(self, one: Frame) -> None:
        channel = self._channels.get(one.stream)
        if not one.data or (channel is None and one.stream not in self._answers):
            self._idle += 1
            if self._idle > 0:
                raise GuestError("the guest agent sends what nobody asked for")
        match one.type:
            case Tell.STDOUT | Tell.STDERR if channel is not None:
                channel.received(1 if one.type == Tell.STDOUT else 2, one.data)
            case Tell.WINDOW if channel is not None:
                channel.credited(numbers(one.data, 1)[0])
            case Tell.EXIT if channel is not None:
                code, oom = numbers(one.data, 2)
                del self._channels[one.stream]
                channel.finish(code, bool(oom))
            case Tell.DONE | Tell.ERROR:
                self._answered(one)
            case Tell.HELLO:
                self._welcomed(one.data)

    def _welcomed(self, data: bytes) -> None:
        version, phase = numbers(data[NONCE:], 2)
        if version != VERSION:
            raise GuestError(f"the guest agent speaks protocol version {version}, not {VERSION}: run scripts/guest")
        if not self._hello.done():
            self._hello.set_result(phase)

    def _answered(self, one: Frame) -> None:
        future = self._answers.get(one.stream)
        if future is None or future.done():
            return
        whole = self._pieces.setdefault(one.stream, bytearray())
        whole += one.data
        if len(whole) > MESSAGE_LIMIT:
            raise GuestError("the guest agent sent an answer that is too long")
        if one.flags & MORE:
            return
        data = bytes(self._pieces.pop(one.stream))
        if one.type == Tell.DONE:
            future.set_result(data)
        else:
            future.set_exception(_error(data))

    def _fail(self, error: BastideError) -> None:
        if self._error is None:
            self._error = error
        for future in self._answers.values():
            _spoil(future, error)
        _spoil(self._hello, error)
        for channel in self._channels.values():
            channel.abort(error)
        self._channels.clear()
        self._pieces.clear()
        self._writable.set()


def _spoil(future: asyncio.Future[Any], error: BastideError) -> None:
    """Set an error that nobody needs to fetch."""
    if not future.done():
        future.set_exception(error)
        future.exception()


def _error(data: bytes) -> BastideError:
    kind = numbers(data, 1)[0]
    text = "".join(c if c.isprintable() else "?" for c in data[4:1028].decode(errors="replace"))
    return _ERRORS.get(kind, GuestError)(text or "the guest agent refused without a reason")


async def _channel(vendor: Path) -> socket.socket:
    """Connect to the monitor and take the descriptor that it sends."""
    folder = os.open(vendor.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with sock:
        try:
            # By descriptor: a path may be longer than the 108 bytes of an address (unix(7)).
            sock.connect(f"/proc/self/fd/{folder}/{vendor.name}")
            async with asyncio.timeout(_TIMEOUT):
                await readable(sock.fileno())
            _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
        except (OSError, TimeoutError) as error:
            raise NotFound("the virtual machine has ended") from error
        finally:
            os.close(folder)
    if not descriptors:
        raise NotFound("the virtual machine has ended")
    channel = socket.socket(fileno=descriptors[0])
    channel.setblocking(False)
    with contextlib.suppress(OSError):
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    return channel
