"""conmon: the small process that stands over each container, so that the daemon may come and go.

It starts any program with the command line of an OCI runtime (`PROGRAM [arguments] create --bundle DIR
--pid-file FILE [--console-socket PATH] ID`), holds the container's streams and terminal, writes the log
and leaves the exit code in a file. Facts about its sockets and files: conmon(8) and conmon's sources
(conn_sock.c, ctrl.c, parent_pipe_fd.c), version 2.1.

Files in a container's directory: `conmon.pid`, `pid`, `attach` (SOCK_SEQPACKET), `ctl` (a fifo),
`oom` (exists when memory ran out), and the exit code in a file named after the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from bastide.host.inotify import Watch
from bastide.host.paths import write_whole
from bastide.host.processes import Child, Handle, Spawner, command_line, parent
from bastide.model.errors import HostError, NotFound, Unsupported
from bastide.model.process import TerminalSize
from bastide.runtime import Stdio, Stream

_STREAMS = {2: Stream.STDOUT, 3: Stream.STDERR}
"""The first byte of a packet on the attach socket (conmon's `stdpipe_t`)."""
_PACKET = 1 << 16
_STDIN_PACKET = 8 << 10
"""conmon cuts off what is longer than its buffer (32 KiB now, 8 KiB once)."""
_RESIZE, _REOPEN = 1, 2
"""Messages on the control fifo (ctrl.c)."""
UNKNOWN_EXIT = 255
"""Exit code where the monitor was killed before it could tell."""


class Refused(Exception):
    """The runtime program did not make the container; the text is what it wrote to stderr."""


class _Report(msgspec.Struct):
    """A line on conmon's sync pipe: the pid, or -1 and why."""

    data: int
    message: str = ""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What conmon is told about one container. `keep_stdin`: stdin stays open when a client leaves.

    `journal`: the name under which the output goes to the host's journal too; empty: it does not.
    """

    id: str
    directory: Path
    """Holds `config.json`; conmon's own files go there too."""
    log_path: Path | None = None
    terminal: bool = False
    stdin: bool = False
    keep_stdin: bool = True
    journal: str = ""


class Monitor:
    """The conmons over the containers of one runtime program.

    `spawner` is where the processes are started from; `arguments` go before the program's verb.
    """

    def __init__(self, program: Path, arguments: Sequence[str], spawner: Spawner) -> None:
        self._program, self._arguments, self._spawner = program, tuple(arguments), spawner
        self._handles: dict[str, Handle] = {}
        self._codes: dict[str, int] = {}

    async def create(self, launch: Launch) -> int:
        """Have the program make the container; gives its first pid. Raises Refused, HostError.

        conmon is our child while we live; it outlives us and is found again by `conmon.pid`.
        """
        read, write = os.pipe()
        try:
            child = await self._spawner.spawn(
                self._command(launch, find()),
                keep=(write,),
                cwd=launch.directory,
                env={"_OCI_SYNCPIPE": str(write)},
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        try:
            write_whole(launch.directory / "conmon.pid", str(child.pid).encode())
            report = await _report(read)
        except BaseException:
            await _end(child)
            raise
        finally:
            os.close(read)
        if report is None or report.data < 0:
            await _end(child)
            raise Refused(report.message if report else "conmon ended before it made the container")
        self._handles[launch.id] = child
        return report.data

    def _command(self, launch: Launch, conmon: str) -> list[str]:
        directory = launch.directory
        return [
            conmon,
            *("--api-version", "1"),
            *("--cid", launch.id),
            *("--cuuid", launch.id),
            *("--name", launch.journal or launch.id),
            *("--runtime", str(self._program)),
            *(f"--runtime-arg={word}" for word in self._arguments),
            *("--bundle", str(directory)),
            *("--container-pidfile", str(directory / "pid")),
            *("--exit-dir", str(directory)),
            *("--persist-dir", str(directory)),
            *("--log-path", f"k8s-file:{launch.log_path}" if launch.log_path else "off"),
            *(("--log-path", "journald:") if launch.journal else ()),
            *("--log-level", "error"),
            "--full-attach",
            "--sync",
            "--no-sync-log",
            *(["--terminal"] if launch.terminal else []),
            *(["--stdin"] if launch.stdin else []),
            *(["--leave-stdin-open"] if launch.keep_stdin else []),
        ]

    def monitor(self, container: str, directory: Path) -> Handle | None:
        """The conmon of a container, found again after the daemon's restart; None when it has ended."""
        handle = self._handles.get(container)
        if handle is None:
            file = directory / "conmon.pid"
            handle = _find(file, lambda pid: container in command_line(pid))
            if handle is None and not file.exists() and directory.exists():
                handle = _search(container)
            if handle is None:
                return None
            self._handles[container] = handle
        return handle

    def process(self, container: str, directory: Path) -> Handle | None:
        """The container's first process: a child of its conmon. None when it has ended. Close it."""
        handle = self.monitor(container, directory)
        if handle is None:
            return None
        return _find(directory / "pid", lambda pid: parent(pid) == handle.pid)

    async def wait(self, container: str, directory: Path) -> int:
        """Wait until conmon has ended (all output is logged then); gives the exit code, 128+n for signal n."""
        handle = self.monitor(container, directory)
        if handle is not None:
            await handle.ended()
        if container not in self._codes:
            code = exit_code(container, directory)
            self._codes[container] = UNKNOWN_EXIT if code is None else code
        return self._codes[container]

    async def attach(self, directory: Path) -> Stdio:
        """Connect to the streams. Raises NotFound when conmon does not listen (any more)."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        folder = -1
        try:
            # By descriptor: a path may be longer than the 108 bytes of an address (unix(7)).
            folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            sock.connect(f"/proc/self/fd/{folder}/attach")
        except OSError as error:
            sock.close()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise NotFound("the container's streams are closed: it does not run") from error
            raise HostError("connect", error.errno or errno.EIO, str(directory / "attach")) from error
        finally:
            if folder >= 0:
                os.close(folder)
        return _Attached(sock)

    def resize(self, directory: Path, size: TerminalSize) -> None:
        """Tell the terminal its size. Raises NotFound when conmon has ended."""
        _control(directory, f"{_RESIZE} {size.rows} {size.columns}\n")

    def reopen_log(self, directory: Path) -> None:
        """Have the log written to a new file at its path: call it after the old one was renamed."""
        _control(directory, f"{_REOPEN} 0 0\n")

    async def forget(self, container: str, directory: Path) -> None:
        """End conmon if it still runs (the container has ended) and let go of it. Repeatable."""
        handle = self.monitor(container, directory)
        self._codes.pop(container, None)
        if handle is None:
            return
        try:
            async with asyncio.timeout(2):
                await handle.ended()
        except TimeoutError:
            with contextlib.suppress(NotFound):
                handle.send(signal.SIGKILL)
            await handle.ended()
        self._handles.pop(container, None)
        handle.close()


def find() -> str:
    """The path of conmon. Raises Unsupported with what to do."""
    path = shutil.which("conmon")
    if path is None:
        raise Unsupported("conmon is not installed: apt-get install conmon")
    return path


def exit_code(container: str, directory: Path) -> int | None:
    """The exit code that conmon left; None while the container runs or when conmon was killed."""
    try:
        return int((directory / container).read_text())
    except (OSError, ValueError):
        return None


async def memory_ran_out(directory: Path) -> bool:
    """Wait for the file that says so; False when the directory is removed before that."""
    try:
        watch = Watch(directory)
    except HostError:
        return False
    with watch:
        while not (directory / "oom").exists():
            if not directory.exists():
                return False
            await watch.changed()
    return True


async def _report(read: int) -> _Report | None:
    """The first line of the sync pipe; conmon keeps the pipe open after it."""
    os.set_blocking(read, False)
    data = b""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(read, arrived.set)
    try:
        while b"\n" not in data:
            await arrived.wait()
            arrived.clear()
            piece = os.read(read, _PACKET)
            if not piece:
                return None
            data += piece
    finally:
        loop.remove_reader(read)
    try:
        return msgspec.json.decode(data.partition(b"\n")[0], type=_Report)
    except msgspec.DecodeError:
        return _Report(data=-1, message=data.decode(errors="replace"))


async def _end(child: Child) -> None:
    with contextlib.suppress(NotFound):
        child.send(signal.SIGKILL)
    await child.wait()
    child.close()


def _find(file: Path, belongs: Callable[[int], bool]) -> Handle | None:
    """The process that a pid file names, if it is still the one that wrote it (`belongs`)."""
    try:
        pid = int(file.read_text())
        handle = Handle.open(pid)
    except (OSError, ValueError, NotFound):
        return None
    # Checked after it is held: from here on the pid cannot come to mean another process.
    if belongs(pid) and handle.alive:
        return handle
    handle.close()
    return None


def _search(container: str) -> Handle | None:
    """The conmon of a container whose start was cut off before its pid was written down."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            words = command_line(int(entry.name))
            if words and Path(words[0]).name == "conmon" and container in words:
                with contextlib.suppress(NotFound):
                    return Handle.open(int(entry.name))
    return None


def _control(directory: Path, message: str) -> None:
    try:
        fifo = os.open(directory / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise NotFound("the container does not run") from error
        raise HostError("open", error.errno or errno.EIO, str(directory / "ctl")) from error
    try:
        os.write(fifo, message.encode())
    finally:
        os.close(fifo)


class _Attached(Stdio):
    """The attach socket: a packet of output begins with its stream; a packet of input is only data."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._readers = 0
        self._closed = False

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Pieces of output, at most 32 KiB each."""
        loop = asyncio.get_running_loop()
        self._readers += 1
        try:
            while not self._closed:
                packet = await loop.sock_recv(self._sock, _PACKET)
                if not packet:
                    return
                stream = _STREAMS.get(packet[0])
                if stream is not None and len(packet) > 1:
                    yield stream, packet[1:]
        except ConnectionResetError:
            return
        finally:
            self._readers -= 1
            if self._closed and not self._readers:
                self._sock.close()

    async def write(self, data: bytes) -> None:
        """Waits while the process does not read. Raises NotFound when it has ended."""
        loop = asyncio.get_running_loop()
        try:
            for start in range(0, len(data), _STDIN_PACKET):
                await loop.sock_sendall(self._sock, data[start : start + _STDIN_PACKET])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise NotFound("the process has ended") from error

    async def close_stdin(self) -> None:
        """End of input; conmon closes the process's stdin unless it was told to keep it."""
        self._shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Leave; a reader in `output` sees the end, and the descriptor lives until it did."""
        if self._closed:
            return
        self._closed = True
        self._shutdown(socket.SHUT_RDWR)
        if not self._readers:
            self._sock.close()

    def _shutdown(self, how: int) -> None:
        if self._sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._sock.shutdown(how)
