"""Reading a container's log: the CRI format that the monitor writes, rotated files included.

A line is `<RFC 3339 time> <stdout|stderr> <P|F> <text>`; P marks a part of a longer line. Source:
Kubernetes' CRI logging format (kubelet, `kuberuntime/logs`).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from bastide.host.inotify import Watch
from bastide.host.syscalls import blocking
from bastide.model.errors import HostError
from bastide.runtime import Stream

_STREAMS = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR}
_CHUNK = 256 << 10


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a log. `since` and `until` are seconds since the epoch; `tail` -1 means all lines."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    since: float = 0.0
    until: float = 0.0
    tail: int = -1


def _when(stamp: bytes) -> float:
    """Seconds since the epoch of a time with nanoseconds and an offset."""
    text = stamp.decode("ascii", "replace")
    whole, dot, rest = text.partition(".")
    if not dot:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    digits = len(rest) - len(rest.lstrip("0123456789"))
    base = datetime.fromisoformat(whole + (rest[digits:] or "+00:00").replace("Z", "+00:00"))
    return base.timestamp() + float(f"0.{rest[:digits] or 0}")


class _Selector:
    """Turns raw lines into the pieces that a query wants."""

    def __init__(self, query: LogQuery) -> None:
        self._query = query
        self._wanted = {name for name, ok in ((b"stdout", query.stdout), (b"stderr", query.stderr)) if ok}
        self._within: dict[bytes, bool] = {}
        self.past_end = False

    def piece(self, line: bytes) -> tuple[Stream, bytes] | None:
        """One line of the file as a piece of output, None when it is not wanted."""
        parts = line.split(b" ", 3)
        if len(parts) != 4 or parts[1] not in self._wanted:
            return None
        stamp, name, tag, text = parts
        query = self._query
        if query.since or query.until:
            when = _when(stamp)
            if query.until and when > query.until:
                self.past_end = True
                return None
            if when < query.since:
                return None
        text = text[:-1] if tag == b"P" else text
        if query.timestamps and not self._within.get(name):
            text = _docker_stamp(stamp) + b" " + text
        self._within[name] = tag == b"P"
        return _STREAMS[name], text


def _docker_stamp(stamp: bytes) -> bytes:
    """The time in UTC with nine digits, as Docker prints it."""
    if stamp.endswith((b"Z", b"+00:00")):
        return stamp.removesuffix(b"Z").removesuffix(b"+00:00") + b"Z"
    whole = datetime.fromtimestamp(int(_when(stamp)), tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return whole.encode() + b"." + stamp.partition(b".")[2][:9] + b"Z"


def files(path: Path) -> list[Path]:
    """The log and its rotated predecessors, oldest first."""
    old = sorted(
        (p for p in path.parent.glob(f"{path.name}.*") if p.suffix[1:].isdigit()),
        key=lambda p: -int(p.suffix[1:]),
    )
    return [*old, path] if path.exists() else old


def _lines(handle: BinaryIO) -> Iterator[bytes]:
    """Whole lines from here on; a half-written one at the end stays unread."""
    for line in handle:
        if not line.endswith(b"\n"):
            handle.seek(-len(line), os.SEEK_CUR)
            return
        yield line


def _read_some(handle: BinaryIO, selector: _Selector) -> list[tuple[Stream, bytes]]:
    """The next pieces, up to a chunk; empty at the end of the file."""
    pieces: list[tuple[Stream, bytes]] = []
    size = 0
    for line in _lines(handle):
        if (piece := selector.piece(line)) is not None:
            pieces.append(piece)
        size += len(line)
        if size >= _CHUNK or selector.past_end:
            break
    return pieces


def _last(paths: list[Path], query: LogQuery) -> list[tuple[Stream, bytes]]:
    """The last `tail` lines over all files."""
    selector = _Selector(query)
    kept: deque[list[tuple[Stream, bytes]]] = deque(maxlen=max(query.tail, 1))
    line: list[tuple[Stream, bytes]] = []
    for path in paths:
        with path.open("rb") as handle:
            for raw in _lines(handle):
                if (piece := selector.piece(raw)) is None:
                    continue
                line.append(piece)
                if piece[1].endswith(b"\n"):
                    kept.append(line)
                    line = []
    if line:
        kept.append(line)
    return [piece for whole in kept for piece in whole] if query.tail else []


async def read(path: Path, query: LogQuery, ended: asyncio.Future[Any] | None) -> AsyncIterator[tuple[Stream, bytes]]:
    """The pieces of a log that the query asks for; with `follow` until `ended` is done.

    `ended` is None when the container does not run. Nothing polls: inotify announces new output.
    """
    selector = _Selector(query)
    try:
        watching = Watch(path.parent)
    except HostError as error:
        if error.errno == errno.ENOENT:
            return  # removed meanwhile: there is nothing more that it said
        raise
    with watching as watch:
        handle: BinaryIO | None = None
        try:
            if query.tail >= 0:
                for piece in await blocking(_last, files(path), query):
                    yield piece
                handle = _open_at_end(path)
            else:
                async with aclosing(_rotated(path, selector)) as past:
                    async for piece in past:
                        yield piece
                handle = path.open("rb") if path.exists() else None
            while not selector.past_end:
                more = query.follow and ended is not None and not ended.done()
                while handle is not None and (pieces := await blocking(_read_some, handle, selector)):
                    for piece in pieces:
                        yield piece
                if not more or ended is None:
                    return
                await _change(watch, ended)
                handle = _current(path, handle)
        finally:
            if handle is not None:
                handle.close()


async def _rotated(path: Path, selector: _Selector) -> AsyncGenerator[tuple[Stream, bytes]]:
    for old in files(path):
        if old != path:
            with old.open("rb") as past:
                while pieces := await blocking(_read_some, past, selector):
                    for piece in pieces:
                        yield piece


def _open_at_end(path: Path) -> BinaryIO | None:
    if not path.exists():
        return None
    handle = path.open("rb")
    handle.seek(0, os.SEEK_END)
    return handle


async def _change(watch: Watch, ended: asyncio.Future[Any]) -> None:
    """Wait for the log to grow or the container to end."""
    changed = asyncio.ensure_future(watch.changed())
    try:
        await asyncio.wait([changed, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        changed.cancel()


def _current(path: Path, handle: BinaryIO | None) -> BinaryIO | None:
    """The file to read on in: a new one after a rotation."""
    if not path.exists():
        return handle
    if handle is None:
        return path.open("rb")
    if os.fstat(handle.fileno()).st_ino == path.stat().st_ino:
        return handle
    handle.close()
    return path.open("rb")
