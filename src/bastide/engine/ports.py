"""Published ports: from what a client asks for to what a network driver is told, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bastide.model.container import Config, HostConfig
from bastide.model.errors import InvalidArgument
from bastide.model.network import PortBinding
from bastide.network import Port


def container_port(text: str) -> tuple[int, str]:
    """`80/tcp` or `80` as number and protocol. Raises InvalidArgument in Docker's words."""
    number, _, protocol = text.partition("/")
    if protocol not in ("", "tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid proto: {protocol}")
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return int(number), protocol or "tcp"


def _host_ports(text: str) -> tuple[int, int]:
    """`8080`, `8000-8010` or "" as first and last number; last is 0 where there is one only."""
    if not text:
        return 0, 0
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise InvalidArgument(f"invalid port specification: {text!r}")
    low, high = int(first), int(last) if dash else 0
    if low > 65535 or high > 65535 or (dash and high < low):
        raise InvalidArgument(f"invalid port specification: {text!r}")
    return low, high if high != low else 0


def wanted(config: Config, host: HostConfig) -> list[Port]:
    """The ports to publish. Raises InvalidArgument."""
    found: list[Port] = []
    bindings = host.port_bindings or {}
    for key, each in bindings.items():
        number, protocol = container_port(key)
        for binding in each or []:
            first, last = _host_ports(binding.host_port)
            found.append(
                Port(
                    container_port=number,
                    protocol=protocol,
                    host_ip=binding.host_ip,
                    host_port=first,
                    host_port_end=last,
                )
            )
    if host.publish_all_ports:
        for key in sorted(set(config.exposed_ports or {}) | set(bindings)):
            if not bindings.get(key):
                number, protocol = container_port(key)
                found.append(Port(container_port=number, protocol=protocol, host_ip="", host_port=0))
    return found


def shown(config: Config, ports: Sequence[Port]) -> dict[str, list[PortBinding] | None]:
    """What `inspect` shows: exposed ports, with their bindings where they are published."""
    exposed: dict[str, Any] = config.exposed_ports or {}
    found: dict[str, list[PortBinding] | None] = {}
    for key in exposed:
        number, protocol = container_port(key)
        found[f"{number}/{protocol}"] = None
    for port in ports:
        key = f"{port.container_port}/{port.protocol}"
        binding = PortBinding(host_ip=port.host_ip, host_port=str(port.host_port))
        found[key] = [*(found.get(key) or []), binding]
    return found
