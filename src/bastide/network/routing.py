"""What the host's kernel must be told, once, for networks to reach the outside; and what it says itself."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from bastide.host import links
from bastide.host.netlink import Netlink
from bastide.network.ipam import Subnet

_IPV4 = Path("/proc/sys/net/ipv4")
_IPV6 = Path("/proc/sys/net/ipv6/conf")
STANDARD_MTU = 1500


@functools.lru_cache(maxsize=1)
def default_mtu() -> int:
    """The MTU of the device that the default route goes by, at most 1500; larger packets would be lost there."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000" and fields[7] == "00000000":
            try:
                found = int(Path(f"/sys/class/net/{fields[0]}/mtu").read_text())
            except OSError:
                continue
            return min(STANDARD_MTU, found)
    return STANDARD_MTU


def other_routes() -> Sequence[Subnet]:
    """Networks that the host has routes to."""
    with Netlink() as channel:
        return [route.destination for route in links.all_routes(channel)]


def forward(six: bool) -> None:
    """Let the host forward packets, IPv6 ones where `six` is set; nothing is written where it does already.

    A host that takes its own routes from router advertisements would stop that when it forwards, so
    its devices are told to go on (accept_ra 2). Raises OSError.
    """
    _switch_on(_IPV4 / "ip_forward")
    if six and (_IPV6 / "all/forwarding").read_text().strip() == "0":
        for device in _IPV6.iterdir():
            if device.name not in ("all", "default") and (device / "accept_ra").read_text().strip() == "1":
                (device / "accept_ra").write_text("2")
        _switch_on(_IPV6 / "all/forwarding")


def localnet(device: str) -> None:
    """Let connections from the host's own loopback addresses go out by a bridge (to published ports).

    The firewall keeps everybody else from sending to those addresses. Raises OSError.
    """
    _switch_on(_IPV4 / f"conf/{device}/route_localnet")


def _switch_on(path: Path) -> None:
    if path.read_text().strip() == "0":
        path.write_text("1")
