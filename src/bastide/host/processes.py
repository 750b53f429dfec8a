"""Processes by pidfd: start them, wait for their end, signal them, without polling and without races.

A pid can be used again by the kernel for another process; a pidfd cannot (pidfd_open(2), Linux 5.3).
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal as signals
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from bastide.host.syscalls import Finished, wrap
from bastide.model.errors import HostError, NotFound, Unavailable

T = TypeVar("T")
Fd = int | None
"""A descriptor for one of a child's streams; None is /dev/null."""


async def readable(fd: int) -> None:
    """Wait until a descriptor has something to read, or its end (for a pidfd: until the process ended)."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def arrived() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, arrived)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


class Handle:
    """A process of this host that is not (or need not be) our child. Close it when done."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid, self.fd = pid, fd
        self._ended: asyncio.Future[None] | None = None

    @classmethod
    def open(cls, pid: int) -> Handle:
        """Take hold of a running process. Raises NotFound when there is none."""
        try:
            return cls(pid, os.pidfd_open(pid))
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.EINVAL):
                raise NotFound(f"no process {pid}") from error
            raise HostError("pidfd_open", error.errno or errno.EIO, str(pid)) from error

    def send(self, signal: int) -> None:
        """Send a signal. Raises NotFound when the process has ended."""
        try:
            signals.pidfd_send_signal(self.fd, signal)
        except ProcessLookupError as error:
            raise NotFound(f"process {self.pid} has ended") from error
        except OSError as error:
            raise HostError("pidfd_send_signal", error.errno or errno.EIO, str(self.pid)) from error

    @property
    def alive(self) -> bool:
        """Whether the process has not ended (a zombie has)."""
        if self.fd < 0:
            return False
        try:
            signals.pidfd_send_signal(self.fd, 0)
        except OSError:
            return False
        return state_letter(self.pid) not in ("", "Z", "X")

    async def ended(self) -> None:
        """Wait for the end; any number of waiters."""
        if self.fd < 0:
            return
        if self._ended is None:
            loop = asyncio.get_running_loop()
            self._ended = loop.create_future()
            loop.add_reader(self.fd, self._finish)
        await asyncio.shield(self._ended)

    def _finish(self) -> None:
        assert self._ended is not None
        asyncio.get_running_loop().remove_reader(self.fd)
        self.on_end()
        if not self._ended.done():
            self._ended.set_result(None)

    def on_end(self) -> None:
        """Called once when the end was seen by `ended`."""

    def close(self) -> None:
        """Let go. Repeatable."""
        if self.fd < 0:
            return
        if self._ended is not None and not self._ended.done():
            asyncio.get_running_loop().remove_reader(self.fd)
            self._ended.set_result(None)
        os.close(self.fd)
        self.fd = -1


class Child(Handle):
    """A process that we started: it is reaped when its end is waited for."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process.pid, os.pidfd_open(process.pid))
        self._process = process
        self.code: int | None = None
        """Exit status once it ended; negative: the signal."""

    def on_end(self) -> None:
        """Reap it. It has ended, so that this does not wait."""
        self.code = self._process.wait()

    async def wait(self) -> int:
        """Wait for the end; gives the exit status, or the signal's number negated."""
        await self.ended()
        if self.code is None:
            self.code = self._process.wait()
        return self.code

    def abandon(self) -> None:
        """Let go of a child that may still run, without a complaint when the object is collected."""
        if self.code is None and self._process.poll() is None:
            self._process.returncode = 0
        self.close()


class Spawner:
    """Starts programs from a thread of its own, which `prepare` may have moved to another mount namespace.

    A child inherits the namespaces of the thread that starts it. It gets no descriptor but its three
    streams and those named, and a session of its own, out of reach of the terminal's signals.
    Starting takes vfork(2) and execve(2): nothing of the daemon is copied.
    """

    def __init__(self, prepare: Callable[[], None] | None = None) -> None:
        self._prepare = prepare
        self._prepared = prepare is None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")

    async def call(self, function: Callable[[], T]) -> T:
        """Run `function` in that thread, in its namespaces. Raises HostError for an OSError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._inside, function)
        except OSError as error:
            raise wrap(error, getattr(function, "__name__", "call")) from error

    def _inside(self, function: Callable[[], T]) -> T:
        self._ready()
        return function()

    def renew(self) -> None:
        """Go on in a new thread, prepared anew; what was started in the old one stays as it is."""
        self._pool.shutdown(wait=False)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")
        self._prepared = self._prepare is None

    def _ready(self) -> None:
        if not self._prepared and self._prepare is not None:
            self._prepare()
            self._prepared = True

    def _start(
        self, argv: list[str], streams: tuple[Fd, Fd, Fd], keep: Sequence[int], cwd: Path | None, env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        self._ready()
        stdin, stdout, stderr = (subprocess.DEVNULL if fd is None else fd for fd in streams)
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(keep),
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )

    async def spawn(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: Fd = None,
        stdout: Fd = None,
        stderr: Fd = None,
        keep: Sequence[int] = (),
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program. `keep` are descriptors it inherits under their numbers. Raises HostError."""
        environment = {"PATH": os.defpath, **(env or {})}
        try:
            process = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._start, [str(word) for word in argv], (stdin, stdout, stderr), keep, cwd, environment
            )
        except OSError as error:
            raise HostError("exec", error.errno or errno.EIO, str(argv[0])) from error
        return Child(process)

    async def run(self, argv: Sequence[str | Path], *, timeout: float = 60.0, cwd: Path | None = None) -> Finished:
        """Run a program to its end (killed after `timeout` seconds). Raises HostError, Unavailable."""
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            child = await self.spawn(argv, stdout=out_write, stderr=err_write, cwd=cwd)
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr = await asyncio.gather(drain(out_read), drain(err_read))
                code = await child.wait()
        except BaseException as error:
            if child.code is None:
                child.send(signals.SIGKILL)
                await child.wait()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"{Path(argv[0]).name} did not finish within {timeout:.0f} s") from error
            raise
        finally:
            child.close()
        return Finished(code, stdout, stderr)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False)


async def drain(fd: int, limit: int = 16 << 20) -> bytes:
    """Read a pipe to its end, at most `limit` bytes, and close it."""
    os.set_blocking(fd, False)
    pieces: list[bytes] = []
    size = 0
    try:
        while size < limit:
            try:
                piece = os.read(fd, 65536)
            except BlockingIOError:
                await readable(fd)
                continue
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
    finally:
        os.close(fd)
    return b"".join(pieces)


def state_letter(pid: int) -> str:
    """The state of a process as proc(5) has it (`R`, `S`, `Z`, …); empty when there is none."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def parent(pid: int) -> int:
    """The pid of a process's parent; 0 when there is no such process."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it has none or does not exist."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [word.decode(errors="surrogateescape") for word in data.split(b"\0")[:-1]]
