"""The base of every type that also travels as JSON in the Docker Engine API's shape.

A type is defined once: the engine, the state store and the API share it (decision 0001). Field names
are Python's; on the wire they are Docker's, by one rule (PascalCase) and one table of exceptions.
"""

from __future__ import annotations

import msgspec

# Docker's spelling where PascalCase does not give it; source: the Docker Engine API 1.47 reference.
_SPELLING = {
    "attach_stdin": "AttachStdin",
    "dns_names": "DNSNames",
    "endpoint_id": "EndpointID",
    "exec_ids": "ExecIDs",
    "enable_ipv4": "EnableIPv4",
    "enable_ipv6": "EnableIPv6",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "gw_priority": "GwPriority",
    "ip_address": "IPAddress",
    "ip_prefix_len": "IPPrefixLen",
    "ip_range": "IPRange",
    "ipam": "IPAM",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "ipv6_gateway": "IPv6Gateway",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "io_maximum_iops": "IOMaximumIOps",
    "link_local_ips": "LinkLocalIPs",
    "network_id": "NetworkID",
    "oom_killed": "OOMKilled",
    "rw": "RW",
    "sandbox_id": "SandboxID",
    "uts_mode": "UTSMode",
}


def docker_name(field: str) -> str:
    """The Docker API's spelling of a Python field name: `cpu_shares` gives `CpuShares`."""
    known = _SPELLING.get(field)
    return known if known is not None else "".join(part.capitalize() for part in field.split("_"))


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename=docker_name):
    """A frozen, typed value with Docker's field names on the wire."""
