"""Whole directory trees: their size, and their removal away from whoever waits."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def measure(directory: Path) -> tuple[int, int]:
    """Bytes allocated and inodes of a tree; a file with several names counts once."""
    seen: set[int] = set()
    size = 0
    folders = [str(directory)]
    while folders:
        try:
            found = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in found:
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                size += status.st_blocks * 512
    return size, len(seen)


class Worker:
    """A thread of the lowest priority that does what it is given, in order.

    It is a daemon thread: what is left to do does not hold up the end of the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, work: Callable[[], object]) -> None:
        """Have it done. What it raises is lost."""
        self._queue.put(work)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            work = self._queue.get()
            with contextlib.suppress(Exception):
                work()


# linux/fs.h; the argument is an int, whatever the number's size field says.
_GET_FLAGS, _SET_FLAGS, _TOP_DIRECTORY = 0x80086601, 0x40086602, 0x00020000


def spread(directory: Path) -> bool:
    """Have ext4 put what is made in `directory` into block groups far apart; False where that is not known.

    ext4 takes no inode again for minutes after its deletion and looks at each of them whenever it makes
    a new one in the same group (fs/ext4/ialloc.c, recently_deleted): a layer of 9,000 files unpacked
    after one was removed costs 3 to 5 s of the kernel's time, spread out 0.3 s.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = int.from_bytes(fcntl.ioctl(fd, _GET_FLAGS, bytes(8))[:4], sys.byteorder)
        fcntl.ioctl(fd, _SET_FLAGS, (flags | _TOP_DIRECTORY).to_bytes(8, sys.byteorder))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


class Trash:
    """A directory whose content is deleted in the background.

    What is put in stops existing at once (a rename); the bytes go later, after a crash at the next start.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._worker = Worker("trash")

    def open(self) -> None:
        """Make the directory and take up what an earlier process left in it."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.directory.iterdir():
            self._worker.put(functools.partial(_delete, path))

    def put(self, path: Path) -> None:
        """Move a tree of the same file system in; absent is no error."""
        target = self.directory / os.urandom(8).hex()
        try:
            path.rename(target)
        except FileNotFoundError:
            return
        self._worker.put(functools.partial(_delete, target))

    def emptied(self) -> threading.Event:
        """An event that is set when all that was put in so far is gone."""
        event = threading.Event()
        self._worker.put(event.set)
        return event


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
