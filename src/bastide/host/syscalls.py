"""The one way to block: every system call or program that may take long runs through here."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from bastide.model.errors import HostError, ResourceExhausted, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_libc = ctypes.CDLL(None, use_errno=True)
_pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="host")


async def blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` in a thread. OSError becomes HostError, or ResourceExhausted when full."""
    loop = asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(_pool, lambda: function(*args, **kwargs))
    except OSError as error:
        raise wrap(error, getattr(function, "__name__", "call")) from error


def in_background(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run `function` in a thread and wait for nothing: what it raises is lost."""
    _pool.submit(function, *args, **kwargs)


def wrap(error: OSError, call: str) -> HostError | ResourceExhausted:
    """The bastide error for an OSError from `call`."""
    path = error.filename if isinstance(error.filename, str) else ""
    code = error.errno or errno.EIO
    wrapped = HostError(call, code, path)
    return ResourceExhausted(wrapped.message) if code in _FULL else wrapped


def libc_call(name: str, *args: Any) -> int:
    """A function of the C library that answers -1 and errno. Raises OSError."""
    result: int = getattr(_libc, name)(*args)
    if result < 0:
        code = ctypes.get_errno()
        path = next((os.fsdecode(word) for word in args[1::-1] if isinstance(word, bytes) and word), None)
        raise OSError(code, os.strerror(code), path)
    return result


def syscall(number: int, name: str, *args: Any) -> int:
    """A system call that the C library has no function for. Integers go as longs. Raises OSError."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in args]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


class Finished:
    """A program that ended: its exit status (negative: the signal) and what it printed."""

    __slots__ = ("code", "stderr", "stdout")

    def __init__(self, code: int, stdout: bytes, stderr: bytes) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def complaint(self) -> str:
        """The last line of its stderr: what a program's error usually is."""
        lines = [line.strip() for line in self.stderr.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.code}"


async def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    timeout: float = 60.0,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> Finished:
    """Run a program to its end; the one place where the daemon does. It is killed on cancellation.

    `timeout` is in seconds. Raises HostError when it cannot be started, Unavailable when it takes too long.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=cwd,
            pass_fds=tuple(pass_fds),
        )
    except OSError as error:
        raise HostError("exec", error.errno or errno.EIO, str(argv[0])) from error
    try:
        async with asyncio.timeout(timeout):
            stdout, stderr = await process.communicate(stdin)
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            raise Unavailable(f"{Path(argv[0]).name} did not finish within {timeout:.0f} s") from error
        raise
    return Finished(process.returncode or 0, stdout, stderr)


async def stream(
    argv: Sequence[str | Path], *, pass_fds: Sequence[int] = (), chunk: int = 256 << 10
) -> AsyncIterator[bytes]:
    """The stdout of a program in pieces of at most `chunk` bytes, while it runs; it is killed when nobody reads on.

    Raises HostError when it cannot be started or fails.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=tuple(pass_fds),
            limit=chunk,
        )
    except OSError as error:
        raise HostError("exec", error.errno or errno.EIO, str(argv[0])) from error
    assert process.stdout is not None
    try:
        while piece := await process.stdout.read(chunk):
            yield piece
        if code := await process.wait():
            raise HostError(Path(argv[0]).name, errno.EIO, f"exit status {code}")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
