"""Files that a step takes: found by name or pattern below a tree's root, and summed up by their content.

Every lookup is made by the kernel with the tree as its root, so that no link leads out of a context,
an image or a stage; inside a directory that is taken whole no link is followed at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence

from bastide.host.paths import open_in
from bastide.images.dockerfile.ignore import Ignore, matcher
from bastide.model.errors import InvalidArgument, NotFound

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_MATCH_LIMIT = 100_000
DEPTH_LIMIT = 2000


class Found:
    """Something to copy: its name in the tree, links resolved by the kernel, and the last part of it as asked for."""

    __slots__ = ("name", "path")

    def __init__(self, path: str, name: str) -> None:
        self.path, self.name = path, name


class Tree:
    """A tree below the descriptor `root`, which the caller keeps open. `excluded` paths are as if not there."""

    def __init__(self, root: int, excluded: Sequence[str] = (), *, owners: bool = True) -> None:
        self.root = root
        self._ignore = Ignore("\n".join(excluded)) if excluded else None
        self._owners = owners
        """Whether whom a file belongs to is part of what it is (it is not in a context)."""

    def hidden(self, path: str) -> bool:
        """Whether a path below a source is left out."""
        return self._ignore is not None and self._ignore.excludes(path)

    def find(self, pattern: str) -> list[Found]:
        """What a source of COPY names. Raises NotFound in Docker's words."""
        clean = posixpath.normpath("/" + pattern).lstrip("/")
        if not re.search(r"[*?\[\\]", clean):
            self._open(clean, pattern, os.O_PATH)
            return [Found(clean, posixpath.basename(clean))]
        found = [path for path in self._matches(clean) if not self.hidden(path)]
        if not found:
            raise NotFound(f"COPY failed: no source files were specified: nothing matches {pattern}")
        return [Found(path, posixpath.basename(path)) for path in found]

    def _matches(self, pattern: str) -> list[str]:
        """Paths that fit, part by part; a literal part is not looked up until the end."""
        known = [""]
        for part in pattern.split("/"):
            literal = not re.search(r"[*?\[\\]", part)
            matches = matcher(part)
            following: list[str] = []
            for folder in known:
                names = [part] if literal else sorted(name for name in self._names(folder) if matches(name))
                following += [posixpath.join(folder, name) for name in names]
            known = [path for path in following if self._exists(path)]
            if len(known) > _MATCH_LIMIT:
                raise InvalidArgument(f"COPY failed: {pattern} fits more than {_MATCH_LIMIT} files")
        return known

    def _names(self, folder: str) -> list[str]:
        try:
            fd = open_in(self.root, folder or "/", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return []
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def _exists(self, path: str) -> bool:
        try:
            os.close(open_in(self.root, path, os.O_PATH | os.O_NOFOLLOW))
        except OSError:
            return False
        return True

    def _open(self, path: str, shown: str, flags: int) -> int:
        try:
            fd = open_in(self.root, path or "/", flags)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL):
                raise NotFound(
                    "COPY failed: file not found in build context or excluded by .dockerignore: "
                    f"stat {shown}: {error.strerror}"
                ) from error
            raise
        if flags & os.O_PATH:
            os.close(fd)
            return -1
        return fd

    def open(self, found: Found) -> tuple[int, os.stat_result]:
        """A descriptor of what was found, its last link followed within the tree. A special file is refused."""
        probe = open_in(self.root, found.path or "/", os.O_PATH)
        try:
            kind = os.fstat(probe).st_mode
        finally:
            os.close(probe)
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise InvalidArgument(f"COPY failed: {found.path} is neither a file nor a directory")
        fd = open_in(self.root, found.path or "/", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return fd, os.fstat(fd)

    # -- digests -------------------------------------------------------------------------------

    def digest(self, found: Found) -> str:
        """One digest for all that a source holds: names, kinds, modes, contents; times do not count. Blocks."""
        total = hashlib.sha256()
        fd, status = self.open(found)
        try:
            if stat.S_ISDIR(status.st_mode):
                self._sum_directory(fd, b"", total, 0)
            else:
                total.update(self._line(b"", status) + _content(fd).encode())
        finally:
            os.close(fd)
        return total.hexdigest()

    def _line(self, path: bytes, status: os.stat_result) -> bytes:
        owner = b"%d:%d" % (status.st_uid, status.st_gid) if self._owners else b""
        return b"%d:%s%o:%s:%d\0" % (len(path), path, status.st_mode, owner, status.st_rdev)

    def _sum_directory(self, folder: int, inside: bytes, total: hashlib._Hash, depth: int) -> None:
        for name, status, child in walk(folder, inside, depth, self):
            path = inside + name
            total.update(self._line(path, status))
            if stat.S_ISDIR(status.st_mode):
                self._sum_directory(child, path + b"/", total, depth + 1)
            elif stat.S_ISREG(status.st_mode):
                total.update(_content(child).encode() + _capability(child))
            elif stat.S_ISLNK(status.st_mode):
                total.update(os.readlink(name, dir_fd=folder))


def walk(folder: int, inside: bytes, depth: int, tree: Tree) -> Iterator[tuple[bytes, os.stat_result, int]]:
    """The entries of an open directory in order: name, status, and a descriptor of files and directories (else -1).

    A descriptor is closed when the next entry is asked for. Links are never followed.
    """
    if depth > DEPTH_LIMIT:
        raise InvalidArgument("COPY failed: directories are nested too deeply")
    for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
        if tree.hidden(os.fsdecode(inside + name)):
            continue
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        child = -1
        if stat.S_ISDIR(status.st_mode):
            child = os.open(name, _FOLDER, dir_fd=folder)
        elif stat.S_ISREG(status.st_mode):
            child = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            yield name, status, child
        finally:
            if child >= 0:
                os.close(child)


def _content(fd: int) -> str:
    found = hashlib.sha256()
    offset = 0
    while piece := os.pread(fd, _PIECE, offset):
        found.update(piece)
        offset += len(piece)
    return found.hexdigest()


def _capability(fd: int) -> bytes:
    try:
        return os.getxattr(fd, "security.capability")
    except OSError:
        return b""
