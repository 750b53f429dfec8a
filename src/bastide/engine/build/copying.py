"""COPY and ADD: files placed in a snapshot, below its root whatever links the image has planted there.

The target is looked up by the kernel with the snapshot as its root; below it every step is taken from
an open directory and follows no link. Rules of names: Dockerfile reference, "COPY" and "ADD".
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import shutil
import stat
from collections.abc import Iterator

import msgspec

from bastide.engine.build.sources import Found, Tree, walk
from bastide.host.paths import open_in
from bastide.images.archive import Owner, unpack_plain
from bastide.images.compression import decompress
from bastide.images.tar import MalformedArchive, Reader
from bastide.model.errors import InvalidArgument

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_LINKS = 40
"""Links that a path may lead through, as the kernel has it."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Whose the copies are and how they are protected. None: as the source has it.

    `chosen`: the owner was asked for (`--chown`), so that it counts for unpacked archives too.
    """

    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    chosen: bool = False


class Placer:
    """Places sources in the tree of the descriptor `root`. `target` is absolute, its last slash means a directory."""

    def __init__(self, root: int, look: Look) -> None:
        self._root, self._look = root, look
        self._hard: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._device = os.fstat(root).st_dev

    def place(self, tree: Tree, found: Found, target: str, *, unpack: bool, parents: bool) -> None:
        """One source. `unpack`: an archive is unpacked (ADD). `parents`: its path is kept (COPY --parents). Blocks."""
        fd, status = tree.open(found)
        try:
            if stat.S_ISDIR(status.st_mode):
                into = posixpath.join(target, found.path) if parents else target
                self._directory(tree, fd, into)
            elif unpack and is_archive(fd):
                self._archive(fd, target)
            else:
                folder = posixpath.join(target, posixpath.dirname(found.path)) + "/" if parents else target
                self._file(fd, status, folder, found.name)
        finally:
            os.close(fd)

    # -- the target ----------------------------------------------------------------------------

    def folder(self, path: str) -> int:
        """A descriptor of a directory of the tree; missing ones are made, and are the copies' owner's."""
        try:
            return open_in(self._root, path or "/", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            above, name = posixpath.split(path.rstrip("/"))
            if not name:
                raise
        except NotADirectoryError as error:
            raise InvalidArgument(f"cannot copy to non-directory: {path}") from error
        parent = self.folder(above)
        try:
            return self._make(parent, name, path)
        finally:
            os.close(parent)

    def _make(self, parent: int, name: str, path: str) -> int:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError as error:
            # The name is a link that leads nowhere.
            raise InvalidArgument(f"cannot copy to {path}: it is a link to nothing") from error
        fd = os.open(name, _FOLDER, dir_fd=parent)
        os.fchown(fd, self._look.uid or 0, self._look.gid or 0)
        os.fchmod(fd, 0o755)
        return fd

    def is_folder(self, path: str) -> bool:
        """Whether the tree has a directory at a path."""
        try:
            os.close(open_in(self._root, path, os.O_PATH | os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def _resolved(self, path: str) -> str:
        """A path whose last part is no link: what a link there leads to, within the tree."""
        for _ in range(_LINKS):
            above, name = posixpath.split(path.rstrip("/"))
            try:
                parent = open_in(self._root, above or "/", os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                return path
            try:
                path = posixpath.join(above, os.readlink(name, dir_fd=parent))
            except OSError:
                return path
            finally:
                os.close(parent)
        raise InvalidArgument(f"cannot copy to {path}: too many links")

    # -- kinds of sources ----------------------------------------------------------------------

    def _spot(self, target: str, name: str) -> tuple[int, bytes]:
        """Where a file goes: a descriptor of its directory, and its name there; what has that name is gone."""
        if target.endswith("/") or self.is_folder(target):
            folder = self.folder(target.rstrip("/") or "/")
        else:
            above, name = posixpath.split(self._resolved(target))
            folder = self.folder(above)
        try:
            clear(folder, os.fsencode(name), keep_directory=False)
        except BaseException:
            os.close(folder)
            raise
        return folder, os.fsencode(name)

    def _file(self, fd: int, status: os.stat_result, target: str, name: str) -> None:
        folder, last = self._spot(target, name)
        try:
            self._write(folder, last, fd, status)
        finally:
            os.close(folder)

    def document(self, target: str, name: str, data: bytes, moment: int) -> None:
        """A file from a here-document; `moment` is its time in nanoseconds. Blocks."""
        folder, last = self._spot(target, name)
        try:
            fd = os.open(last, _FRESH, 0o600, dir_fd=folder)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
                os.fchown(fd, self._look.uid or 0, self._look.gid or 0)
                os.fchmod(fd, 0o644 if self._look.mode is None else self._look.mode)
                os.utime(fd, ns=(moment, moment))
            finally:
                os.close(fd)
        finally:
            os.close(folder)

    def _directory(self, tree: Tree, fd: int, target: str) -> None:
        """The content of a directory goes into the target; the target is as any directory that is missing."""
        folder = self.folder(target.rstrip("/") or "/")
        try:
            self._fill(tree, fd, folder, b"", 0)
        finally:
            os.close(folder)

    def _archive(self, fd: int, target: str) -> None:
        """An archive keeps its modes and, unless another was asked for, its owners."""
        owner = Owner(self._look.uid or 0, self._look.gid or 0) if self._look.chosen else None
        folder = self.folder(target.rstrip("/") or "/")
        try:
            unpack_plain(chunks(fd), folder, ".", owner=owner)
        finally:
            os.close(folder)

    # -- copying -------------------------------------------------------------------------------

    def _fill(self, tree: Tree, source: int, target: int, inside: bytes, depth: int) -> None:
        for name, status, child in walk(source, inside, depth, tree):
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(tree, name, status, child, target, inside, depth)
            elif stat.S_ISREG(status.st_mode):
                clear(target, name, keep_directory=False)
                if not self._linked(name, status, target):
                    self._write(target, name, child, status)
            elif stat.S_ISLNK(status.st_mode):
                clear(target, name, keep_directory=False)
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
                self._own(target, name, status)
                stamp(target, name, status)
            elif stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                clear(target, name, keep_directory=False)
                os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
                self._own(target, name, status)
                stamp(target, name, status)

    def _subdirectory(
        self, tree: Tree, name: bytes, status: os.stat_result, child: int, target: int, inside: bytes, depth: int
    ) -> None:
        if not clear(target, name, keep_directory=True):
            os.mkdir(name, 0o700, dir_fd=target)
        folder = os.open(name, _FOLDER, dir_fd=target)
        try:
            self._fill(tree, child, folder, inside + name + b"/", depth + 1)
            self._finish(folder, status)
        finally:
            os.close(folder)

    def _finish(self, folder: int, status: os.stat_result) -> None:
        os.fchown(folder, *self._owner(status))
        os.fchmod(folder, self._mode(status))
        os.utime(folder, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        look = self._look
        return (
            status.st_uid if look.uid is None else look.uid,
            status.st_gid if look.gid is None else look.gid,
        )

    def _mode(self, status: os.stat_result) -> int:
        return stat.S_IMODE(status.st_mode) if self._look.mode is None else self._look.mode

    def _own(self, folder: int, name: bytes, status: os.stat_result) -> None:
        uid, gid = self._owner(status)
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)

    def _linked(self, name: bytes, status: os.stat_result, target: int) -> bool:
        """Make a name of a file that was copied already under another name."""
        if status.st_nlink < 2:
            return False
        key = (status.st_dev, status.st_ino)
        first = self._hard.get(key)
        if first is None:
            self._hard[key] = (os.dup(target), name)
            return False
        try:
            os.link(first[1], name, src_dir_fd=first[0], dst_dir_fd=target, follow_symlinks=False)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of what hard links needed."""
        for folder, _ in self._hard.values():
            os.close(folder)
        self._hard.clear()

    def _write(self, folder: int, name: bytes, source: int, status: os.stat_result) -> None:
        fd = os.open(name, _FRESH, 0o600, dir_fd=folder)
        try:
            _transfer(source, fd)
            os.fchown(fd, *self._owner(status))
            os.fchmod(fd, self._mode(status))
            with contextlib.suppress(OSError):
                os.setxattr(fd, "security.capability", os.getxattr(source, "security.capability"))
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)


def clear(folder: int, name: bytes, *, keep_directory: bool) -> bool:
    """Make room for a name; with `keep_directory` a directory stays, and True says so."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return False
    if keep_directory:
        return True
    shutil.rmtree(name, dir_fd=folder)
    return False


def stamp(folder: int, name: bytes, status: os.stat_result) -> None:
    """The source's time on what is no file."""
    os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=folder, follow_symlinks=False)


def _transfer(source: int, target: int) -> None:
    offset = 0
    try:
        while count := os.copy_file_range(source, target, 1 << 30, offset_src=offset):
            offset += count
        return
    except OSError as error:
        if offset or error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    while piece := os.pread(source, _PIECE, offset):
        offset += len(piece)
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]


def chunks(fd: int) -> Iterator[bytes]:
    """A file in pieces, from its beginning."""
    offset = 0
    while piece := os.pread(fd, _PIECE, offset):
        offset += len(piece)
        yield piece


def is_archive(fd: int) -> bool:
    """Whether a file is a tar archive, compressed or not: its first header can be read."""
    try:
        return Reader(decompress(chunks(fd))).next() is not None
    except (MalformedArchive, InvalidArgument):
        return False
