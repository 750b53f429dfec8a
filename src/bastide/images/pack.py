"""Writing tar streams: headers in ustar, with pax records where ustar cannot say it (POSIX.1-2017 pax)."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from bastide.images.tar import BLOCK

END = bytes(2 * BLOCK)
"""The end of an archive."""
_KIND = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777


def padding(size: int) -> bytes:
    """The zeros after `size` bytes of data."""
    return bytes(-size % BLOCK)


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _plain(
    name: bytes,
    kind: bytes,
    mode: int,
    ids: tuple[int, int],
    size: int,
    mtime: int,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    block = bytearray(BLOCK)
    block[0 : min(100, len(name))] = name[:100]
    block[100:108] = _octal(mode & 0o7777, 8)
    block[108:116] = _octal(ids[0] if ids[0] <= _OCTAL_7 else 0, 8)
    block[116:124] = _octal(ids[1] if ids[1] <= _OCTAL_7 else 0, 8)
    block[124:136] = _octal(size if size <= _OCTAL_11 else 0, 12)
    block[136:148] = _octal(mtime, 12)
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157 : 157 + min(100, len(link))] = link[:100]
    block[257:265] = b"ustar\x0000"
    if kind in b"34":
        block[329:337] = _octal(device[0], 8)
        block[337:345] = _octal(device[1], 8)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def header(
    name: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    hard: bool = False,
    device: tuple[int, int] = (0, 0),
    xattrs: dict[bytes, bytes] | None = None,
) -> bytes:
    """The header of one entry. `mode` holds the type as stat has it; `mtime` is nanoseconds; `hard`: a hard link."""
    kind = b"1" if hard else _KIND[stat.S_IFMT(mode)]
    if kind == b"5" and not name.endswith(b"/"):
        name += b"/"
    seconds, fraction = divmod(mtime, 1_000_000_000)
    records = b""
    if len(name) > 100 or not name.isascii():
        records += _record(b"path", name)
    if len(link) > 100 or not link.isascii():
        records += _record(b"linkpath", link)
    if uid > _OCTAL_7:
        records += _record(b"uid", b"%d" % uid)
    if gid > _OCTAL_7:
        records += _record(b"gid", b"%d" % gid)
    if size > _OCTAL_11:
        records += _record(b"size", b"%d" % size)
    if fraction or not 0 <= seconds <= _OCTAL_11:
        sign, (whole, part) = (b"-", divmod(-mtime, 1_000_000_000)) if mtime < 0 else (b"", (seconds, fraction))
        records += _record(b"mtime", b"%s%d.%09d" % (sign, whole, part))
        seconds = seconds if 0 <= seconds <= _OCTAL_11 else 0
    for key in sorted(xattrs or ()):
        records += _record(b"SCHILY.xattr." + key, (xattrs or {})[key])
    block = _plain(name, kind, mode, (uid, gid), size, seconds, link, device)
    if not records:
        return block
    extended = _plain(b"PaxHeaders.0/" + name[:80].rstrip(b"/"), b"x", 0o644, (0, 0), len(records), 0, b"", (0, 0))
    return extended + records + padding(len(records)) + block


def file(name: str, data: bytes, mtime: int = 0) -> bytes:
    """A small regular file, whole."""
    return header(name.encode(), mode=stat.S_IFREG | 0o644, size=len(data), mtime=mtime) + data + padding(len(data))


def file_of(name: str, size: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A regular file from a stream of exactly `size` bytes."""
    yield header(name.encode(), mode=stat.S_IFREG | 0o644, size=size)
    yield from chunks
    if rest := padding(size):
        yield rest


def directory(name: str) -> bytes:
    """A directory."""
    return header(name.encode(), mode=stat.S_IFDIR | 0o755)
