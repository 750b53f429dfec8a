"""Reading tar streams, quickly and with distrust: ustar, pax, GNU long names and all GNU sparse forms.

Names stay bytes. The reading follows Go's archive/tar, which Docker uses, so that no archive means one thing
there and another here: header-only types have no data whatever their size says, global pax headers change
nothing, and a stream may end where the last file's data does (docker's client sends such for a Dockerfile that is
outside its context). Format: POSIX.1-2017 pax, "pax Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator

from bastide.model.errors import InvalidArgument

BLOCK = 512
SPECIAL_LIMIT = 1 << 20
"""Bytes of a pax header or a GNU long name, as in Go."""
NAME_LIMIT = 4096
SPARSE_LIMIT = 1 << 16
"""Pieces of a sparse file."""
_ZERO = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_SIZE_LIMIT = 1 << 62
_LAST_TIME = (1 << 34) * 1_000_000_000
_ID_LIMIT = (1 << 32) - 1


class Kind(enum.IntEnum):
    """What an entry is."""

    FILE = 0
    LINK = 1
    SYMLINK = 2
    CHARACTER = 3
    BLOCK = 4
    DIRECTORY = 5
    FIFO = 6


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class MalformedArchive(InvalidArgument):
    """The archive breaks its format."""


class Entry:
    """One entry. `size` is the file's size, `stored` the bytes of it in the archive; they differ for sparse files."""

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime", "name", "size", "sparse", "stored", "uid")

    def __init__(self, name: bytes, kind: Kind) -> None:
        self.name, self.kind = name, kind
        self.link = b""
        self.mode = self.uid = self.gid = self.size = self.stored = 0
        self.major = self.minor = 0
        self.mtime = 0
        """Nanoseconds since the epoch."""
        self.sparse: list[tuple[int, int]] | None = None
        """Offset and length of every stored piece of a sparse file."""


class Source:
    """A stream of chunks read by count. `offset` is the position in the stream."""

    __slots__ = ("_chunk", "_chunks", "_end", "_position", "_start")

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk: bytes = b""
        self._position = self._end = self._start = 0

    @property
    def offset(self) -> int:
        """How many bytes were read."""
        return self._start + self._position

    def _next(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._start += self._end
                self._chunk, self._position, self._end = chunk, 0, len(chunk)
                return True
        return False

    def block(self) -> bytes | None:
        """The next 512 bytes, None at the end of the stream."""
        position = self._position
        if position + BLOCK <= self._end:
            self._position = position + BLOCK
            return bytes(self._chunk[position : position + BLOCK])
        if position == self._end and not self._next():
            return None
        return self.exactly(BLOCK)

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises MalformedArchive at an early end."""
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes, uncopied. Raises MalformedArchive at an early end."""
        while count:
            if self._position == self._end and not self._next():
                raise MalformedArchive(f"archive ends early, at byte {self.offset}")
            taken = min(count, self._end - self._position)
            position = self._position
            self._position = position + taken
            count -= taken
            yield memoryview(self._chunk)[position : position + taken]

    def skip(self, count: int, *, to_end: bool = False) -> None:
        """Pass over `count` bytes, or over fewer `to_end`. Raises MalformedArchive at an early end."""
        within = self._end - self._position
        if count <= within:
            self._position += count
            return
        try:
            for _ in self.pieces(count):
                pass
        except MalformedArchive:
            if not to_end:
                raise

    def drain(self) -> None:
        """Read to the end of the stream."""
        while self._next():
            pass
        self._position = self._end


def number(field: bytes) -> int:
    """A numeric field: octal digits, or base 256 where the first bit is set (GNU). Raises MalformedArchive."""
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if first & 0x40 else value
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        # What follows the first NUL is not part of the number.
        digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise MalformedArchive(f"archive has a header with the bad number {field[:12]!r}") from error


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


class Reader:
    """The entries of a tar stream. Data that is not read is passed over."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.source = Source(chunks)
        self.xattrs: dict[bytes, bytes] = {}
        """Extended attributes of the present entry (`SCHILY.xattr.`)."""
        self._left = self._padding = 0
        self._pax: dict[bytes, bytes] = {}
        self._sparse_records: list[int] = []
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> Entry | None:
        """The next entry, None at the end. Raises MalformedArchive."""
        self._pass_over()
        if self._pax or self.xattrs:
            self._pax, self.xattrs, self._sparse_records = {}, {}, []
        self._long_name = self._long_link = None
        while True:
            block = self.source.block()
            if block == _ZERO:
                block = self.source.block()
                if block is not None and block != _ZERO:
                    raise MalformedArchive(f"archive has a lone zero block before byte {self.source.offset}")
                block = None
            if block is None:
                self._check_end()
                return None
            entry = self._header(block)
            if entry is not None:
                return entry

    def _check_end(self) -> None:
        if self._pax or self._long_name is not None or self._long_link is not None:
            raise MalformedArchive("archive ends after an extended header")

    def _pass_over(self) -> None:
        if self._left or self._padding:
            self.source.skip(self._left)
            self.source.skip(self._padding, to_end=True)
            self._left = self._padding = 0

    def pieces(self) -> Iterator[memoryview]:
        """The stored data of the present entry."""
        count, self._left = self._left, 0
        return self.source.pieces(count)

    def _header(self, block: bytes) -> Entry | None:
        fields = _HEADER.unpack(block)
        checksum = sum(block) - sum(fields[6]) + 8 * 32
        if number(fields[6]) != checksum:
            raise MalformedArchive(f"archive has a header with a wrong checksum before byte {self.source.offset}")
        flag = fields[7]
        if flag in b"xgLK":
            self._special(flag, number(fields[4]))
            return None
        kind = _KINDS.get(flag)
        if kind is None:
            raise MalformedArchive(f"archive has an entry of the unknown type {flag!r}")
        name = _text(fields[0])
        magic = fields[9]
        if magic[:6] == b"ustar\0" and (prefix := _text(fields[14])):
            name = prefix + b"/" + name
        entry = Entry(name, kind)
        entry.mode, entry.uid, entry.gid = number(fields[1]) & 0o7777, number(fields[2]), number(fields[3])
        entry.mtime = number(fields[5]) * 1_000_000_000
        entry.stored = number(fields[4])
        if kind is not Kind.FILE:
            entry.link = _text(fields[8])
            if kind in (Kind.CHARACTER, Kind.BLOCK):
                entry.major, entry.minor = number(fields[12]), number(fields[13])
                if not 0 <= entry.major < 1 << 12 or not 0 <= entry.minor < 1 << 20:
                    raise MalformedArchive(f"archive has a device with an impossible number: {shown(name)}")
        if self._pax or self._long_name is not None or self._long_link is not None:
            self._extend(entry)
        if kind is Kind.FILE and entry.name.endswith(b"/"):
            entry.kind = Kind.DIRECTORY
        self._measure(entry, block if flag == b"S" else b"")
        return entry

    def _measure(self, entry: Entry, sparse_header: bytes) -> None:
        """Sizes and limits of an entry; where its data begins and ends."""
        if entry.kind is not Kind.FILE:
            entry.stored = 0
        stored = entry.stored
        if stored < 0 or not 0 <= entry.uid < _ID_LIMIT or not 0 <= entry.gid < _ID_LIMIT:
            raise MalformedArchive(
                f"archive has an entry with a negative size or an id out of range: {shown(entry.name)}"
            )
        if len(entry.name) > NAME_LIMIT or len(entry.link) > NAME_LIMIT or b"\0" in entry.name or b"\0" in entry.link:
            raise MalformedArchive(f"archive has a name that is too long or holds a NUL: {shown(entry.name)}")
        if not 0 <= entry.mtime <= _LAST_TIME:
            entry.mtime = 0  # as in Docker
        entry.size = stored
        self._left, self._padding = stored, -stored % BLOCK
        if sparse_header:
            self._old_sparse(entry, sparse_header)
        elif self._pax and entry.kind is Kind.FILE:
            self._pax_sparse(entry)

    # -- extended headers ----------------------------------------------------------------------

    def _special(self, flag: bytes, size: int) -> None:
        if not 0 <= size <= SPECIAL_LIMIT:
            raise MalformedArchive(f"archive has an extended header of {size} bytes")
        data = self.source.exactly(size)
        self.source.skip(-size % BLOCK)
        if flag == b"x":
            self._records(data)
        elif flag == b"L":
            self._long_name = _text(data)
        elif flag == b"K":
            self._long_link = _text(data)

    def _records(self, data: bytes) -> None:
        """Pax records, `LENGTH KEY=VALUE\\n`."""
        position = 0
        while position < len(data):
            space = data.find(b" ", position, position + 20)
            length = data[position:space] if space > 0 else b""
            end = position + int(length) if length.isdigit() else -1
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
                raise MalformedArchive("archive has a malformed pax header")
            position = end
            if key.startswith(b"SCHILY.xattr."):
                self.xattrs[key[13:]] = value
            elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                # Form 0.0 repeats these keys, so they are kept in order; a cut-off list fails later.
                self._sparse_records.append(_decimal(value))
                self._pax[key] = value
            else:
                self._pax[key] = value

    def _extend(self, entry: Entry) -> None:
        """What extended headers say instead of the plain one."""
        pax = self._pax
        if self._long_name is not None:
            entry.name = self._long_name
        if self._long_link is not None:
            entry.link = self._long_link
        entry.name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or entry.name
        entry.link = pax.get(b"linkpath") or entry.link
        if value := pax.get(b"size"):
            entry.stored = _decimal(value)
        if value := pax.get(b"uid"):
            entry.uid = _decimal(value)
        if value := pax.get(b"gid"):
            entry.gid = _decimal(value)
        if value := pax.get(b"mtime"):
            entry.mtime = _time(value)

    # -- sparse files --------------------------------------------------------------------------

    def _old_sparse(self, entry: Entry, header: bytes) -> None:
        entry.size = number(header[483:495])
        found = _pairs(header[386:482])
        more = header[482]
        while more:
            block = self.source.exactly(BLOCK)
            found += _pairs(block[:504])
            more = block[504]
            if len(found) > SPARSE_LIMIT:
                raise MalformedArchive(f"archive has a file of more than {SPARSE_LIMIT} sparse pieces")
        entry.sparse = _checked(found, entry)

    def _pax_sparse(self, entry: Entry) -> None:
        pax = self._pax
        size = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size")
        if size is None:
            return
        entry.size = _decimal(size)
        if pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
            numbers = self._map_in_data(entry)
        elif value := pax.get(b"GNU.sparse.map"):
            numbers = [_decimal(word) for word in value.split(b",")]
        else:
            numbers = self._sparse_records
        if len(numbers) % 2 or len(numbers) > 2 * SPARSE_LIMIT:
            raise MalformedArchive("archive has a malformed sparse map")
        entry.sparse = _checked(list(zip(numbers[::2], numbers[1::2], strict=True)), entry)

    def _map_in_data(self, entry: Entry) -> list[int]:
        """Form 1.0: the map stands before the data, decimal numbers a line, padded to a block."""
        lines: list[bytes] = []
        rest, needed = b"", 1
        while len(lines) < needed:
            if self._left < BLOCK:
                raise MalformedArchive("archive has a malformed sparse map")
            *more, rest = (rest + self.source.exactly(BLOCK)).split(b"\n")
            self._left -= BLOCK
            entry.stored -= BLOCK
            lines += more
            if more and needed == 1:
                needed = 1 + 2 * min(_decimal(lines[0]), SPARSE_LIMIT + 1)
            if len(rest) > BLOCK or needed > 2 * SPARSE_LIMIT + 1:
                raise MalformedArchive("archive has a malformed sparse map")
        return [_decimal(line) for line in lines[1:needed]]


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise MalformedArchive(f"archive has a pax header with the bad number {value[:20]!r}")
    return int(value)


def _time(value: bytes) -> int:
    """Seconds with a fraction as nanoseconds; what is below a nanosecond is cut off."""
    negative = value.startswith(b"-")
    seconds, _, fraction = value.lstrip(b"-").partition(b".")
    total = _decimal(seconds or b"0") * 1_000_000_000 + _decimal((fraction + b"000000000")[:9])
    return -total if negative else total


def _pairs(field: bytes) -> list[tuple[int, int]]:
    """The used slots of a GNU sparse header: 12 bytes of offset, 12 of length."""
    found = []
    for at in range(0, len(field) - 23, 24):
        if not field[at]:
            break
        found.append((number(field[at : at + 12]), number(field[at + 12 : at + 24])))
    return found


def _checked(pieces: list[tuple[int, int]], entry: Entry) -> list[tuple[int, int]]:
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0:
            raise MalformedArchive(f"archive has an overlapping sparse map: {shown(entry.name)}")
        end = offset + length
    if entry.size >= _SIZE_LIMIT:
        raise MalformedArchive(f"archive has a file of {entry.size} bytes: {shown(entry.name)}")
    if end > entry.size or sum(length for _, length in pieces) != entry.stored:
        raise MalformedArchive(f"archive has a sparse map that does not fit its file: {shown(entry.name)}")
    return [(offset, length) for offset, length in pieces if length]


def shown(name: bytes) -> str:
    """A name for a message: printable and short."""
    text = name.decode(errors="backslashreplace")
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)[:200]
