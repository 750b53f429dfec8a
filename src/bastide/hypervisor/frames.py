"""The codec of the guest agent's protocol: frames, fields and process specifications.

guest/PROTOCOL.md describes the wire, guest/protocol.h is the guest's side of it. What a guest sends is
hostile until it is decoded here: lengths are checked before anything is kept.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bastide.model.errors import GuestError

VERSION = 2
HEADER = struct.Struct("<BBHII")
PAYLOAD = 32768 - HEADER.size
"""Header and payload fit what the kernel's virtio_console moves in one request."""
MORE = 1
MESSAGE_LIMIT = 1 << 20
"""Longest answer of a guest, in bytes, after its pieces are put together."""
WINDOW_STDIN = 65536
WINDOW_OUTPUT = 262144
PADDING = b"\0" * (PAYLOAD + HEADER.size)
"""Ends a frame that a former host left unfinished: zero bytes between frames are skipped."""
NONCE = 16


class Ask(enum.IntEnum):
    """Frames to the guest (`enum host_frame`)."""

    HELLO = 1
    CONFIGURE = 2
    PREPARE = 3
    START = 4
    EXEC = 5
    STDIN = 6
    STDIN_EOF = 7
    WINDOW = 8
    SIGNAL = 9
    RESIZE = 10
    CLOCK = 11
    FILES = 12
    NETWORK = 13
    STATS = 14
    FREEZE = 15
    THAW = 16
    SHUTDOWN = 17
    MOUNT = 18


class Tell(enum.IntEnum):
    """Frames from the guest (`enum guest_frame`)."""

    HELLO = 33
    DONE = 34
    ERROR = 35
    STDOUT = 36
    STDERR = 37
    EXIT = 38
    WINDOW = 39
    OOM = 40


class ErrorKind(enum.IntEnum):
    """What an ERROR frame means (`enum error_kind`)."""

    INVALID = 1
    NOT_FOUND = 2
    GUEST = 3
    CONFLICT = 4
    DENIED = 5


class Field(enum.IntEnum):
    """Tags of the fields in a control message (`enum field`)."""

    SEED = 1
    TIME = 2
    HOSTNAME = 3
    DOMAINNAME = 4
    HOSTS = 5
    HOSTNAME_FILE = 6
    RESOLV = 7
    READONLY = 8
    TMPFS = 9
    SHM_SIZE = 10
    INTERFACE = 11
    SYSCTL = 12
    DISKS = 13
    DISCARD = 14
    PRIVILEGED = 15
    SHARE = 16
    LIMIT = 17
    MACHINE_ID = 18

    ARGS = 32
    ENV = 33
    CWD = 34
    USER = 35
    GROUPS = 36
    TERMINAL = 37
    STDIN = 38
    CAPABILITIES = 39
    NO_NEW_PRIVILEGES = 40
    RLIMIT = 41
    BUILTIN = 42
    INIT = 43
    OOM_SCORE = 44


class Frame(NamedTuple):
    """One frame from the guest; `data` is a copy."""

    type: int
    flags: int
    stream: int
    data: bytes


def frame(kind: Ask, stream: int = 0, data: bytes = b"") -> bytes:
    """A message to the guest as bytes: one frame, or several with MORE."""
    if len(data) <= PAYLOAD:
        return HEADER.pack(kind, 0, 0, stream, len(data)) + data
    pieces = []
    for start in range(0, len(data), PAYLOAD):
        piece = data[start : start + PAYLOAD]
        more = MORE if start + PAYLOAD < len(data) else 0
        pieces.append(HEADER.pack(kind, more, 0, stream, len(piece)) + piece)
    return b"".join(pieces)


def fields(items: Iterable[tuple[Field, bytes]]) -> bytes:
    """A control message: u8 tag, u32 length, bytes, a zero byte, for each item."""
    return b"".join(struct.pack("<BI", tag, len(data)) + data + b"\0" for tag, data in items)


def u32(value: int) -> bytes:
    """A 32-bit number, little-endian."""
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    """A 64-bit number, little-endian."""
    return struct.pack("<Q", value)


def joined(words: Iterable[str]) -> bytes:
    """A list of strings joined by NUL."""
    return b"\0".join(word.encode(errors="surrogateescape") for word in words)


def numbers(data: bytes, count: int) -> tuple[int, ...]:
    """The first `count` 32-bit numbers. Raises GuestError when there are fewer."""
    if len(data) < 4 * count:
        raise GuestError("the guest agent sent a frame that is too short")
    return struct.unpack_from(f"<{count}I", data)


class Decoder:
    """Cuts a stream of bytes into frames. Holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. Raises GuestError for a frame that is too long."""
        buffer = self._buffer
        buffer += data
        at, end = 0, len(buffer)
        try:
            while end - at >= HEADER.size:
                kind, flags, _, stream, length = HEADER.unpack_from(buffer, at)
                if length > PAYLOAD:
                    raise GuestError(f"the guest agent sent a frame of {length} bytes")
                stop = at + HEADER.size + length
                if stop > end:
                    break
                yield Frame(kind, flags, stream, bytes(memoryview(buffer)[at + HEADER.size : stop]))
                at = stop
        finally:
            del buffer[:at]

    def seek(self, marker: bytes) -> bool:
        """Drop everything before `marker`; False when it is not there (then nearly all is dropped)."""
        at = self._buffer.find(marker)
        if at < 0:
            del self._buffer[: max(0, len(self._buffer) - len(marker) + 1)]
            return False
        del self._buffer[:at]
        return True

    def add(self, data: bytes) -> None:
        """Keep bytes without cutting them: for `seek`."""
        self._buffer += data
