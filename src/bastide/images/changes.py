"""A layer made from the directory in which an overlay keeps what changed.

The overlay's own form of a deletion (a 0/0 character device, `trusted.overlay.opaque`) becomes the
OCI's whiteouts (image-spec, layer.md). The order is that of the names' bytes, times are whole seconds,
and no user or group name is written: the same tree gives the same digest.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from bastide.images import pack
from bastide.images.compression import Gzip
from bastide.images.manifest import MediaType
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


class _Sink:
    """Hashes what comes, compresses it, hashes that, and writes it."""

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._file = file
        self._coder = Gzip() if compression == "gzip" else None
        self._zstd = zstandard.ZstdCompressor(level=3).compressobj() if compression == "zstd" else None
        self.plain, self.coded = hashlib.sha256(), hashlib.sha256()
        self.length = 0
        self._waiting: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take some bytes; small ones are gathered."""
        self._waiting.append(data)
        self._size += len(data)
        if self._size >= _PIECE:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._size = [], 0
        self.plain.update(data)
        self._out(self._coder.add(data) if self._coder else self._zstd.compress(data) if self._zstd else data)

    def _out(self, data: bytes) -> None:
        if data:
            self.coded.update(data)
            self.length += len(data)
            self._file.write(data)

    def end(self) -> None:
        """Nothing more comes."""
        self._flush()
        if self._coder:
            self._out(self._coder.end())
        elif self._zstd:
            self._out(self._zstd.flush())
        self._file.flush()


_TYPES = {"gzip": MediaType.DOCKER_LAYER_GZIP, "zstd": MediaType.OCI_LAYER_ZSTD, "": MediaType.DOCKER_LAYER}


def pack_changes(upper: Path, file: BinaryIO, compression: str = "gzip") -> Packed:
    """Write the layer of the directory `upper` into `file`; `compression` is gzip, zstd or "". Blocks.

    Nothing else may change the tree meanwhile. Sockets are left out, as in Docker. Raises OSError.
    """
    sink = _Sink(file, compression)
    packer = _Packer(sink)
    root = os.open(upper, _FOLDER)
    try:
        packer.root(root)
    finally:
        os.close(root)
    sink.write(pack.END)
    sink.end()
    descriptor = Descriptor(media_type=_TYPES[compression], digest="sha256:" + sink.coded.hexdigest(), size=sink.length)
    return Packed(
        descriptor=descriptor, diff_id="sha256:" + sink.plain.hexdigest(), size=packer.size, entries=packer.entries
    )


class _Packer:
    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._links: dict[tuple[int, int], bytes] = {}
        self.size = self.entries = 0

    def root(self, root: int) -> None:
        """The tree; its root is an entry only when it is not like any other."""
        found = os.fstat(root)
        if stat.S_IMODE(found.st_mode) != 0o755 or found.st_uid or found.st_gid:
            self._header(b"./", found, _xattrs(root))
        self._directory(root, b"", 0)

    def _directory(self, folder: int, inside: bytes, depth: int) -> None:
        if depth > DEPTH_LIMIT:
            raise OSError(36, os.strerror(36), os.fsdecode(inside[:200]))
        if _is_opaque(folder):
            self._whiteout(inside + b".wh..wh..opq")
        for name in sorted(os.fsencode(name) for name in os.listdir(folder)):
            self._entry(folder, name, inside + name, depth)

    def _entry(self, folder: int, name: bytes, path: bytes, depth: int) -> None:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFCHR and found.st_rdev == 0:
            self._whiteout(path.removesuffix(name) + b".wh." + name)
        elif kind == stat.S_IFDIR:
            child = os.open(name, _FOLDER, dir_fd=folder)
            try:
                self._header(path, found, _xattrs(child))
                self._directory(child, path + b"/", depth + 1)
            finally:
                os.close(child)
        elif kind == stat.S_IFSOCK:
            return
        elif found.st_nlink > 1 and (first := self._links.setdefault((found.st_dev, found.st_ino), path)) != path:
            self._header(path, found, {}, link=first, hard=True)
        elif kind == stat.S_IFREG:
            self._file(folder, name, path)
        elif kind == stat.S_IFLNK:
            self._header(path, found, {}, link=os.readlink(name, dir_fd=folder))
        else:
            self._header(path, found, {})

    def _file(self, folder: int, name: bytes, path: bytes) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            found = os.fstat(fd)
            self._header(path, found, _xattrs(fd), size=found.st_size)
            for piece in _pieces(fd, found.st_size):
                self._sink.write(piece)
            if rest := pack.padding(found.st_size):
                self._sink.write(rest)
            self.size += found.st_size
        finally:
            os.close(fd)

    def _header(
        self,
        path: bytes,
        found: os.stat_result,
        xattrs: dict[bytes, bytes],
        *,
        size: int = 0,
        link: bytes | str = b"",
        hard: bool = False,
    ) -> None:
        device = (0, 0)
        if stat.S_IFMT(found.st_mode) in (stat.S_IFCHR, stat.S_IFBLK):
            device = (os.major(found.st_rdev), os.minor(found.st_rdev))
        self.entries += 1
        self._sink.write(
            pack.header(
                path,
                mode=found.st_mode,
                uid=found.st_uid,
                gid=found.st_gid,
                size=size,
                mtime=found.st_mtime_ns // _SECOND * _SECOND,
                link=os.fsencode(link),
                hard=hard,
                device=device,
                xattrs=xattrs,
            )
        )

    def _whiteout(self, path: bytes) -> None:
        self.entries += 1
        self._sink.write(pack.header(path, mode=stat.S_IFREG))


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
    return {
        name: os.getxattr(fd, name)
        for name in names
        if name.startswith(_KEPT) and not name.startswith(b"user.overlay.")
    }
