"""What a client asks a container to be: the bodies of create and update, and the fields that are refused.

A field that cannot be honoured is refused by its name, never passed over. Fields that depend on the
wall (`Privileged`, `Devices`, …) are the engine's to judge by the runtime's features; those here are
honoured behind none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import msgspec

from bastide.api.docker import versions
from bastide.api.http import decode
from bastide.model.container import Config, Container, HostConfig, RestartPolicy
from bastide.model.errors import InvalidArgument, Unsupported
from bastide.model.network import EndpointSettings
from bastide.model.wire import Wire


class NetworkingConfig(Wire, frozen=True, kw_only=True):
    """The networks that a new container joins, by name or id."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class CreateRest(Wire, frozen=True, kw_only=True):
    """What a create body has beside the fields of Config."""

    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """A create body, checked."""

    config: Config
    host: HostConfig
    endpoints: dict[str, EndpointSettings]
    warnings: list[str]


_SET: Callable[[Any], bool] = bool

REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "Cgroup": (_SET, "sharing a cgroup by id is not offered; use CgroupParent"),
    "CpuCount": (_SET, "it is for Windows containers; use NanoCpus"),
    "CpuPercent": (_SET, "it is for Windows containers; use NanoCpus"),
    "CpuRealtimePeriod": (_SET, "real-time scheduling is not offered"),
    "CpuRealtimeRuntime": (_SET, "real-time scheduling is not offered"),
    "DeviceRequests": (_SET, "no device driver is installed; use Devices"),
    "IOMaximumBandwidth": (_SET, "it is for Windows containers; use BlkioDeviceReadBps and BlkioDeviceWriteBps"),
    "IOMaximumIOps": (_SET, "it is for Windows containers; use BlkioDeviceReadIOps and BlkioDeviceWriteIOps"),
    "KernelMemoryTCP": (_SET, "the kernel no longer limits it apart from Memory"),
    "UsernsMode": (lambda mode: mode not in ("", "host"), "user namespaces are the runtime's, choose host or nothing"),
}
"""Fields of HostConfig that no runtime honours: when a value counts as asked for, and why it is refused."""

UPDATABLE = frozenset(
    "cpu_shares memory nano_cpus blkio_weight cpu_period cpu_quota cpuset_cpus cpuset_mems memory_reservation "
    "memory_swap pids_limit restart_policy".split()
)
"""Fields of HostConfig that an update may change."""


def refuse(host: HostConfig) -> None:
    """Raise Unsupported for the first field that is asked for and cannot be honoured."""
    for field in msgspec.structs.fields(HostConfig):
        known = REFUSED.get(field.encode_name)
        if known is not None and known[0](getattr(host, field.name)):
            raise Unsupported(f"HostConfig.{field.encode_name} cannot be honoured: {known[1]}")


def read_create(data: bytes, version: versions.Version) -> Create:
    """A create body of a client that speaks this version. Raises InvalidArgument, Unsupported."""
    if not data.strip():
        raise InvalidArgument("invalid JSON: got EOF while reading request body")
    config, rest = decode(data, Config), decode(data, CreateRest)
    host = versions.host_config(version, rest.host_config)
    refuse(host)
    _check_subpaths(host)
    if config.network_disabled:
        host = msgspec.structs.replace(host, network_mode="none")
    endpoints = {
        name: endpoint or EndpointSettings()
        for name, endpoint in (rest.networking_config.endpoints_config or {}).items()
    }
    endpoints = versions.endpoints(version, endpoints)
    config = versions.config(version, config)
    return Create(
        config=config,
        host=host,
        endpoints=_with_address(config, host, endpoints),
        warnings=versions.warnings(version, config),
    )


def _check_subpaths(host: HostConfig) -> None:
    """Raise InvalidArgument for a subpath that begins outside its volume; links are judged when it is mounted."""
    for mount in host.mounts or []:
        subpath = mount.volume_options.subpath if mount.volume_options else ""
        if {"..", "/"} & set(PurePosixPath(subpath).parts):
            raise InvalidArgument(
                'invalid mount config for type "volume": subpath must be a relative path within the volume'
            )


def _with_address(
    config: Config, host: HostConfig, endpoints: dict[str, EndpointSettings]
) -> dict[str, EndpointSettings]:
    """Clients before API 1.44 give the hardware address beside the networks instead of in one of them."""
    if not config.mac_address:
        return endpoints
    mode = host.network_mode or "default"
    if mode in ("host", "none") or mode.startswith("container:"):
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    first = next(iter(endpoints), "bridge" if mode == "default" else mode)
    present = endpoints.get(first, EndpointSettings())
    if present.mac_address and present.mac_address != config.mac_address:
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
            "or be left empty"
        )
    return endpoints | {first: msgspec.structs.replace(present, mac_address=config.mac_address)}


def read_update(host: HostConfig) -> dict[str, Any]:
    """The fields that an update changes: what is not empty. Raises Unsupported for others."""
    refuse(host)
    default = HostConfig()
    changes: dict[str, Any] = {}
    for field in msgspec.structs.fields(HostConfig):
        value = getattr(host, field.name)
        if value == getattr(default, field.name) or value in (None, [], {}, ""):
            continue
        if field.name not in UPDATABLE:
            raise Unsupported(f"HostConfig.{field.encode_name} cannot be changed by an update")
        if value != RestartPolicy():
            changes[field.name] = value
    return changes


def plain_start(container: Container, error: Exception) -> InvalidArgument:
    """A start that fails for the command's sake is the request's fault: Docker answers 400, not 404 or 403."""
    return InvalidArgument(f"failed to start container {container.name}: {error}")
