"""rtnetlink: devices, addresses and routes (rtnetlink(7); Linux include/uapi/linux/if_link.h).

Functions here build messages for `netlink.Netlink.request` and read what its dumps give. They are for
the network namespace of the socket that sends them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import NamedTuple

from bastide.host import netlink
from bastide.host.netlink import CREATE, EXCL, REPLACE, Message, Netlink, attribute, nested, number, octet, text

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR = 20
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWNEIGH, _NUD_REACHABLE = 28, 0x02

_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO = 1, 3, 4, 5, 10, 18
_AF_SPEC, _GROUP, _NS_FD, _EXT_MASK, _TX_QUEUES, _RX_QUEUES = 26, 27, 28, 29, 31, 32
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER, _MACVLAN_MODE = 1, 1
_BR_FORWARD_DELAY, _BR_STP, _BR_SNOOPING = 1, 5, 23
_BRPORT_HAIRPIN, _BRPORT_ISOLATED = 4, 33
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_SKIP_STATS = 1 << 3
UP = 0x1
_NODAD = 0x02
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}

_INFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")


class Link(NamedTuple):
    """A device: `number`, `master` and `lower` are interface indices, 0 for none; `kind` is `bridge`, `veth`, …"""

    number: int
    name: str
    kind: str
    mac: str
    master: int
    lower: int
    mtu: int
    up: bool


class Route(NamedTuple):
    """A route of the main table."""

    destination: ipaddress.IPv4Network | ipaddress.IPv6Network
    device: int


def _info(index: int = 0, up: bool | None = None, family: int = 0) -> bytes:
    flags, change = (UP if up else 0, UP) if up is not None else (0, 0)
    return _INFO.pack(family, 0, index, flags, change)


def mac_bytes(mac: str) -> bytes:
    """`02:42:…` as six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def _mac_text(data: bytes) -> str:
    return data.hex(":")


def _no_link_local() -> bytes:
    """No IPv6 address of the device's own making."""
    return nested(_AF_SPEC, nested(socket.AF_INET6, octet(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)))


def veth(name: str, mtu: int, peer: str, peer_mac: str, namespace: int) -> list[Message]:
    """A pair: `name` here, up; `peer` in the namespace of descriptor `namespace`, still down (the kernel
    brings no end up before both are there)."""
    inside = _info() + text(_IFNAME, peer) + attribute(_ADDRESS, mac_bytes(peer_mac)) + number(_MTU, mtu)
    inside += number(_NS_FD, namespace) + number(_TX_QUEUES, 1) + number(_RX_QUEUES, 1)
    payload = b"".join(
        (
            _info(up=True),
            text(_IFNAME, name),
            number(_MTU, mtu),
            number(_TX_QUEUES, 1),
            number(_RX_QUEUES, 1),
            nested(_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, nested(_VETH_PEER, inside))),
        )
    )
    return [Message(_NEWLINK, CREATE | EXCL, payload, name), without_ipv6(name)]


def cable(name: str, peer: str) -> list[Message]:
    """A pair whose ends are both here and up: a wire that leads nowhere."""
    data = nested(_INFO_DATA, nested(_VETH_PEER, _info(), text(_IFNAME, peer)))
    made = _info() + text(_IFNAME, name) + nested(_LINKINFO, text(_INFO_KIND, "veth"), data)
    raised = [Message(_NEWLINK, 0, _info(up=True) + text(_IFNAME, end), end) for end in (name, peer)]
    return [Message(_NEWLINK, CREATE | EXCL, made, name), *raised, without_ipv6(name), without_ipv6(peer)]


def without_ipv6(name: str) -> Message:
    """Give a device no IPv6 address of its own making (a bridge's port needs none)."""
    return Message(_NEWLINK, 0, _info() + text(_IFNAME, name) + _no_link_local(), name)


def bridge(name: str, mac: str, mtu: int) -> Message:
    """A bridge, up, without spanning tree: a new port forwards at once."""
    data = number(_BR_FORWARD_DELAY, 0) + number(_BR_STP, 0) + octet(_BR_SNOOPING, 0)
    payload = _info(up=True) + text(_IFNAME, name) + attribute(_ADDRESS, mac_bytes(mac)) + number(_MTU, mtu)
    payload += nested(_LINKINFO, text(_INFO_KIND, "bridge"), nested(_INFO_DATA, data))
    return Message(_NEWLINK, CREATE | EXCL, payload, name)


def macvlan(name: str, parent: int, mode: str, mac: str, mtu: int, namespace: int) -> Message:
    """A device of its own MAC on `parent`, in the namespace of descriptor `namespace`, up."""
    payload = _info(up=True) + text(_IFNAME, name) + attribute(_ADDRESS, mac_bytes(mac)) + number(_MTU, mtu)
    payload += number(_LINK, parent) + number(_NS_FD, namespace)
    payload += nested(
        _LINKINFO,
        text(_INFO_KIND, "macvlan"),
        nested(_INFO_DATA, number(_MACVLAN_MODE, _MACVLAN_MODES[mode])),
    )
    return Message(_NEWLINK, CREATE | EXCL, payload, name)


def vlan(name: str, parent: int, tag: int) -> Message:
    """The VLAN `tag` of `parent`, up."""
    data = attribute(1, struct.pack("=H", tag))
    payload = _info(up=True) + text(_IFNAME, name) + number(_LINK, parent)
    payload += nested(_LINKINFO, text(_INFO_KIND, "vlan"), nested(_INFO_DATA, data))
    return Message(_NEWLINK, CREATE | EXCL, payload, name)


def mtu(name: str, size: int) -> Message:
    """Set a device's MTU."""
    return Message(_NEWLINK, 0, _info() + text(_IFNAME, name) + number(_MTU, size), name)


def up(index: int) -> Message:
    """Bring a device up."""
    return Message(_NEWLINK, 0, _info(index, up=True), f"device {index}")


def enslave(name: str, bridge: int, *, isolated: bool) -> list[Message]:
    """Make a device, whose other end should be up, a port of the bridge of index `bridge`.

    An `isolated` port does not speak to other isolated ones. The kernel deals with carriers that come up
    some milliseconds later and drops what is sent before; asked for a device, it deals with it at once
    (Linux 6.8 and newer), hence the questions at both ends of the list.
    """
    joined = Message(_NEWLINK, 0, _info(up=True) + text(_IFNAME, name) + number(_MASTER, bridge), name)
    mask = number(_EXT_MASK, _SKIP_STATS)
    settle = Message(_GETLINK, 0, _info() + text(_IFNAME, name) + mask, name)
    apart = [_port(name, octet(_BRPORT_ISOLATED, 1))] if isolated else []
    return [settle, joined, *apart, settle, Message(_GETLINK, 0, _info(bridge) + mask, f"device {bridge}")]


def hairpin(name: str) -> Message:
    """Let a bridge's port get back what it sent, once that was translated to its own address."""
    return _port(name, octet(_BRPORT_HAIRPIN, 1))


def _port(name: str, flags: bytes) -> Message:
    slave = nested(_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), nested(_INFO_SLAVE_DATA, flags))
    return Message(_NEWLINK, 0, _info() + text(_IFNAME, name) + slave, name)


def delete(name: str) -> Message:
    """Remove a device (and the other end of a pair)."""
    return Message(_DELLINK, 0, _info() + text(_IFNAME, name), name)


def regroup(name: str, group: int) -> Message:
    """Put a device in a group."""
    return Message(_NEWLINK, 0, _info() + text(_IFNAME, name) + number(_GROUP, group), name)


def delete_group(group: int) -> Message:
    """Remove the devices of a group together: the kernel waits once, not once for each (19 ms)."""
    return Message(_DELLINK, 0, _info() + number(_GROUP, group), f"group {group}")


def address(index: int, cidr: str) -> Message:
    """Give a device an address that is used at once (no duplicate address detection)."""
    parsed = ipaddress.ip_interface(cidr)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    payload = _IFADDR.pack(family, parsed.network.prefixlen, _NODAD if parsed.version == 6 else 0, 0, index)
    packed = parsed.ip.packed
    payload += attribute(2, packed) + attribute(1, packed)
    if parsed.version == 4 and parsed.network.prefixlen < 31:
        payload += attribute(4, parsed.network.broadcast_address.packed)
    return Message(_NEWADDR, CREATE | REPLACE, payload, cidr)


def neighbour(index: int, own: str, mac: str) -> Message:
    """Tell the host who has an address on a device, so that it need not ask; forgotten as if it had asked.

    Where it asked in vain before, it would ask again only a second later.
    """
    parsed = ipaddress.ip_address(own)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    payload = struct.pack("=BxxxiHBB", family, index, _NUD_REACHABLE, 0, 0)
    payload += attribute(1, parsed.packed) + attribute(2, mac_bytes(mac))
    return Message(_NEWNEIGH, CREATE | REPLACE, payload, own)


def route(destination: str, gateway: str, index: int, metric: int = 0) -> Message:
    """A route by way of `gateway` on a device; `destination` is CIDR, `0.0.0.0/0` or `::/0` by default."""
    parsed = ipaddress.ip_network(destination)
    family = socket.AF_INET if parsed.version == 4 else socket.AF_INET6
    # Table main (254), protocol static (4), scope universe (0), type unicast (1).
    payload = _ROUTE.pack(family, parsed.prefixlen, 0, 0, 254, 4, 0, 1, 0)
    if parsed.prefixlen:
        payload += attribute(1, parsed.network_address.packed)
    payload += attribute(5, ipaddress.ip_address(gateway).packed) + number(4, index)
    if metric:
        payload += number(6, metric)
    return Message(_NEWROUTE, CREATE | REPLACE, payload, destination)


def no_default_routes(index: int) -> list[Message]:
    """Take a device's default routes away, of both families; there being none is ESRCH."""
    # Table main (254), any protocol, scope nowhere (255: any), type unicast (1).
    headers = {family: _ROUTE.pack(family, 0, 0, 0, 254, 0, 255, 1, 0) for family in (socket.AF_INET, socket.AF_INET6)}
    return [Message(_DELROUTE, 0, header + number(4, index), "default route") for header in headers.values()]


def _read_link(payload: bytes) -> Link:
    _, _, index, flags, _ = _INFO.unpack_from(payload)
    found = netlink.attributes(payload, _INFO.size)
    info = netlink.attributes(found.get(_LINKINFO, b""))

    def integer(kind: int) -> int:
        return int.from_bytes(found.get(kind, b""), "little" if struct.pack("=H", 1)[0] else "big")

    return Link(
        index,
        found[_IFNAME].rstrip(b"\0").decode(errors="replace"),
        info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        _mac_text(found.get(_ADDRESS, b"")),
        integer(_MASTER),
        integer(_LINK),
        integer(_MTU),
        bool(flags & UP),
    )


def all_links(channel: Netlink) -> list[Link]:
    """Every device of the namespace."""
    asked = Message(_GETLINK, 0, _info() + number(_EXT_MASK, _SKIP_STATS), "devices")
    return [_read_link(payload) for _, payload in channel.dump(asked)]


def index_of(name: str) -> int:
    """The index of a device of the calling thread's namespace, 0 when there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def all_routes(channel: Netlink) -> list[Route]:
    """Unicast routes of the main table, default routes left out."""
    found = []
    for _, payload in channel.dump(Message(_GETROUTE, 0, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "routes")):
        _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(payload)
        carried = netlink.attributes(payload, _ROUTE.size)
        if table == 254 and kind == 1 and length and 1 in carried:
            device = struct.unpack("=I", carried[4])[0] if 4 in carried else 0
            found.append(Route(ipaddress.ip_network((carried[1], length), strict=False), device))
    return found
