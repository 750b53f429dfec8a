"""nf_tables: rule sets by `nft`, elements of sets and maps by netlink (a program start less).

Either way a change is one transaction: all of it or nothing. Sources: nft(8); Linux
include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bastide.host.links import mac_bytes
from bastide.host.netlink import CREATE, NETFILTER, Message, Netlink, attribute, nested, text
from bastide.host.syscalls import run
from bastide.model.errors import HostError, Unsupported

_SUBSYSTEM = 10
_NEW_ELEMENT, _DELETE_ELEMENT = (_SUBSYSTEM << 8) | 12, (_SUBSYSTEM << 8) | 14
_BATCH_BEGIN, _BATCH_END = 16, 17
_FAMILIES = {"inet": 1, "bridge": 7}
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT = 1, 2, 3, 1
_KEY, _DATA, _VALUE = 1, 2, 1

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


class Device(str):
    """A device name, as a part of a key."""


class Mac(str):
    """A MAC address, as a part of a key."""


class Port(int):
    """A port number, as a part of a key."""


class Protocol(str):
    """`tcp` or `udp`, as a part of a key."""


class Bits128(int):
    """128 bits of a packet's payload, as a part of a key: an IPv6 address where nft has no name for it."""

    def __new__(cls, value: ipaddress.IPv6Address) -> Bits128:
        """The bits of an address."""
        return super().__new__(cls, int(value))


Part = Device | Mac | Port | Protocol | Bits128 | ipaddress.IPv4Address | ipaddress.IPv6Address


class Element(NamedTuple):
    """An element of the set or map `holder` in a table of `family` (`inet`, `bridge`)."""

    family: str
    holder: str
    key: tuple[Part, ...]
    value: tuple[Part, ...] = ()


def _pack(part: Part) -> bytes:
    """A part in a register, padded to four bytes, as nft lays out concatenations."""
    match part:
        case Device():
            return part.encode().ljust(16, b"\0")
        case Mac():
            return mac_bytes(part) + b"\0\0"
        case Port():
            return struct.pack("!Hxx", part)
        case Bits128():
            return part.to_bytes(16, "big")
        case Protocol():
            return struct.pack("Bxxx", PROTOCOLS[part])
    return part.packed


def _value(parts: Sequence[Part]) -> bytes:
    packed = b"".join(map(_pack, parts))
    if len(parts) == 1:
        # Alone, a value has its own length; only concatenations are padded.
        packed = packed[: {Mac: 6, Port: 2, Protocol: 1}.get(type(parts[0]), len(packed))]
    return nested(0, attribute(_VALUE, packed))[4:]


def _message(kind: int, flags: int, table: str, element: Element) -> Message:
    parts = [nested(_KEY, _value(element.key))]
    if element.value and kind == _NEW_ELEMENT:
        parts.append(nested(_DATA, _value(element.value)))
    payload = b"".join(
        (
            bytes((_FAMILIES[element.family], 0, 0, 0)),
            text(_LIST_TABLE, table),
            text(_LIST_SET, element.holder),
            nested(_LIST_ELEMENTS, nested(_LIST_ELEMENT, *parts)),
        )
    )
    return Message(kind, flags, payload, f"{element.holder} {written(element)}")


class Session:
    """Changes of a table's elements.

    The socket stays open: closing one makes the kernel wait until deleted elements are out of everybody's
    sight, 15 ms and more.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._channel: Netlink | None = None

    def change(self, added: Iterable[Element], removed: Iterable[Element]) -> None:
        """Remove and add elements in one transaction; it blocks for less than a millisecond.

        Not for two threads at a time. Raises HostError (ENOENT: the table, set or an element to remove is
        not there), and then nothing was changed.
        """
        messages = [_message(_DELETE_ELEMENT, 0, self._table, element) for element in removed]
        messages += [_message(_NEW_ELEMENT, CREATE, self._table, element) for element in added]
        if not messages:
            return
        if self._channel is None:
            self._channel = Netlink(NETFILTER)
        edge = struct.pack("!BBH", 0, 0, _SUBSYSTEM)
        try:
            codes = self._channel.batch(Message(_BATCH_BEGIN, 0, edge), messages, Message(_BATCH_END, 0, edge))
        except BaseException:
            # Answers to what was sent may still come: they are not for the next one.
            self.close()
            raise
        for message, code in zip(messages, codes, strict=True):
            if code:
                self.close()
                raise HostError("nftables", code, message.subject)

    def close(self) -> None:
        """Let go of the socket."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def written(element: Element) -> str:
    """An element in nft's language."""
    key = " . ".join(map(_word, element.key))
    return f"{key} : {' . '.join(map(_word, element.value))}" if element.value else key


def _word(part: Part) -> str:
    if isinstance(part, Bits128):
        return f"0x{part:032x}"
    return f'"{part}"' if isinstance(part, Device) else str(part)


async def load(script: str) -> None:
    """Carry out nft commands in one transaction. Raises Unsupported (no nft), HostError (refused)."""
    try:
        done = await run(["nft", "-f", "-"], stdin=script.encode(), timeout=30)
    except HostError as error:
        if error.errno == errno.ENOENT:
            raise Unsupported("the program nft is missing: install the package nftables") from error
        raise
    if done.code:
        lines = done.stderr.decode(errors="replace").splitlines()
        raise HostError("nft", errno.EINVAL, lines[0] if lines else f"exit status {done.code}")
