"""A layer made from the directory in which an overlay keeps what changed.

The overlay's own form of a deletion (a 0/0 character device, `trusted.overlay.opaque`) becomes the
OCI's whiteouts (image-spec, layer.md). The order is that of the names' bytes, times are whole seconds,
and no user or group name is written: the same tree gives the same digest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from bastide.images import pack
from bastide.images.archive import clean
from bastide.images.compression import Gzip
from bastide.images.manifest import MediaType
from bastide.images.tar import Kind, MalformedArchive, Reader
from bastide.model.image import Descriptor

_OPAQUE = b"trusted.overlay.opaque"
_KEPT = (b"user.", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
_PIECE = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 1_000_000_000
DEPTH_LIMIT = 2000
"""Directories below each other: one descriptor each is open."""


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """What was written: the layer compressed, its uncompressed digest, the bytes of its files, its entries."""

    descriptor: Descriptor
    diff_id: str
    size: int
    entries: int


_TYPES = {"gzip": MediaType.DOCKER_LAYER_GZIP, "zstd": MediaType.OCI_LAYER_ZSTD, "": MediaType.DOCKER_LAYER}


class LayerWriter:
    """A layer as it grows: hashed, compressed, hashed again and written in one pass.

    `compression` is gzip, zstd or "". `copy` gets the archive as it is before compression. Paths are bytes
    without a slash at their beginning.
    """

    def __init__(self, file: BinaryIO, compression: str = "gzip", copy: Callable[[bytes], None] | None = None) -> None:
        self._file, self._copy = file, copy
        self._type = _TYPES[compression]
        self._coder = Gzip() if compression == "gzip" else None
        self._zstd = zstandard.ZstdCompressor(level=3).compressobj() if compression == "zstd" else None
        self._plain, self._coded = hashlib.sha256(), hashlib.sha256()
        self._length = 0
        self._waiting: list[bytes | memoryview] = []
        self._gathered = 0
        self.size = self.entries = 0

    def write(self, data: bytes | memoryview) -> None:
        """Some bytes of the archive; small ones are gathered."""
        self._waiting.append(data)
        self._gathered += len(data)
        if self._gathered >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._gathered = [], 0
        if self._copy is not None:
            self._copy(data)
        self._plain.update(data)
        self._out(self._coder.add(data) if self._coder else self._zstd.compress(data) if self._zstd else data)

    def _out(self, data: bytes) -> None:
        if data:
            self._coded.update(data)
            self._length += len(data)
            self._file.write(data)

    def header(
        self,
        path: bytes,
        mode: int,
        owner: tuple[int, int],
        mtime: int,
        *,
        size: int = 0,
        link: bytes = b"",
        hard: bool = False,
        device: tuple[int, int] = (0, 0),
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        """An entry's header; `size` bytes and their padding have to follow. `mtime` is nanoseconds."""
        self.entries += 1
        self.size += size
        self.write(
            pack.header(
                path,
                mode=mode,
                uid=owner[0],
                gid=owner[1],
                size=size,
                mtime=mtime // _SECOND * _SECOND,
                link=link,
                hard=hard,
                device=device,
                xattrs=xattrs,
            )
        )

    def whiteout(self, path: bytes) -> None:
        """The deletion of a path of a lower layer."""
        folder, slash, name = path.rpartition(b"/")
        self.header(folder + slash + b".wh." + name, stat.S_IFREG, (0, 0), 0)

    def opaque(self, folder: bytes) -> None:
        """The deletion of everything that lower layers have in a directory."""
        self.header(folder + b".wh..wh..opq", stat.S_IFREG, (0, 0), 0)

    def end(self) -> Packed:
        """Nothing more comes."""
        self.write(pack.END)
        self._flush()
        if self._coder:
            self._out(self._coder.end())
        elif self._zstd:
            self._out(self._zstd.flush())
        self._file.flush()
        return Packed(
            descriptor=Descriptor(media_type=self._type, digest="sha256:" + self._coded.hexdigest(), size=self._length),
            diff_id="sha256:" + self._plain.hexdigest(),
            size=self.size,
            entries=self.entries,
        )


def pack_changes(upper: Path, file: BinaryIO, compression: str = "gzip") -> Packed:
    """The layer of the directory `upper`, written into `file`. Blocks. Raises OSError."""
    writer = LayerWriter(file, compression)
    write_changes(upper, writer)
    return writer.end()


def write_changes(
    upper: Path, writer: LayerWriter, skip: Callable[[bytes, os.stat_result], bool] | None = None
) -> None:
    """Write everything in the directory `upper`. Blocks.

    Nothing else may change the tree meanwhile, or what is written is of several moments. Sockets are left
    out, as in Docker, and so is what `skip` says by path and status. Raises OSError.
    """
    root = os.open(upper, _FOLDER)
    try:
        _Packer(writer, skip).root(root)
    finally:
        os.close(root)


class _Packer:
    def __init__(self, writer: LayerWriter, skip: Callable[[bytes, os.stat_result], bool] | None) -> None:
        self._writer, self._skip = writer, skip
        self._links: dict[tuple[int, int], bytes] = {}

    def root(self, root: int) -> None:
        """The tree; its root is an entry only when it is not like any other."""
        found = os.fstat(root)
        if stat.S_IMODE(found.st_mode) != 0o755 or found.st_uid or found.st_gid:
            self._header(b"./", found, _xattrs(root))
        self._directory(root, b"", 0)

    def _directory(self, folder: int, inside: bytes, depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), os.fsdecode(inside[:200]))
        if _is_opaque(folder):
            self._writer.opaque(inside)
        for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
            self._entry(folder, name, inside + name, depth)

    def _entry(self, folder: int, name: bytes, path: bytes, depth: int) -> None:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFSOCK or (self._skip is not None and self._skip(path, found)):
            return
        if kind == stat.S_IFCHR and found.st_rdev == 0:
            self._writer.whiteout(path)
        elif kind == stat.S_IFDIR:
            child = os.open(name, _FOLDER, dir_fd=folder)
            try:
                self._header(path, found, _xattrs(child))
                self._directory(child, path + b"/", depth + 1)
            finally:
                os.close(child)
        elif found.st_nlink > 1 and (first := self._links.setdefault((found.st_dev, found.st_ino), path)) != path:
            self._header(path, found, {}, link=first, hard=True)
        elif kind == stat.S_IFREG:
            self._file(folder, name, path)
        elif kind == stat.S_IFLNK:
            self._header(path, found, {}, link=os.fsencode(os.readlink(name, dir_fd=folder)))
        else:
            self._header(path, found, {})

    def _file(self, folder: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            found = os.fstat(fd)
            self._header(path, found, _xattrs(fd), size=found.st_size)
            for piece in _pieces(fd, found.st_size):
                self._writer.write(piece)
            if rest := pack.padding(found.st_size):
                self._writer.write(rest)
        finally:
            os.close(fd)

    def _header(
        self,
        path: bytes,
        found: os.stat_result,
        xattrs: dict[bytes, bytes],
        *,
        size: int = 0,
        link: bytes = b"",
        hard: bool = False,
    ) -> None:
        special = stat.S_IFMT(found.st_mode) in (stat.S_IFCHR, stat.S_IFBLK)
        device = (os.major(found.st_rdev), os.minor(found.st_rdev)) if special else (0, 0)
        self._writer.header(
            path,
            found.st_mode,
            (found.st_uid, found.st_gid),
            found.st_mtime_ns,
            size=size,
            link=link,
            hard=hard,
            device=device,
            xattrs=xattrs,
        )


_MODES = {
    Kind.FILE: stat.S_IFREG,
    Kind.LINK: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}


def copy_entries(chunks: Iterable[bytes], writer: LayerWriter, folder: bytes, *, first_only: bool) -> None:
    """Entries of an archive, whose names begin below `folder`, as entries of a layer. Blocks.

    `first_only`: what stands at its beginning alone (a directory without what is in it). Raises
    MalformedArchive; a name that leads out is refused.
    """
    reader = Reader(chunks)
    inside = folder.strip(b"/") + b"/" if folder.strip(b"/") else b""
    while (entry := reader.next()) is not None:
        name = clean(entry.name)
        if not name:
            continue
        if entry.sparse is not None:
            raise MalformedArchive("archive has a sparse file where none is expected")
        hard = entry.kind is Kind.LINK
        writer.header(
            inside + name,
            _MODES[entry.kind] | entry.mode,
            (entry.uid, entry.gid),
            entry.mtime,
            size=entry.stored,
            link=inside + clean(entry.link) if hard else entry.link,
            hard=hard,
            device=(entry.major, entry.minor),
            xattrs={key: value for key, value in reader.xattrs.items() if _kept(key)},
        )
        for piece in reader.pieces():
            writer.write(bytes(piece))
        if rest := pack.padding(entry.stored):
            writer.write(rest)
        if first_only:
            return


def _pieces(fd: int, size: int) -> Iterator[bytes]:
    """Exactly `size` bytes; what a file lost meanwhile is zeros."""
    while size:
        piece = os.read(fd, min(size, _PIECE))
        if not piece:
            yield bytes(min(size, _PIECE))
            size -= min(size, _PIECE)
            continue
        yield piece
        size -= len(piece)


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError:
        return False


def _xattrs(fd: int) -> dict[bytes, bytes]:
    try:
        names = [os.fsencode(name) for name in os.listxattr(fd)]
    except OSError:
        return {}
    return {name: os.getxattr(fd, name) for name in names if _kept(name)}


def _kept(name: bytes) -> bool:
    """Whether an extended attribute belongs to the file and not to the overlay."""
    return name.startswith(_KEPT) and not name.startswith(b"user.overlay.")
