"""One more process in a container: the runtime's `exec`, in the foreground, as a child of the daemon.

Its streams are pipes (or a terminal's master) that we hold, so that nothing stands between them and the
client. Such a process ends with what it is attached to: when the daemon dies, its output has no reader.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from bastide.host.inotify import Watch
from bastide.host.processes import Child, Handle, Spawner, parent, readable
from bastide.model.errors import BastideError, NotFound
from bastide.model.process import TerminalSize
from bastide.runtime import Stdio, Stream
from bastide.runtime.refusals import refusal

_PIECE = 1 << 16


class Entrance(msgspec.Struct, frozen=True):
    """A way into a container's cgroups: the joining program, the files that lead in, and those that lead back."""

    program: Path
    into: tuple[str, ...]
    back: tuple[str, ...]

    def words(self, pid_file: Path) -> list[str]:
        """The joining program's command line, up to the runtime's own: see monitor/join.c."""
        return [str(self.program), str(pid_file), *self.into, "--", *self.back, "--"]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: the runtime's command line up to `exec`, and the process as the runtime-spec has it."""

    argv: tuple[str, ...]
    container: str
    id: str
    directory: Path
    """Gets the process's file, its pid and, for a moment, its console socket; it exists."""
    process: bytes
    command: str
    terminal: bool
    stdin: bool
    size: TerminalSize | None = None
    console_socket: bool = True
    """Whether the runtime hands a terminal over in the foreground; else it copies to one of ours."""
    pid_option: str = "--pid-file"
    terminal_options: tuple[str, ...] = ()
    """What the runtime is told with a terminal of ours."""
    entrance: Entrance | None = None
    """Where the runtime is started from within the container's cgroups; it then leaves the process to the joiner."""


class Foreground:
    """A process that was started by `start`. Await `wait`, and `close` it when its exit code was taken."""

    def __init__(self, child: Child, pid: int, handle: Handle | None, stdio: _Streams, *, console_socket: bool) -> None:
        self._child, self.pid, self._handle, self.stdio = child, pid, handle, stdio
        self._console_socket = console_socket

    async def wait(self) -> int:
        """The exit code, 128+n for signal n."""
        code = await self._child.wait()
        return 128 - code if code < 0 else code

    def send(self, number: int) -> None:
        """Send a signal. Raises NotFound when it has ended."""
        if self._handle is None:
            raise NotFound("the process has ended")
        self._handle.send(number)

    def resize(self, size: TerminalSize) -> None:
        """Tell its terminal the size. Raises NotFound when it has none."""
        self.stdio.resize(size)
        if not self._console_socket:
            # The runtime looks at our terminal's size when it is told that it has changed.
            self._child.send(signal.SIGWINCH)

    def close(self) -> None:
        """Let go of the process's handles; the streams are closed by who holds them."""
        if self._handle is not None:
            self._handle.close()
        self._child.close()


async def start(order: Order, spawner: Spawner) -> Foreground:
    """Start it; it runs when this returns. Raises NotFound and PermissionDenied in Docker's words."""
    spec = order.directory / f"{order.id}.json"
    pid_file = order.directory / f"{order.id}.pid"
    spec.write_bytes(order.process)
    argv = [*order.argv, "exec", "--process", str(spec), order.pid_option]
    if order.entrance is None:
        argv += [str(pid_file)]
    else:
        argv = [*order.entrance.words(pid_file), *argv, f"{pid_file}.new", "--detach"]
    try:
        with Watch(order.directory) as watch:
            if order.terminal and not order.console_socket:
                child, streams = await _on_own_terminal(argv, order, spawner)
            elif order.terminal:
                child, streams = await _on_terminal(argv, order, spawner)
            else:
                child, streams = await _on_pipes([*argv, order.container], order.stdin, spawner)
            streams.ended_with(child)
            try:
                await _appeared(pid_file, watch, child)
            except BaseException:
                await streams.close()
                raise
        if not pid_file.exists():
            raise await _failure(order, child, streams)
        if order.size is not None and order.terminal:
            streams.resize(order.size)
        pid = _pid(pid_file)
        return Foreground(child, pid, _handle(pid, child), streams, console_socket=order.console_socket)
    finally:
        for file in (spec, pid_file, order.directory / f"{order.id}.pid.new"):
            file.unlink(missing_ok=True)


async def _appeared(pid_file: Path, watch: Watch, child: Child) -> None:
    """Wait until the runtime wrote the pid, which it does when the program was found, or gave up."""
    ended = asyncio.ensure_future(child.ended())
    try:
        # Made first and filled later: a pid that is not there yet must not be taken for none, which means all.
        while not _pid(pid_file) and not ended.done():
            changed = asyncio.ensure_future(watch.changed())
            await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await changed
    finally:
        ended.cancel()


async def _failure(order: Order, child: Child, streams: _Streams) -> BastideError:
    said = b"".join([piece async for _, piece in streams.output()])
    await child.wait()
    await streams.close()
    child.close()
    return refusal(said.decode(errors="replace"), order.command, "exec")


def _pid(pid_file: Path) -> int:
    """What the runtime wrote, whole: a pid of the host, or of the kernel that it brings; 0 when nothing yet."""
    try:
        return int(pid_file.read_text())
    except (ValueError, OSError):
        return 0


def _handle(pid: int, child: Child) -> Handle | None:
    """The process in the container, a child of the one that we started; None when it has ended already."""
    try:
        handle = Handle.open(pid)
    except NotFound:
        return None
    if parent(handle.pid) == child.pid:
        return handle
    handle.close()
    return None


async def _on_pipes(argv: list[str], stdin: bool, spawner: Spawner) -> tuple[Child, _Streams]:
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    in_read, in_write = os.pipe() if stdin else (None, -1)
    streams = _Streams({out_read: Stream.STDOUT, err_read: Stream.STDERR}, in_write)
    try:
        child = await spawner.spawn(argv, stdin=in_read, stdout=out_write, stderr=err_write)
    except BaseException:
        await streams.close()
        raise
    finally:
        for fd in (out_write, err_write, in_read):
            if fd is not None:
                os.close(fd)
    return child, streams


async def _on_terminal(argv: list[str], order: Order, spawner: Spawner) -> tuple[Child, _Streams]:
    """The runtime makes the terminal inside the container and hands its master over a socket."""
    with contextlib.ExitStack() as closing:
        folder = os.open(order.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        closing.callback(os.close, folder)
        listener = closing.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        name = f"{order.id}.tty"
        # Named by descriptor: an address holds 108 bytes, which the directory's path may exceed.
        listener.bind(f"/proc/self/fd/{folder}/{name}")
        closing.callback((order.directory / name).unlink, missing_ok=True)
        listener.listen(1)
        err_read, err_write = os.pipe()
        errors = _Streams({err_read: Stream.STDERR}, -1)
        place = f"/proc/{os.getpid()}/fd/{folder}/{name}"
        try:
            child = await spawner.spawn([*argv, "--console-socket", place, order.container], stderr=err_write)
        except BaseException:
            await errors.close()
            raise
        finally:
            os.close(err_write)
        master = await _master(listener, child)
    if master is None:
        return child, errors
    await errors.close()
    return child, _Streams({master: Stream.STDOUT}, master, terminal=True)


async def _on_own_terminal(argv: list[str], order: Order, spawner: Spawner) -> tuple[Child, _Streams]:
    """The runtime gets a terminal of the host and copies between it and the one in the container."""
    master, slave = os.openpty()
    streams = _Streams({master: Stream.STDOUT}, master, terminal=True)
    if order.size is not None:
        streams.resize(order.size)
    try:
        child = await spawner.spawn(
            [*argv, *order.terminal_options, order.container], stdin=slave, stdout=slave, stderr=slave
        )
    except BaseException:
        await streams.close()
        raise
    finally:
        os.close(slave)
    return child, streams


async def _master(listener: socket.socket, child: Child) -> int | None:
    """The terminal's master from the console socket; None when the runtime ended before it sent one."""
    loop = asyncio.get_running_loop()
    ended = asyncio.ensure_future(child.ended())
    accepted = asyncio.ensure_future(loop.sock_accept(listener))
    try:
        await asyncio.wait({ended, accepted}, return_when=asyncio.FIRST_COMPLETED)
        if not accepted.done():
            return None
        connection, _ = accepted.result()
        with connection:
            await readable(connection.fileno())
            _, control, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    finally:
        ended.cancel()
        accepted.cancel()
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            return array.array("i", data[:4])[0]
    return None


class _Streams(Stdio):
    """Pipes, or a terminal's master (`sink` and the only source then)."""

    def __init__(self, sources: dict[int, Stream], sink: int, *, terminal: bool = False) -> None:
        self._sources, self._sink, self._terminal = dict(sources), sink, terminal
        self._child: Child | None = None
        self._closed = False
        self._waiting: asyncio.Future[None] | None = None
        for fd in {*sources, sink} - {-1}:
            os.set_blocking(fd, False)

    def ended_with(self, child: Child) -> None:
        """The process's end is the end of output, though another one may still hold a stream."""
        self._child = child

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Reads only when it is asked for more: the process waits while nobody reads."""
        while self._sources and not self._closed:
            ended = self._child is not None and self._child.code is not None
            idle = True
            for fd, stream in list(self._sources.items()):
                piece = self._read(fd)
                if piece:
                    idle = False
                    yield stream, piece
            if idle and ended:
                return
            if idle and self._sources:
                await self._more()

    def _read(self, fd: int) -> bytes | None:
        """A piece; None when there is nothing now. A source that ended is closed."""
        if fd not in self._sources:
            return None
        try:
            piece = os.read(fd, _PIECE)
        except BlockingIOError:
            return None
        except OSError as error:
            # EIO: nobody has the terminal open any more.
            if error.errno != errno.EIO:
                raise
            piece = b""
        if not piece:
            self._drop(fd)
        return piece

    def _drop(self, fd: int) -> None:
        self._sources.pop(fd, None)
        if fd == self._sink:
            self._sink = -1
        os.close(fd)

    async def _more(self) -> None:
        """Wait for a source to become readable, or for the process to end."""
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()

        def arrived(*_: object) -> None:
            self._wake()

        watched = list(self._sources)
        for fd in watched:
            loop.add_reader(fd, arrived)
        ended = asyncio.ensure_future(self._child.ended()) if self._child else None
        if ended:
            ended.add_done_callback(arrived)
        try:
            await self._waiting
        finally:
            for fd in watched if not self._closed else ():
                loop.remove_reader(fd)
            if ended:
                ended.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def write(self, data: bytes) -> None:
        """Waits while the process does not read. Raises NotFound when it has closed its input."""
        view = memoryview(data)
        while view:
            if self._sink < 0:
                raise NotFound("the process has closed its input")
            try:
                view = view[os.write(self._sink, view) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                raise NotFound("the process has closed its input") from error

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        # A copy: the terminal's master is watched for reading under its own number.
        fd = os.dup(self._sink)
        loop.add_writer(fd, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_writer(fd)
            os.close(fd)

    async def close_stdin(self) -> None:
        """A terminal has no end of file of its own: it gets the character that stands for one."""
        if self._sink < 0:
            return
        if self._terminal:
            with contextlib.suppress(OSError):
                os.write(self._sink, b"\x04")
            return
        os.close(self._sink)
        self._sink = -1

    def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size: TIOCSWINSZ, ioctl_tty(2)."""
        if not self._terminal or self._sink < 0:
            raise NotFound("the process has no terminal")
        fcntl.ioctl(self._sink, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))

    async def close(self) -> None:
        """Leave. What the process still writes is read and thrown away: a closed pipe would end it."""
        if self._closed:
            return
        self._closed = True
        if self._sink >= 0 and not self._terminal:
            os.close(self._sink)
        loop = asyncio.get_running_loop()
        for fd in list(self._sources):
            self._discard(loop, fd)
        self._wake()

    def _discard(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        def gone() -> None:
            loop.remove_reader(fd)
            if fd in self._sources:
                self._drop(fd)

        def throw_away() -> None:
            try:
                if os.read(fd, _PIECE):
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            gone()

        loop.add_reader(fd, throw_away)
