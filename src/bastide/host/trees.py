"""Whole directory trees: their size, and their removal away from whoever waits."""

from __future__ import annotations

import os
import queue
import shutil
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


class Trash:
    """A directory whose content is deleted by a thread of the lowest priority.

    What is put in stops existing at once (a rename); the bytes go later, after a crash at the next start.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._queue: queue.SimpleQueue[Path | Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the directory and take up what an earlier process left in it."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.directory.iterdir():
            self._delete(path)

    def put(self, path: Path) -> None:
        """Move a tree of the same file system in; absent is no error."""
        target = self.directory / os.urandom(8).hex()
        try:
            path.rename(target)
        except FileNotFoundError:
            return
        self._delete(target)

    def after(self, function: Callable[[], object]) -> None:
        """Call `function` in that thread when all that was put in so far is gone."""
        self._delete(function)

    def emptied(self) -> threading.Event:
        """An event that is set when all that was put in so far is gone."""
        event = threading.Event()
        self._delete(event.set)
        return event

    def _delete(self, what: Path | Callable[[], object]) -> None:
        self._queue.put(what)
        with self._lock:
            if self._thread is None:
                # A daemon thread: a long deletion does not hold up the end of the process.
                self._thread = threading.Thread(target=self._work, name="trash", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            what = self._queue.get()
            if not isinstance(what, Path):
                what()
            elif what.is_dir() and not what.is_symlink():
                shutil.rmtree(what, ignore_errors=True)
            else:
                what.unlink(missing_ok=True)
