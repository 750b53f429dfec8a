"""Netlink: sockets, messages and attributes (RFC 3549; Linux include/uapi/linux/netlink.h).

A request is one or many messages in one send; the kernel answers each of them. Everything blocks for
as long as the kernel works, so call it from a thread. Messages of rtnetlink are in `links`, those of
nf_tables in `nftables`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

from bastide.model.errors import HostError

ROUTE, NETFILTER = 0, 12
"""Netlink protocols."""

REQUEST, MULTI, ACK = 0x1, 0x2, 0x4
REPLACE, EXCL, CREATE = 0x100, 0x200, 0x400
DUMP = 0x300
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_SOL_NETLINK, _CAP_ACK = 270, 10

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Message(NamedTuple):
    """A message without its header's numbers: type, flags, payload, and what it is about (for errors)."""

    kind: int
    flags: int
    payload: bytes
    subject: str = ""


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + _PADDING[len(value) & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A string attribute, ended by NUL."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the host's byte order."""
    return attribute(kind, struct.pack("=I", value))


def octet(kind: int, value: int) -> bytes:
    """An 8-bit attribute."""
    return attribute(kind, bytes((value,)))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `offset` on, the last one of each kind."""
    found = {}
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


class Netlink:
    """A netlink socket in the network namespace of the thread that makes it; a context manager."""

    def __init__(self, protocol: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def attempt(self, messages: Sequence[Message]) -> list[int]:
        """Send all messages at once and give the errno of each, 0 where it went well."""
        if not messages:
            return []
        first = self._sequence + 1
        self._send(messages)
        results = [-1] * len(messages)
        waiting = len(messages)
        while waiting:
            for kind, sequence, payload in self._receive():
                place = sequence - first
                if kind == _ERROR and 0 <= place < len(results) and results[place] < 0:
                    results[place] = -struct.unpack_from("=i", payload)[0]
                    waiting -= 1
        return results

    def request(self, messages: Sequence[Message], tolerated: Iterable[int] = ()) -> None:
        """Send all messages at once; they are carried out in order, and all of them.

        Raises HostError for the first that failed with an errno that is not `tolerated`.
        """
        accepted = {0, *tolerated}
        for message, code in zip(messages, self.attempt(messages), strict=True):
            if code not in accepted:
                raise HostError("netlink", code, message.subject)

    def dump(self, message: Message) -> Iterator[tuple[int, bytes]]:
        """The objects that the kernel lists: their message type and payload. Raises HostError."""
        self._send([message._replace(flags=message.flags | DUMP)], acknowledged=False)
        expected = self._sequence
        while True:
            for kind, sequence, payload in self._receive():
                if sequence != expected:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise HostError("netlink", -struct.unpack_from("=i", payload)[0], message.subject)
                yield kind, payload

    def batch(self, begin: Message, messages: Sequence[Message], end: Message) -> list[int]:
        """A transaction, as nf_tables has them: the errno of each of `messages`, all 0 when it is done.

        Nothing is done when one of them fails; those after a failed one may not be judged and are 0 too.
        """
        plain = [(begin, 0), *((message, ACK) for message in messages), (end, 0)]
        first = self._sequence + 2
        data = bytearray()
        for message, acknowledge in plain:
            self._sequence += 1
            data += self._encode(message, acknowledge)
        self._socket.send(data)
        results = [0] * len(messages)
        waiting = len(messages)
        while waiting > 0:
            for kind, sequence, payload in self._receive():
                place = sequence - first
                if kind != _ERROR:
                    continue
                code = -struct.unpack_from("=i", payload)[0]
                if 0 <= place < len(results):
                    results[place] = code
                    waiting -= 1
                elif code:
                    # The transaction as a whole was refused: no answers follow for its parts.
                    return [code] * len(messages)
        return results

    def _encode(self, message: Message, acknowledge: int) -> bytes:
        size = _HEADER.size + len(message.payload)
        flags = message.flags | REQUEST | acknowledge
        header = _HEADER.pack(size, message.kind, flags, self._sequence, 0)
        return header + message.payload + _PADDING[size & 3]

    def _send(self, messages: Sequence[Message], acknowledged: bool = True) -> None:
        data = bytearray()
        for message in messages:
            self._sequence += 1
            data += self._encode(message, ACK if acknowledged else 0)
        self._socket.send(data)

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        try:
            data = self._socket.recv(1 << 18)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise HostError("netlink", errno.ENOBUFS, "answers were lost") from error
            raise
        offset = 0
        while offset + _HEADER.size <= len(data):
            size, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            if size < _HEADER.size:
                return
            yield kind, sequence, data[offset + _HEADER.size : offset + size]
            offset += (size + 3) & ~3
