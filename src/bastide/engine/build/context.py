"""The context of a build: its archive unpacked where only the daemon gets, its Dockerfile, its ignored files."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bastide.engine.build import fetch
from bastide.engine.build.options import DEFAULT_NAME, Options
from bastide.engine.build.sources import Tree
from bastide.host.paths import open_in, read_in
from bastide.host.syscalls import blocking
from bastide.host.trees import Trash
from bastide.images.archive import Owner, unpack_plain
from bastide.images.dockerfile.ignore import Ignore
from bastide.images.dockerfile.lines import SIZE_LIMIT
from bastide.images.threads import Channel, in_thread
from bastide.model.errors import InvalidArgument

IGNORE_LIMIT = 1 << 20


class Context:
    """An unpacked context. `tree` finds files in it; `dockerfile` are the bytes to build from."""

    def __init__(self, path: Path, root: int, dockerfile: bytes) -> None:
        self.path, self.root, self.dockerfile = path, root, dockerfile
        self.tree = Tree(root, owners=False)


@asynccontextmanager
async def received(home: Path, trash: Trash, options: Options, data: AsyncIterator[bytes]) -> AsyncIterator[Context]:
    """The context of `data`, or of the place that `options.remote` names, until the block ends.

    `home` is a folder of the daemon's alone. Raises InvalidArgument (no archive, no Dockerfile), HostError,
    ResourceExhausted, Unavailable.
    """
    place = home / os.urandom(8).hex()
    await blocking(place.mkdir, mode=0o700, parents=True)
    try:
        root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if options.remote:
                await fetch.remote_context(options.remote, place)
            else:
                await unpacked(root, data)
            dockerfile = await blocking(_prepare, root, options.dockerfile or DEFAULT_NAME)
            yield Context(place, root, dockerfile)
        finally:
            os.close(root)
    finally:
        trash.put(place)


async def unpacked(root: int, data: AsyncIterator[bytes]) -> None:
    """An archive unpacked below `root`; everything in it is root's."""
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
