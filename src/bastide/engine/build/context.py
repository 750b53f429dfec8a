"""The context of a build: its archive unpacked where only the daemon gets, its Dockerfile, its ignored files."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bastide.engine.build import fetch
from bastide.engine.build.options import DEFAULT_NAME, Options
from bastide.engine.build.sources import Tree
from bastide.host import mounts
from bastide.host.paths import open_in, read_in
from bastide.host.syscalls import blocking
from bastide.host.trees import Trash
from bastide.images.archive import Owner, unpack_plain
from bastide.images.dockerfile.ignore import Ignore
from bastide.images.dockerfile.lines import SIZE_LIMIT
from bastide.images.threads import Channel, in_thread
from bastide.model.errors import InvalidArgument, ResourceExhausted

IGNORE_LIMIT = 1 << 20
SMALL = 32 << 20
"""Bytes of a body whose context is unpacked in memory."""
AT_ONCE = 4
"""Contexts that may be in memory at once."""
_NOSUID, _NODEV = 2, 4
_MEMORY = "mode=0700,size=128m,nr_inodes=200k"


class Context:
    """An unpacked context. `tree` finds files in it; `dockerfile` are the bytes to build from."""

    def __init__(self, path: Path, root: int, dockerfile: bytes) -> None:
        self.path, self.root, self.dockerfile = path, root, dockerfile
        self.tree = Tree(root, owners=False)


class Places:
    """Where contexts are unpacked: small ones in memory, where they come and go quickly, others on disk.

    `home` is a folder of the daemon's alone in the data root, `memory` one in the run root.
    """

    def __init__(self, home: Path, memory: Path, trash: Trash) -> None:
        self._home, self._memory, self._trash = home, memory, trash
        self._in_use = 0

    @asynccontextmanager
    async def received(self, options: Options, data: AsyncIterator[bytes]) -> AsyncIterator[Context]:
        """The context of `data`, or of the place that `options.remote` names, until the block ends.

        Raises InvalidArgument (no archive, no Dockerfile), HostError, ResourceExhausted, Unavailable.
        """
        async with AsyncExitStack() as until:
            if options.remote:
                place, root = await self._on_disk(until)
                await fetch.remote_context(options.remote, place)
            else:
                place, root = await self._unpacked(data, until)
            yield Context(place, root, await blocking(_prepare, root, options.dockerfile or DEFAULT_NAME))

    async def _unpacked(self, data: AsyncIterator[bytes], until: AsyncExitStack) -> tuple[Path, int]:
        """An archive unpacked; everything in it is root's."""
        first, whole = await _beginning(data)
        if whole and self._in_use < AT_ONCE:
            async with AsyncExitStack() as attempt:
                place, root = await self._in_memory(attempt)
                try:
                    await _unpack(root, _pieces(first))
                except ResourceExhausted:
                    # It is compressed, and too large without that.
                    pass
                else:
                    until.push_async_exit(attempt.pop_all())
                    return place, root
        place, root = await self._on_disk(until)
        await _unpack(root, _pieces(first) if whole else _pieces(first, data))
        return place, root

    async def _on_disk(self, until: AsyncExitStack) -> tuple[Path, int]:
        place = self._home / os.urandom(8).hex()
        await blocking(place.mkdir, mode=0o700, parents=True)
        until.callback(self._trash.put, place)
        return place, _opened(place, until)

    async def _in_memory(self, until: AsyncExitStack) -> tuple[Path, int]:
        self._in_use += 1
        until.callback(self._leave)
        place = self._memory / f"context-{os.urandom(8).hex()}"
        await blocking(_mount_memory, place)
        until.push_async_callback(blocking, _unmount_memory, place)
        return place, _opened(place, until)

    def _leave(self) -> None:
        self._in_use -= 1


def _opened(place: Path, until: AsyncExitStack) -> int:
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    until.callback(os.close, root)
    return root


def _mount_memory(place: Path) -> None:
    place.mkdir(mode=0o700, parents=True)
    mounts.mount("tmpfs", place, "tmpfs", _NOSUID | _NODEV, _MEMORY)


def _unmount_memory(place: Path) -> None:
    mounts.unmount_all(place)
    place.rmdir()


async def _beginning(data: AsyncIterator[bytes]) -> tuple[list[bytes], bool]:
    """The first pieces of a stream, and whether that is all of it."""
    pieces, size = [], 0
    async for piece in data:
        pieces.append(piece)
        size += len(piece)
        if size > SMALL:
            return pieces, False
    return pieces, True


async def _pieces(first: list[bytes], rest: AsyncIterator[bytes] | None = None) -> AsyncIterator[bytes]:
    for piece in first:
        yield piece
    if rest is not None:
        async for piece in rest:
            yield piece


async def _unpack(root: int, data: AsyncIterator[bytes]) -> None:
    channel = Channel()
    work = asyncio.create_task(in_thread("context", unpack_plain, channel, root, ".", owner=Owner(0, 0)))
    await channel.fill(data, work)
    await work


def _prepare(root: int, name: str) -> bytes:
    """The Dockerfile, and the context without what `.dockerignore` takes from it.

    A client leaves out what is ignored, but must send these two files themselves: COPY may not see them
    when a rule names them.
    """
    path = posixpath.normpath("/" + name)
    if path == "/":
        raise InvalidArgument("the Dockerfile needs a name")
    data = read_in(root, path, SIZE_LIMIT + 1)
    if data is None:
        raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}")
    if not data.strip():
        raise InvalidArgument(f"the Dockerfile ({name}) cannot be empty")
    rules = read_in(root, "/.dockerignore", IGNORE_LIMIT)
    if rules:
        ignore = Ignore(rules.decode(errors="replace"))
        for own in (path.lstrip("/"), ".dockerignore"):
            if ignore.excludes(own):
                _remove(root, own)
    return data


def _remove(root: int, path: str) -> None:
    above, last = posixpath.split(path)
    folder = open_in(root, above or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.unlink(last, dir_fd=folder)
    except FileNotFoundError:
        pass
    finally:
        os.close(folder)
