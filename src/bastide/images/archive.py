"""Unpacking tar streams into directories that nothing leads out of.

Every name is resolved by the kernel below the target's descriptor (openat2 with RESOLVE_IN_ROOT), the
last component never through a link. Layers keep deletions in the overlay's own form (a 0/0 character
device, `trusted.overlay.opaque`), see the Snapshotter contract. Whiteouts: OCI image-spec, layer.md.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from bastide.host.paths import open_in
from bastide.images.compression import decompress
from bastide.images.tar import Entry, Kind, MalformedArchive, Reader, shown
from bastide.images.threads import Channel, in_thread
from bastide.model.errors import InvalidArgument

ENTRY_LIMIT = 5_000_000
"""Entries of one archive."""
_DIRECTORIES_OPEN = 64
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."
_OVERLAY_OPAQUE = "trusted.overlay.opaque"
_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
"""What an archive may set; `trusted.` and `user.overlay.` would speak to the overlay itself."""
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NODES = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


class Owner:
    """Who files belong to, where that is not what the archive says."""

    __slots__ = ("gid", "uid")

    def __init__(self, uid: int, gid: int) -> None:
        self.uid, self.gid = uid, gid


def clean(name: bytes) -> bytes:
    """A name without `.`, `..` and slashes at its ends; b"" is the root. Raises MalformedArchive when it climbs out."""
    if b"//" not in name and b"." not in name:
        return name.strip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise MalformedArchive(f"archive has a name that leads out of its tree: {shown(name)}")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


class Extractor:
    """Unpacks entries below `prefix` in the tree of the descriptor `root`, which the caller keeps open.

    `layer`: whiteouts are translated. `no_overwrite_dir`: a directory is never replaced by something else,
    nor the reverse. After `finish` the counts are right: `size`, the bytes of all files, and `entries`.
    """

    def __init__(
        self,
        root: int,
        prefix: bytes = b"",
        *,
        layer: bool = False,
        no_overwrite_dir: bool = False,
        owner: Owner | None = None,
    ) -> None:
        self._root, self._prefix = root, prefix.strip(b"/")
        # What is made in a layer is root's already; elsewhere a set-group-id directory may have given another group.
        self._layer, self._keep, self._owner = layer, no_overwrite_dir, owner
        self._open: dict[bytes, int] = {}
        self._later: dict[bytes, tuple[int, int]] = {}
        """Mode and time of directories, set at the end: filling them changes both."""
        self._hidden: set[bytes] = set()
        """What whiteouts of this layer deleted."""
        self.size = self.entries = 0

    def run(self, reader: Reader) -> None:
        """Unpack everything. Raises MalformedArchive and OSError."""
        try:
            while (entry := reader.next()) is not None:
                self.entries += 1
                if self.entries > ENTRY_LIMIT:
                    raise MalformedArchive(f"archive has more than {ENTRY_LIMIT} entries")
                try:
                    self._place(entry, reader)
                except OSError as error:
                    raise OSError(error.errno, error.strerror, shown(entry.name)) from error
            self._finish()
        finally:
            self._forget()

    # -- directories ---------------------------------------------------------------------------

    def _forget(self) -> None:
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def _parent(self, path: bytes) -> int:
        """A descriptor of a directory of the tree; missing ones are made."""
        fd = self._open.get(path)
        if fd is not None:
            return fd
        full = self._prefix + b"/" + path if self._prefix and path else self._prefix or path
        try:
            fd = open_in(self._root, full or b".", _FOLDER)
        except FileNotFoundError:
            if not path:
                raise
            fd = self._make_parent(path)
        if len(self._open) >= _DIRECTORIES_OPEN:
            self._forget()
        self._open[path] = fd
        return fd

    def _make_parent(self, path: bytes) -> int:
        above, _, name = path.rpartition(b"/")
        parent = self._parent(above)
        os.mkdir(name, 0o755, dir_fd=parent)
        fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        os.fchmod(fd, 0o755)
        if self._owner is not None:
            os.fchown(fd, self._owner.uid, self._owner.gid)
        return fd

    # -- entries -------------------------------------------------------------------------------

    def _place(self, entry: Entry, reader: Reader) -> None:
        path = clean(entry.name)
        if not path:
            if entry.kind is Kind.DIRECTORY:
                self._root_entry(entry)
            return
        folder, _, name = path.rpartition(b"/")
        if self._layer and name.startswith(_WHITEOUT):
            self._whiteout(folder, name)
            return
        if self._layer and _RESERVED in folder and any(part.startswith(_RESERVED) for part in folder.split(b"/")):
            return
        parent = self._parent(folder)
        if self._owner is not None:
            entry.uid, entry.gid = self._owner.uid, self._owner.gid
        kind = entry.kind
        if kind is Kind.FILE:
            self._file(parent, path, name, entry, reader)
        elif kind is Kind.DIRECTORY:
            self._directory(parent, path, name, entry, reader)
        elif kind is Kind.SYMLINK:
            self._symlink(parent, path, name, entry, reader)
        elif kind is Kind.LINK:
            self._link(parent, path, name, entry)
        else:
            self._node(parent, path, name, entry, reader)

    def _root_entry(self, entry: Entry) -> None:
        """The tree's root itself: an image may set its owner and mode, a copy into a container may not."""
        if not self._layer:
            return
        os.chown(self._root, entry.uid, entry.gid)
        self._later[b""] = (entry.mode, entry.mtime)

    def _file(self, parent: int, path: bytes, name: bytes, entry: Entry, reader: Reader) -> None:
        try:
            fd = os.open(name, _FRESH, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, path, name, entry.kind)
            fd = os.open(name, _FRESH, 0o600, dir_fd=parent)
        try:
            if entry.sparse is not None:
                _write_sparse(fd, entry, reader)
            else:
                for piece in reader.pieces():
                    while written := os.write(fd, piece):
                        if written == len(piece):
                            break
                        piece = piece[written:]
            if entry.uid or entry.gid or not self._layer:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if reader.xattrs:
                _set_xattrs(fd, reader.xattrs)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        self.size += entry.size

    def _directory(self, parent: int, path: bytes, name: bytes, entry: Entry, reader: Reader) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._clear(parent, path, name, entry.kind)
                os.mkdir(name, 0o700, dir_fd=parent)
        if entry.uid or entry.gid or not self._layer:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if reader.xattrs or path in self._hidden:
            fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
            try:
                _set_xattrs(fd, reader.xattrs)
                if path in self._hidden:
                    os.setxattr(fd, _OVERLAY_OPAQUE, b"y")
            finally:
                os.close(fd)
        self._later[path] = (entry.mode, entry.mtime)

    def _symlink(self, parent: int, path: bytes, name: bytes, entry: Entry, reader: Reader) -> None:
        try:
            os.symlink(entry.link, name, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, path, name, entry.kind)
            os.symlink(entry.link, name, dir_fd=parent)
        if entry.uid or entry.gid or not self._layer:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _link(self, parent: int, path: bytes, name: bytes, entry: Entry) -> None:
        target = clean(entry.link)
        folder, _, last = target.rpartition(b"/")
        if not last:
            raise MalformedArchive(f"archive has a hard link to a directory: {shown(entry.name)}")
        if path == target:
            return
        source = self._parent(folder)
        if folder != path.rpartition(b"/")[0]:
            # Opening one directory may have closed the other.
            parent = self._parent(path.rpartition(b"/")[0])
            source = self._parent(folder)
        try:
            os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            self._clear(parent, path, name, entry.kind)
            parent, source = self._parent(path.rpartition(b"/")[0]), self._parent(folder)
            os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _node(self, parent: int, path: bytes, name: bytes, entry: Entry, reader: Reader) -> None:
        device = os.makedev(entry.major, entry.minor) if entry.kind is not Kind.FIFO else 0
        mode = _NODES[entry.kind] | 0o600
        try:
            os.mknod(name, mode, device, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, path, name, entry.kind)
            os.mknod(name, mode, device, dir_fd=parent)
        if entry.uid or entry.gid or not self._layer:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        # By descriptor: a process of the container may have put a link in the node's place.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            Path(f"/proc/self/fd/{fd}").chmod(entry.mode)
        finally:
            os.close(fd)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _clear(self, parent: int, path: bytes, name: bytes, kind: Kind) -> None:
        """Make room for an entry whose name is taken."""
        folder = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        if self._keep and folder:
            raise InvalidArgument(f'cannot overwrite directory "/{shown(path)}" with non-directory')
        if self._keep and kind is Kind.DIRECTORY:
            raise InvalidArgument(f'cannot overwrite non-directory "/{shown(path)}" with directory')
        # A directory, or a link to one, no longer leads where it did.
        inside = path + b"/"
        for known in [known for known in self._open if known == path or known.startswith(inside)]:
            os.close(self._open.pop(known))
        for known in [known for known in self._later if known == path or known.startswith(inside)]:
            del self._later[known]
        if folder:
            shutil.rmtree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    # -- whiteouts -----------------------------------------------------------------------------

    def _whiteout(self, folder: bytes, name: bytes) -> None:
        if name == _OPAQUE:
            os.setxattr(self._parent(folder), _OVERLAY_OPAQUE, b"y")
            return
        if name.startswith(_RESERVED):
            return  # aufs's own files
        target = name[len(_WHITEOUT) :]
        if target in (b"", b".", b".."):
            raise MalformedArchive(f"archive has a whiteout of no name: {shown(name)}")
        parent = self._parent(folder)
        path = folder + b"/" + target if folder else target
        self._hidden.add(path)
        try:
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # This layer has the name as well: it hides what is below by itself, a directory when opaque.
            if stat.S_ISDIR(os.stat(target, dir_fd=parent, follow_symlinks=False).st_mode):
                fd = os.open(target, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
                try:
                    os.setxattr(fd, _OVERLAY_OPAQUE, b"y")
                finally:
                    os.close(fd)

    def _finish(self) -> None:
        """Modes and times of directories, the deepest first."""
        for path in sorted(self._later, key=lambda path: path.count(b"/"), reverse=True):
            mode, mtime = self._later[path]
            folder, _, name = path.rpartition(b"/")
            try:
                fd = os.open(name or b".", _FOLDER | os.O_NOFOLLOW, dir_fd=self._parent(folder))
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced under another of its names
            try:
                os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)


def _write_sparse(fd: int, entry: Entry, reader: Reader) -> None:
    source = reader.pieces()
    rest = memoryview(b"")
    for offset, length in entry.sparse or ():
        while length:
            if not rest:
                rest = next(source)
            count = os.pwrite(fd, rest[:length], offset)
            rest, offset, length = rest[count:], offset + count, length - count
    for _ in source:
        pass
    os.ftruncate(fd, entry.size)


def _set_xattrs(fd: int, found: dict[bytes, bytes]) -> None:
    """Attributes that an archive may set; a file system that has none is no error, as in Docker."""
    for name, value in found.items():
        if not name.startswith(_XATTRS) or name.startswith(b"user.overlay."):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


def unpack_layer(chunks: Iterable[bytes], directory: Path) -> Extractor:
    """Unpack an uncompressed layer into an empty directory, to the stream's end. Raises MalformedArchive, OSError.

    Runs in a thread of its own.
    """
    root = os.open(directory, _FOLDER)
    try:
        extractor = Extractor(root, layer=True)
        reader = Reader(chunks)
        extractor.run(reader)
        reader.source.drain()
        return extractor
    finally:
        os.close(root)


def unpack_plain(
    chunks: Iterable[bytes], root: int, inner: str, *, no_overwrite_dir: bool = False, owner: Owner | None = None
) -> None:
    """Unpack a stream, compressed or not, into the existing directory `inner` of the tree `root`. Blocks."""
    extractor = Extractor(root, os.fsencode(inner), no_overwrite_dir=no_overwrite_dir, owner=owner)
    reader = Reader(decompress(chunks))
    extractor.run(reader)
    reader.source.drain()


async def unpack_into(
    root: Path,
    inner: str,
    data: AsyncIterator[bytes],
    *,
    no_overwrite_dir: bool = False,
    owner: Owner | None = None,
) -> None:
    """Unpack a tar stream, compressed or not, into the directory `inner` of the tree at `root`.

    `inner` and every name are resolved as a process with its root at `root` would. Raises
    InvalidArgument (malformed, or a directory would be overwritten), HostError, ResourceExhausted.
    """
    handle = os.open(root, _FOLDER)
    try:
        channel = Channel()
        work = asyncio.create_task(
            in_thread("unpack", unpack_plain, channel, handle, inner, no_overwrite_dir=no_overwrite_dir, owner=owner)
        )
        await channel.fill(data, work)
        await work
    finally:
        os.close(handle)
