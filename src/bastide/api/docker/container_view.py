"""Containers as the Docker Engine API 1.47 shows them: `ContainerInspectResponse` and `ContainerSummary`."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import Any

import msgspec

from bastide.api.times import SECOND, epoch, span
from bastide.model.container import NEVER, Container, MountPoint, Status
from bastide.model.network import EndpointSettings

# Fields that Go's structs leave out when they are empty (`omitempty` in moby api/types/container).
_CONFIG_OMITTED = frozenset(
    "ExposedPorts Healthcheck ArgsEscaped NetworkDisabled MacAddress StopSignal StopTimeout Shell".split()
)
_HOST_OMITTED = frozenset("Annotations Mounts StorageOpt Tmpfs Sysctls Runtime Init".split())
# What Docker masks and makes read-only in a container that is not privileged: moby oci/defaults.go.
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_STOPPED_ENDPOINT = {
    "endpoint_id": "",
    "gateway": "",
    "ip_address": "",
    "ip_prefix_len": 0,
    "ipv6_gateway": "",
    "global_ipv6_address": "",
    "global_ipv6_prefix_len": 0,
}


def _without_empty(value: dict[str, Any], omitted: frozenset[str]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in omitted or item not in (None, "", {}, [], False)}


def _alive(container: Container) -> bool:
    return container.state.status in (Status.RUNNING, Status.PAUSED)


def state(container: Container) -> dict[str, Any]:
    """The `State` of an inspect answer."""
    now = container.state
    shown: dict[str, Any] = {
        "Status": now.status,
        "Running": now.status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING),
        "Paused": now.status is Status.PAUSED,
        "Restarting": now.status is Status.RESTARTING,
        "OOMKilled": now.oom_killed,
        "Dead": now.status is Status.DEAD,
        "Pid": now.pid,
        "ExitCode": now.exit_code,
        "Error": now.error,
        "StartedAt": now.started_at,
        "FinishedAt": now.finished_at,
    }
    if now.health is not None:
        shown["Health"] = {
            "Status": now.health.status,
            "FailingStreak": now.health.failing_streak,
            "Log": now.health.log,
        }
    return shown


def mount_point(point: MountPoint) -> dict[str, Any]:
    """A mount as it was resolved."""
    return _without_empty(msgspec.to_builtins(point), frozenset(("Name", "Driver")))


def endpoints(container: Container) -> dict[str, Any]:
    """Networks by name; a container that does not run has no addresses."""
    shown = {}
    for name, endpoint in container.networks.items():
        present = endpoint if _alive(container) else msgspec.structs.replace(endpoint, **_STOPPED_ENDPOINT)
        plain: dict[str, Any] = msgspec.to_builtins(present)
        del plain["GwPriority"]
        shown[name] = plain
    return shown


def _network_settings(container: Container) -> dict[str, Any]:
    own = container.networks.get("bridge", EndpointSettings()) if _alive(container) else EndpointSettings()
    return {
        "Bridge": "",
        "SandboxID": container.id if _alive(container) else "",
        "SandboxKey": "",
        "Ports": _port_map(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": own.endpoint_id,
        "Gateway": own.gateway,
        "GlobalIPv6Address": own.global_ipv6_address,
        "GlobalIPv6PrefixLen": own.global_ipv6_prefix_len,
        "IPAddress": own.ip_address,
        "IPPrefixLen": own.ip_prefix_len,
        "IPv6Gateway": own.ipv6_gateway,
        "MacAddress": own.mac_address,
        "Networks": endpoints(container),
    }


def _port_map(container: Container) -> dict[str, Any]:
    """Exposed and published ports of a running container."""
    if not _alive(container):
        return {}
    exposed: dict[str, Any] = dict.fromkeys(container.config.exposed_ports or {})
    return exposed | {port: bindings or None for port, bindings in container.ports.items()}


def _host_config(container: Container) -> dict[str, Any]:
    host = container.host_config
    shown = _without_empty(msgspec.to_builtins(host), _HOST_OMITTED)
    shown["Runtime"] = container.runtime
    shown["Isolation"] = host.isolation
    shown["ConsoleSize"] = host.console_size or [0, 0]
    for name in ("PortBindings", "BlkioWeightDevice", "Dns", "DnsOptions", "DnsSearch", "Devices"):
        if shown[name] is None:
            shown[name] = {} if name == "PortBindings" else []
    if host.privileged:
        return shown | {"MaskedPaths": None, "ReadonlyPaths": None}
    if {"systempaths=unconfined", "systempaths:unconfined"} & set(host.security_opt or []):
        return shown | {"MaskedPaths": [], "ReadonlyPaths": []}
    masked = list(MASKED_PATHS) if host.masked_paths is None else host.masked_paths
    readonly = list(READONLY_PATHS) if host.readonly_paths is None else host.readonly_paths
    return shown | {"MaskedPaths": masked, "ReadonlyPaths": readonly}


def inspect(container: Container, exec_ids: list[str]) -> dict[str, Any]:
    """Everything about a container."""
    folder = PurePosixPath(container.log_path).parent
    return {
        "Id": container.id,
        "Created": container.created,
        "Path": container.path,
        "Args": container.args,
        "State": state(container),
        "Image": container.image_id,
        "ResolvConfPath": str(folder / "resolv.conf"),
        "HostnamePath": str(folder / "hostname"),
        "HostsPath": str(folder / "hosts"),
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": container.snapshotter,
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids or None,
        "HostConfig": _host_config(container),
        "GraphDriver": {"Data": None, "Name": container.snapshotter},
        "Mounts": [mount_point(point) for point in container.mounts],
        "Config": _without_empty(msgspec.to_builtins(container.config), _CONFIG_OMITTED),
        "NetworkSettings": _network_settings(container),
    }


def _since(stamp: str) -> str:
    return span(max(0.0, (time.time_ns() - epoch(stamp)) / SECOND))


def status_text(container: Container) -> str:
    """The status column of `docker ps`: `Up 5 seconds (healthy)`, `Exited (0) 2 minutes ago`."""
    now = container.state
    if now.status is Status.PAUSED:
        return f"Up {_since(now.started_at)} (Paused)"
    if now.status is Status.RUNNING:
        if now.health is None or now.health.status == "none":
            return f"Up {_since(now.started_at)}"
        health = "health: starting" if now.health.status == "starting" else now.health.status
        return f"Up {_since(now.started_at)} ({health})"
    if now.status is Status.RESTARTING:
        return f"Restarting ({now.exit_code}) {_since(now.finished_at)} ago"
    if now.status is Status.REMOVING:
        return "Removal In Progress"
    if now.status is Status.DEAD:
        return "Dead"
    if now.started_at == NEVER:
        return "Created"
    return f"Exited ({now.exit_code}) {_since(now.finished_at)} ago"


def ports(container: Container) -> list[dict[str, Any]]:
    """The ports of a summary, one entry for each address that publishes one."""
    shown: list[dict[str, Any]] = []
    for port, bindings in _port_map(container).items():
        number, _, protocol = port.partition("/")
        private = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        for binding in bindings or ():
            public = {"PublicPort": int(binding.host_port)} if binding.host_port else {}
            shown.append({"IP": binding.host_ip, **private, **public})
        if not bindings:
            shown.append(private)
    return shown


def command(container: Container) -> str:
    """The command of a summary, arguments with spaces in quotes."""
    words = [f"'{word}'" if " " in word else word for word in container.args]
    return " ".join([container.path, *words])


def summary(container: Container, image: str) -> dict[str, Any]:
    """A row of the list; `image` is the name under which the image is shown."""
    host: dict[str, Any] = {"NetworkMode": container.host_config.network_mode}
    if container.host_config.annotations:
        host["Annotations"] = container.host_config.annotations
    if container.host_config.isolation:
        host["Isolation"] = container.host_config.isolation
    return {
        "Id": container.id,
        "Names": [f"/{container.name}"],
        "Image": image,
        "ImageID": container.image_id,
        "Command": command(container),
        "Created": epoch(container.created) // SECOND,
        "Ports": ports(container),
        "Labels": container.config.labels or {},
        "State": container.state.status,
        "Status": status_text(container),
        "Platform": "/".join(filter(None, (container.platform, container.architecture, container.variant))),
        "HostConfig": host,
        "NetworkSettings": {"Networks": endpoints(container)},
        "Mounts": [mount_point(point) for point in container.mounts],
    }
