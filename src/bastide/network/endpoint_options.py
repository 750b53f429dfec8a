"""What a client may ask of one endpoint beyond its own addresses: link-local addresses, and its interface's sysctls.

Names, rules and words are Docker's (moby libnetwork/netlabel, libnetwork/endpoint.go, daemon/container_operations.go).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from bastide.model.errors import InvalidArgument
from bastide.model.network import EndpointIPAM, EndpointSettings

SYSCTLS = "com.docker.network.endpoint.sysctls"
_PARAMETER = re.compile(
    r"(?P<before>net\.(?:ipv4|ipv6|mpls)\.[a-z0-9_]+)\.(?i:IFNAME)\.(?P<after>[a-z0-9_]+)=(?P<value>[A-Za-z0-9 .:/_-]*)"
)
"""The placeholder in any case: docker's `--network name=…,driver-opt=…` makes small letters of it (28.2)."""
_PREFIXES = {4: 16, 6: 64}
"""Lengths of the networks that link-local addresses are in (RFC 3927, RFC 4291)."""


def check(settings: EndpointSettings) -> None:
    """Raise InvalidArgument for what cannot be."""
    for name in settings.driver_opts or {}:
        if name != SYSCTLS:
            raise InvalidArgument(f"unknown endpoint option {name!r}: {SYSCTLS} is known")
    for _ in _parameters(settings):
        pass
    link_local(settings)


def link_local(settings: EndpointSettings) -> tuple[str, ...]:
    """The addresses that were asked for, as CIDR. Raises InvalidArgument."""
    found = []
    for text in (settings.ipam_config or EndpointIPAM()).link_local_ips or []:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            address = None
        if address is None or not address.is_link_local or "%" in text:
            raise InvalidArgument(f"invalid endpoint settings: invalid link-local IP address: {text}")
        found.append(f"{address}/{_PREFIXES[address.version]}")
    return tuple(found)


def sysctls(settings: EndpointSettings, interface: str) -> tuple[tuple[str, str], ...]:
    """Kernel parameters of an interface, as `(net.ipv4.conf.eth0.log_martians, 1)`. Raises InvalidArgument."""
    return tuple((f"{each['before']}.{interface}.{each['after']}", each["value"]) for each in _parameters(settings))


def _parameters(settings: EndpointSettings) -> Iterator[re.Match[str]]:
    text = (settings.driver_opts or {}).get(SYSCTLS, "")
    for entry in text.split(",") if text else ():
        found = _PARAMETER.fullmatch(entry)
        if found is None:
            raise InvalidArgument(
                f"invalid endpoint settings: unrecognised network interface sysctl '{entry}'; represent "
                "'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
        yield found
