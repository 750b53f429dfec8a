"""Reading a container's log: the CRI format that the monitor writes, rotated files included.

A line is `<RFC 3339 time> <stdout|stderr> <P|F> <text>`; P marks a part of a longer line. Source:
Kubernetes' CRI logging format (kubelet, `kuberuntime/logs`). A rotated file has a number behind its name, 1 is the
youngest, and `.gz` where it is packed.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
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
PACKED = ".gz"
"""How the name of a packed file of a log ends."""


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a log. `since` and `until` are seconds since the epoch; `tail` -1 means all lines.

    `details`: what the log was told to keep of its container stands before each line, behind the time.
    """

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    timestamps: bool = False
    since: float = 0.0
    until: float = 0.0
    tail: int = -1
    details: bool = False


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

    def __init__(self, query: LogQuery, details: bytes) -> None:
        self._query, self._details = query, details if query.details else b""
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
        if not self._within.get(name):
            text = (_docker_stamp(stamp) + b" " if query.timestamps else b"") + self._details + text
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
    numbered: dict[int, Path] = {}
    for name in os.listdir(path.parent):
        match = re.fullmatch(re.escape(path.name) + r"\.([0-9]{1,3})(\.gz)?", name)
        # While a file is packed there are both: the plain one is whole.
        if match is not None and not (match[2] and int(match[1]) in numbered):
            numbered[int(match[1])] = path.parent / name
    old = [numbered[number] for number in sorted(numbered, reverse=True)]
    return [*old, path] if path.exists() else old


def _open(path: Path) -> list[BinaryIO]:
    """The files of a log, open, oldest first, and as they were at one moment whatever rotates meanwhile."""
    while True:
        with ExitStack() as undo:
            try:
                present = files(path)
                handles = [undo.enter_context(_reader(file)) for file in present]
                same = all(
                    os.path.samestat(os.fstat(h.fileno()), f.stat()) for h, f in zip(handles, present, strict=True)
                )
            except FileNotFoundError:
                if not path.parent.exists():
                    return []
                continue
            if same:
                undo.pop_all()
                return handles


def _reader(file: Path) -> BinaryIO:
    return gzip.open(file, "rb") if file.suffix == PACKED else file.open("rb")  # type: ignore[return-value]


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


def _last(handles: list[BinaryIO], query: LogQuery, details: bytes) -> list[tuple[Stream, bytes]]:
    """The last `tail` lines over all files, which are read to their ends."""
    selector = _Selector(query, details)
    kept: deque[list[tuple[Stream, bytes]]] = deque(maxlen=max(query.tail, 1))
    line: list[tuple[Stream, bytes]] = []
    for handle in handles:
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


async def read(
    path: Path, query: LogQuery, ended: asyncio.Future[Any] | None, details: bytes = b""
) -> AsyncIterator[tuple[Stream, bytes]]:
    """The pieces of a log that the query asks for; with `follow` until `ended` is done.

    `ended` is None when the container does not run. Nothing polls: inotify announces new output.
    """
    selector = _Selector(query, details)
    try:
        watching = Watch(path.parent)
    except HostError as error:
        if error.errno == errno.ENOENT:
            return  # removed meanwhile: there is nothing more that it said
        raise
    handles: list[BinaryIO] = []
    with watching as watch:
        try:
            handles = await blocking(_open, path)
            if query.tail >= 0:
                for piece in await blocking(_last, handles, query, details):
                    yield piece
            for handle in handles:
                async for piece in _rest(handle, selector):
                    yield piece
            while query.follow and ended is not None and not selector.past_end:
                if not (last := ended.done()):
                    await _change(watch, ended)
                newer = await blocking(_newer, path, handles)
                # To its end, also when the monitor has begun another file: that has what was said later.
                for handle in handles[-1:]:
                    async for piece in _rest(handle, selector):
                        yield piece
                if newer is not None:
                    _close(handles)
                    handles.append(newer)
                    async for piece in _rest(newer, selector):
                        yield piece
                if last:
                    return
        finally:
            _close(handles)


def _close(handles: list[BinaryIO]) -> None:
    while handles:
        handles.pop().close()


async def _rest(handle: BinaryIO, selector: _Selector) -> AsyncIterator[tuple[Stream, bytes]]:
    """What a file has from here on."""
    while not selector.past_end and (pieces := await blocking(_read_some, handle, selector)):
        for piece in pieces:
            yield piece


async def _change(watch: Watch, ended: asyncio.Future[Any]) -> None:
    """Wait for the log to grow or the container to end."""
    changed = asyncio.ensure_future(watch.changed())
    try:
        await asyncio.wait([changed, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        changed.cancel()


def _newer(path: Path, handles: list[BinaryIO]) -> BinaryIO | None:
    """The file that is written to now where that is not the last of `handles` (any more)."""
    try:
        newer = path.open("rb")
    except FileNotFoundError:
        return None
    if handles and os.path.samestat(os.fstat(handles[-1].fileno()), os.fstat(newer.fileno())):
        newer.close()
        return None
    return newer
