"""Elements of sets as bytes and as words."""

from __future__ import annotations

import ipaddress

from bastide.host import nftables
from bastide.host.netlink import attributes
from bastide.host.nftables import Bits128, Device, Element, Mac, Port, Protocol

FOUR, SIX = ipaddress.ip_address("10.0.0.2"), ipaddress.ip_address("fd00::2")


def test_words() -> None:
    key = (FOUR, Protocol("tcp"), Port(8080))
    assert nftables.written(Element("inet", "m", key, (FOUR, Port(80)))) == "10.0.0.2 . tcp . 8080 : 10.0.0.2 . 80"
    assert nftables.written(Element("bridge", "s", (Device("v1"), Mac("02:42:0a:00:00:02")))) == (
        '"v1" . 02:42:0a:00:00:02'
    )
    assert nftables.written(Element("bridge", "t", (Bits128(SIX),))) == "0xfd000000000000000000000000000002"


def key_bytes(element: Element) -> bytes:
    """The key as the kernel is sent it."""
    message = nftables._message(nftables._NEW_ELEMENT, 0, "t", element)
    top = attributes(message.payload, 4)
    assert top[nftables._LIST_TABLE] == b"t\0"
    inner = attributes(attributes(top[nftables._LIST_ELEMENTS])[nftables._LIST_ELEMENT])
    return attributes(inner[nftables._KEY])[nftables._VALUE]


def test_parts_of_a_concatenation_are_padded_to_registers() -> None:
    packed = key_bytes(Element("inet", "m", (FOUR, Protocol("udp"), Port(53))))
    assert packed == bytes([10, 0, 0, 2, 17, 0, 0, 0, 0, 53, 0, 0])
    packed = key_bytes(Element("bridge", "m", (Device("eth0"), Mac("02:00:00:00:00:01"))))
    assert packed == b"eth0".ljust(16, b"\0") + bytes([2, 0, 0, 0, 0, 1, 0, 0])
    assert key_bytes(Element("bridge", "m", (Device("eth0"), Bits128(SIX))))[16:] == SIX.packed


def test_a_part_alone_has_its_own_length() -> None:
    assert key_bytes(Element("inet", "m", (Mac("02:00:00:00:00:01"),))) == bytes([2, 0, 0, 0, 0, 1])
    assert key_bytes(Element("inet", "m", (Port(80),))) == b"\0\x50"
    assert key_bytes(Element("inet", "m", (SIX,))) == SIX.packed
