"""inotify(7): be told when something in a directory changes, instead of looking again and again.

The kernel gives a user few inotify instances (128 by default, fs.inotify.max_user_watchers) but many
watches: all watches of an event loop share one instance.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from pathlib import Path
from weakref import WeakKeyDictionary, ref

from bastide.host.syscalls import in_background
from bastide.model.errors import HostError

# linux/inotify.h
_MODIFY, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class _Watcher:
    """The one inotify instance of an event loop; it lives as long as somebody watches."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._fd = -1
        self._watches: dict[int, set[Watch]] = {}

    def add(self, directory: Path, watch: Watch) -> int:
        """Watch a directory; gives its number, the same one for the same directory. Raises HostError."""
        if self._fd < 0:
            self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            if self._fd < 0:
                raise HostError("inotify_init1", ctypes.get_errno())
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        number = _libc.inotify_add_watch(self._fd, os.fsencode(directory), _MODIFY | _MOVED_TO | _CREATE | _DELETE)
        if number < 0:
            error = ctypes.get_errno()
            self._close_if_idle()
            raise HostError("inotify_add_watch", error, directory)
        self._watches.setdefault(number, set()).add(watch)
        return int(number)

    def remove(self, number: int, watch: Watch) -> None:
        """Watch it no more, unless others do."""
        others = self._watches.get(number)
        if others is None:
            return
        others.discard(watch)
        if not others:
            del self._watches[number]
            _libc.inotify_rm_watch(self._fd, number)
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._fd >= 0 and not self._watches:
            if (loop := self._loop()) is not None:
                loop.remove_reader(self._fd)
            # The kernel waits some 10 ms for a grace period of SRCU when an instance goes (fsnotify_destroy_group).
            in_background(os.close, self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        position = 0
        while position < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            if mask & _OVERFLOW:
                for watches in self._watches.values():
                    _announce(watches)
            else:
                _announce(self._watches.get(number, set()))
            if mask & _IGNORED:
                # The directory has gone, and its watch with it.
                self._watches.pop(number, None)
        self._close_if_idle()


def _announce(watches: set[Watch]) -> None:
    for watch in watches:
        watch.announce()


_watchers: WeakKeyDictionary[asyncio.AbstractEventLoop, _Watcher] = WeakKeyDictionary()


class Watch:
    """Watches one directory from its making, in a running event loop, to `close`.

    Raises HostError (the directory must exist).
    """

    def __init__(self, directory: Path) -> None:
        loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._instance = _watchers.setdefault(loop, _Watcher(loop))
        self._number = self._instance.add(directory, self)

    def announce(self) -> None:
        """Something changed."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until something changed since the last call (or since the making)."""
        await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """Stop watching."""
        self._instance.remove(self._number, self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
