"""inotify(7): be told when something in a directory changes, instead of looking again and again."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

from bastide.model.errors import HostError

# linux/inotify.h
_MODIFY, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x80, 0x100, 0x200
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Watches one directory from its making to `close`. Raises HostError (the directory must exist)."""

    def __init__(self, directory: Path) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise HostError("inotify_init1", ctypes.get_errno())
        mask = _MODIFY | _MOVED_TO | _CREATE | _DELETE
        if _libc.inotify_add_watch(self._fd, os.fsencode(directory), mask) < 0:
            error = ctypes.get_errno()
            os.close(self._fd)
            raise HostError("inotify_add_watch", error, directory)

    async def changed(self) -> None:
        """Wait until something changed since the last call (or since the making)."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def announce() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._fd, announce)
        self._loop = loop
        try:
            await ready
            os.read(self._fd, 65536)
        finally:
            self._unregister()

    def _unregister(self) -> None:
        """Take the descriptor from the loop: before it is closed, or its number's next owner is never heard."""
        if self._loop is not None and self._fd >= 0:
            self._loop.remove_reader(self._fd)
        self._loop = None

    def close(self) -> None:
        """Stop watching; a `changed` that waits meanwhile is to be cancelled by its caller."""
        self._unregister()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
