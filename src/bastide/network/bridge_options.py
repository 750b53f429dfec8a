"""The bridge driver's options, by Docker's names."""

from __future__ import annotations

import re

from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.network import Network
from bastide.model.process import Struct
from bastide.network.ipam import address

_BRIDGE = "com.docker.network.bridge."
_KNOWN = {
    f"{_BRIDGE}name",
    f"{_BRIDGE}default_bridge",
    f"{_BRIDGE}enable_icc",
    f"{_BRIDGE}enable_ip_masquerade",
    f"{_BRIDGE}host_binding_ipv4",
    f"{_BRIDGE}gateway_mode_ipv4",
    f"{_BRIDGE}gateway_mode_ipv6",
    "com.docker.network.driver.mtu",
}
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")


class Options(Struct, frozen=True, kw_only=True):
    """What the options say. `mtu` 0: as the host's way out. `binding` "": every address."""

    bridge: str
    icc: bool = True
    masquerade: bool = True
    binding: str = ""
    mtu: int = 0


def parse(network: Network, settings: Settings) -> Options:
    """The options of a network. Raises InvalidArgument, Unsupported."""
    given = network.options
    unknown = sorted(set(given) - _KNOWN)
    if unknown:
        raise InvalidArgument(f"unknown option {unknown[0]!r} for network driver bridge")
    for family in ("4", "6"):
        mode = given.get(f"{_BRIDGE}gateway_mode_ipv{family}", "nat")
        if mode not in ("", "nat"):
            raise Unsupported(f"gateway mode {mode} is not supported: only nat is")
    name = given.get(f"{_BRIDGE}name") or f"br-{network.id[:12]}"
    if not _DEVICE.fullmatch(name):
        raise InvalidArgument(f"invalid bridge name {name!r}")
    binding = given.get(f"{_BRIDGE}host_binding_ipv4", "")
    return Options(
        bridge=name,
        icc=_truth(given, f"{_BRIDGE}enable_icc"),
        masquerade=_truth(given, f"{_BRIDGE}enable_ip_masquerade"),
        binding=str(address(binding)) if binding else "",
        mtu=_mtu(given.get("com.docker.network.driver.mtu", "")),
    )


def _truth(given: dict[str, str], name: str) -> bool:
    """Go's strconv.ParseBool."""
    text = given.get(name, "true")
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidArgument(f"invalid value for {name}: {text!r} is neither true nor false")


def _mtu(text: str) -> int:
    if not text:
        return 0
    if not text.isdigit() or not 68 <= int(text) <= 65535:
        raise InvalidArgument(f"invalid MTU {text!r}: it must be between 68 and 65535")
    return int(text)
