"""Tap devices that outlive whoever made them (Linux Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import fcntl
import os
import struct

_SET_INTERFACE, _SET_PERSIST, _SET_OWNER = 0x400454CA, 0x400454CB, 0x400454CC
_TAP, _NO_PACKET_INFO, _VNET_HEADER, _EXCLUSIVE = 0x2, 0x1000, 0x4000, 0x8000


def attach(name: str) -> int:
    """The queue of an existing tap, as a descriptor; its reader is whoever holds that. Raises OSError."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        flags = _TAP | _NO_PACKET_INFO | _VNET_HEADER
        fcntl.ioctl(descriptor, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def make(name: str, owner: int) -> None:
    """Make the tap `name`, which the uid `owner` may open. Raises OSError (EBUSY: it exists)."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _TAP | _NO_PACKET_INFO | _VNET_HEADER | _EXCLUSIVE
        fcntl.ioctl(descriptor, _SET_INTERFACE, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(descriptor, _SET_OWNER, owner)
        fcntl.ioctl(descriptor, _SET_PERSIST, 1)
    finally:
        os.close(descriptor)
