"""Places that a step's mounts need in its root file system, and how they go away again.

A runtime makes what it mounts on where the image has none: an empty file or directory. Such a stub is no
change of the step's. What is missing is told before the step runs, while nobody changes the tree; what is
removed after it is looked up in the changes alone, through no link (CVE-2024-23652).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterable

from bastide.host.paths import lstat_below, open_in

_LINKS = 40
ALWAYS = (
    "/dev/console",
    "/dev/mqueue",
    "/dev/pts",
    "/dev/shm",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys/fs/cgroup",
)
"""What every container's start mounts on."""


class Stubs:
    """What a start will make in a tree. `root` is a descriptor of it as it is before."""

    def __init__(self, root: int, targets: Iterable[str]) -> None:
        self._missing: set[str] = set()
        self._present: dict[str, os.stat_result] = {}
        for target in (*ALWAYS, *targets):
            self._note(root, target)

    def _note(self, root: int, target: str) -> None:
        """Walk to a target as the kernel would, links included, and note each step."""
        pending, done, links = target.split("/")[::-1], "", 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = posixpath.dirname(done)
                continue
            path = f"{done}/{part}"
            found = _lstat(root, done, part)
            if found is not None and stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _LINKS:
                    return
                leads = _readlink(root, done, part)
                done = "" if leads.startswith("/") else done
                pending += leads.split("/")[::-1]
                continue
            if found is None:
                self._missing.add(path)
            else:
                self._present[path] = found
            done = path

    def remove(self, upper: int) -> None:
        """Take the stubs out of the changes at descriptor `upper`, and directories that only they changed."""
        for path in sorted(self._missing, key=lambda path: -path.count("/")):
            found = lstat_below(upper, path)
            if found is None:
                continue
            if stat.S_ISDIR(found.st_mode):
                _drop(upper, path, directory=True)
            elif stat.S_ISREG(found.st_mode) and not found.st_size:
                _drop(upper, path, directory=False)
        for path in sorted(self._present, key=lambda path: -path.count("/")):
            before, found = self._present[path], lstat_below(upper, path)
            if found is None or not stat.S_ISDIR(found.st_mode):
                continue
            same = (before.st_mode, before.st_uid, before.st_gid) == (found.st_mode, found.st_uid, found.st_gid)
            if same and not _opaque(upper, path):
                _drop(upper, path, directory=True)


def _lstat(root: int, folder: str, name: str) -> os.stat_result | None:
    try:
        fd = open_in(root, folder or "/", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return None
    finally:
        os.close(fd)


def _readlink(root: int, folder: str, name: str) -> str:
    fd = open_in(root, folder or "/", os.O_PATH | os.O_DIRECTORY)
    try:
        return os.readlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _folder(upper: int, path: str) -> int:
    """A directory of the changes, reached through directories alone."""
    fd = os.dup(upper)
    for part in path.strip("/").split("/"):
        if not part:
            continue
        try:
            child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        finally:
            os.close(fd)
        fd = child
    return fd


def _drop(upper: int, path: str, *, directory: bool) -> None:
    above, name = posixpath.split(path)
    with contextlib.suppress(OSError):  # it is not empty, or changed its kind: then it is the step's own
        parent = _folder(upper, above)
        try:
            if directory:
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)


def _opaque(upper: int, path: str) -> bool:
    try:
        fd = _folder(upper, path)
    except OSError:
        return True
    try:
        return os.getxattr(fd, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)
