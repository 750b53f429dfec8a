"""Compressed streams told by their first bytes: gzip (isal), zstd, bzip2, xz, or none.

Everything is pulled in pieces of at most a mebibyte, so that no input, however dense, fills the memory.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

from bastide.model.errors import InvalidArgument

PIECE = 1 << 20
ZSTD_WINDOW = 128 << 20
"""The largest window that is taken, in bytes (RFC 8878 recommends 8 MiB; `zstd --long` goes to 128)."""

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_ISAL = cast(type[Exception], igzip_lib.error)
_SKIPPABLE = b"\x2a\x4d\x18"


class _Stepwise(Protocol):
    """The interface of bz2, lzma and igzip decompressors."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def kind_of(start: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz` or "" by the first six bytes."""
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    # A zstd skippable frame: 0x184D2A50 to 0x184D2A5F, little-endian (RFC 8878, 3.1.2).
    return "zstd" if len(start) >= 4 and start[1:4] == _SKIPPABLE and start[0] >> 4 == 5 else ""


def decompress(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The stream without its compression. Raises InvalidArgument when it is damaged or cut off."""
    source = iter(chunks)
    start = b""
    for chunk in source:
        start += chunk
        if len(start) >= 6:
            break
    kind = kind_of(start)
    rest = _after(start, source)
    if kind == "":
        return rest
    if kind == "zstd":
        return _zstd(rest)
    makers: dict[str, Any] = {
        "gzip": lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
        "bzip2": bz2.BZ2Decompressor,
        "xz": lambda: lzma.LZMADecompressor(memlimit=256 << 20),
    }
    return _members(rest, makers[kind], kind)


def _after(start: bytes, source: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from source


def _members(source: Iterator[bytes], make: Any, kind: str) -> Iterator[bytes]:
    """One or more members, one after another."""
    try:
        data = next(source, b"")
        while data:
            member: _Stepwise = make()
            while not member.eof:
                if member.needs_input and not data:
                    data = next(source, b"")
                    if not data:
                        raise InvalidArgument(f"{kind} stream ends early")
                piece = member.decompress(data, PIECE)
                data = b""
                if piece:
                    yield piece
            data = member.unused_data or next(source, b"")
            if kind == "xz":
                # Stream padding: zeros in multiples of four bytes (xz file format, 2.2).
                while data and not data.strip(b"\0"):
                    data = next(source, b"")
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, _ISAL) as error:
        raise InvalidArgument(f"{kind} stream is damaged: {error}") from error


class _Pulled:
    """A stream of chunks as the file that zstandard reads from."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source, self._rest = source, b""

    def read(self, count: int) -> bytes:
        """At most `count` bytes; empty at the end."""
        while not self._rest:
            chunk = next(self._source, None)
            if chunk is None:
                return b""
            self._rest = chunk
        piece, self._rest = self._rest[:count], self._rest[count:]
        return piece


def _zstd(source: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
    try:
        with decompressor.stream_reader(
            cast(IO[bytes], _Pulled(source)), read_size=PIECE, read_across_frames=True
        ) as reader:
            while piece := reader.read(PIECE):
                yield piece
    except zstandard.ZstdError as error:
        raise InvalidArgument(f"zstd stream is damaged: {error}") from error


class Gzip:
    """A gzip stream with no name and no time in it: the same bytes in, the same bytes out."""

    def __init__(self, level: int = 1) -> None:
        self._compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, 31)

    def add(self, data: bytes) -> bytes:
        """Compress some more."""
        result: bytes = self._compressor.compress(data)
        return result

    def end(self) -> bytes:
        """The rest."""
        result: bytes = self._compressor.flush()
        return result
