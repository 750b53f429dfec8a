"""Forgetting connections that the kernel tracks, so that a change of address translation reaches them.

UDP has no end that the kernel could see: without this, a client that goes on sending from one port would
be led to the old target for minutes. Source: Linux include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable

from bastide.host.netlink import NETFILTER, Message, Netlink, attribute, attributes, nested, number, octet

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ORIGINAL, _REPLY, _FILTER = 1, 2, 25
_ORIGINAL_FLAGS, _REPLY_FLAGS = 1, 2
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_NUMBER, _DESTINATION_PORT = 1, 3
_BY_SOURCE, _BY_NUMBER, _BY_DESTINATION_PORT = 1 << 0, 1 << 3, 1 << 5
_ENOENT, _ESTALE = 2, 116

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def forget_targets(addresses: Iterable[Address]) -> None:
    """Forget connections that are translated towards an address, or made by it to somewhere; blocks.

    Raises HostError.
    """
    with Netlink(NETFILTER) as channel:
        for own in addresses:
            kind = 1 if own.version == 4 else 3
            answered_by = nested(_REPLY, nested(_TUPLE_IP, attribute(kind, own.packed)))
            chosen = nested(_FILTER, number(_ORIGINAL_FLAGS, 0), number(_REPLY_FLAGS, _BY_SOURCE))
            _forget(channel, _family(own.version), answered_by + chosen)


def forget_ports(ports: Iterable[int]) -> None:
    """Forget UDP flows towards ports, whatever address they went to; blocks. Raises HostError."""
    with Netlink(NETFILTER) as channel:
        for port in ports:
            protocol = nested(
                _TUPLE_PROTOCOL,
                octet(_NUMBER, socket.IPPROTO_UDP),
                attribute(_DESTINATION_PORT, struct.pack("!H", port)),
            )
            flags = _BY_NUMBER | _BY_DESTINATION_PORT
            chosen = nested(_FILTER, number(_ORIGINAL_FLAGS, flags), number(_REPLY_FLAGS, 0))
            for version in (4, 6):
                _forget(channel, _family(version), nested(_ORIGINAL, protocol) + chosen)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _forget(channel: Netlink, family: int, wanted: bytes) -> None:
    """Delete each tracked connection that the filter `wanted` lets through."""
    head = struct.pack("!BBH", family, 0, 0)
    found = [
        attributes(payload, len(head)).get(_ORIGINAL)
        for _, payload in channel.dump(Message(_GET, 0, head + wanted, "tracked connections"))
    ]
    doomed = [Message(_DELETE, 0, head + nested(_ORIGINAL, each), "tracked connection") for each in found if each]
    if doomed:
        channel.request(doomed, tolerated=(_ENOENT, _ESTALE))
