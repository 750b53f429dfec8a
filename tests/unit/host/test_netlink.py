"""Netlink: the encoding, and what an unprivileged reader gets of its own namespace."""

from __future__ import annotations

import struct

import pytest

from bastide.host import links
from bastide.host.netlink import Message, Netlink, attribute, attributes, nested, text
from bastide.model.errors import HostError


def test_attributes_are_padded_and_read_back() -> None:
    data = attribute(1, b"abc") + text(2, "eth0") + nested(3, attribute(4, b"inner"))
    assert len(data) % 4 == 0
    found = attributes(data)
    assert (found[1], found[2]) == (b"abc", b"eth0\0")
    assert attributes(found[3]) == {4: b"inner"}


@pytest.mark.parametrize("data", [b"", b"\1", struct.pack("=HH", 2, 1), struct.pack("=HH", 60000, 1)])
def test_broken_attributes_end_the_reading(data: bytes) -> None:
    attributes(data)


def test_the_loopback_device_is_there() -> None:
    with Netlink() as channel:
        loopback = [link for link in links.all_links(channel) if link.name == "lo"]
        assert len(loopback) == 1
        assert loopback[0].number == links.index_of("lo")
        assert all(route.destination.prefixlen for route in links.all_routes(channel))
    assert links.index_of("no-such-device") == 0


def test_every_message_gets_its_own_answer() -> None:
    unknown = Message(0x7FF0, 0, b"\0" * 16, "nonsense")
    with Netlink() as channel:
        assert channel.attempt([]) == []
        codes = channel.attempt([unknown, unknown])
        assert len(codes) == 2
        assert all(codes)
        with pytest.raises(HostError, match="nonsense"):
            channel.request([unknown])
        channel.request([unknown], tolerated=codes)
