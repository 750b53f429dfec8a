"""Paths inside trees that somebody else made: resolved by the kernel, so that nothing leads out of them.

openat2(2) with RESOLVE_IN_ROOT follows links as if the tree were the whole world; with
RESOLVE_NO_MAGICLINKS no descriptor of a process is reached through /proc (Linux 5.6).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bastide.host.syscalls import syscall

_OPENAT2 = 437
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x02, 0x04, 0x08, 0x10


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in(root: int, path: str | bytes, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open `path` as a process with its root at the descriptor `root` would see it. Raises OSError.

    An empty path or `/` is the root itself. The descriptor is close-on-exec.
    """
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    how = _How(flags=flags | os.O_CLOEXEC, mode=mode, resolve=_IN_ROOT | _NO_MAGICLINKS)
    while True:
        try:
            return syscall(_OPENAT2, "openat2", root, name or b"/", ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            # EAGAIN: something in the tree was renamed while it was walked; the kernel asks to try again.
            if error.errno != errno.EAGAIN:
                raise OSError(error.errno, os.strerror(error.errno or 0), os.fsdecode(name)) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whenever this process is killed; an old one is replaced.

    It outlives the process, not the host: nothing is flushed to a disk. Raises OSError.
    """
    made = path.with_name(f".{path.name}.new")
    made.write_bytes(data)
    made.rename(path)


@contextlib.contextmanager
def root_of(directory: str | Path) -> Iterator[int]:
    """A descriptor of a tree's root for `open_in`."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def read_in(root: int, path: str, limit: int) -> bytes | None:
    """At most `limit` bytes of a regular file in the tree; None when there is no such file."""
    try:
        fd = open_in(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        pieces = []
        while limit > 0 and (piece := os.read(fd, min(limit, 1 << 16))):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def stat_in(root: int, path: str) -> os.stat_result | None:
    """What `path` leads to in the tree; None when it leads nowhere."""
    try:
        fd = open_in(root, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            return None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def lstat_below(root: int, path: str) -> os.stat_result | None:
    """The entry `path` itself, reached through directories alone; None when there is none.

    A link on the way does not lead on: what is behind it is not below `root` by this name.
    """
    how = _How(flags=os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, resolve=_BENEATH | _NO_MAGICLINKS | _NO_SYMLINKS)
    parent, _, name = path.strip("/").rpartition("/")
    try:
        folder = syscall(_OPENAT2, "openat2", root, os.fsencode(parent) or b".", ctypes.byref(how), ctypes.sizeof(how))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return os.lstat(name or ".", dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    finally:
        os.close(folder)
