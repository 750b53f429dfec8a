"""Networks, endpoints and published ports, in the Docker Engine API 1.47's terms."""

from __future__ import annotations

from typing import Any

import msgspec

from bastide.model.wire import Wire


class PortBinding(Wire, frozen=True, kw_only=True):
    """A published port: `host_ip` "" means every address, `host_port` "" means a free one."""

    host_ip: str = ""
    host_port: str = ""


class IPAMPool(Wire, frozen=True, kw_only=True):
    """A subnet of a network, in CIDR notation, with its range, gateway and reserved addresses."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IPAM(Wire, frozen=True, kw_only=True):
    """Address management; only the driver `default` exists."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IPAMPool] | None = None


class EndpointIPAM(Wire, frozen=True, kw_only=True):
    """Addresses that the user asks for."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointSettings(Wire, frozen=True, kw_only=True):
    """A container's connection to a network: what was asked for, then what it got."""

    ipam_config: EndpointIPAM | None = None
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    ipv6_gateway: str = ""
    global_ipv6_address: str = ""
    global_ipv6_prefix_len: int = 0
    dns_names: list[str] | None = None


class Network(Wire, frozen=True, kw_only=True):
    """A network as the engine keeps it. `options` are the driver's (`com.docker.network.…`)."""

    name: str
    id: str
    created: str
    driver: str
    scope: str = "local"
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam: IPAM = IPAM()
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    config_from: dict[str, Any] = msgspec.field(default_factory=lambda: {"Network": ""})
