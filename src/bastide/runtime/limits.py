"""Resource limits: HostConfig's fields to the OCI runtime-spec's `linux.resources`.

Defaults are Docker's: memory and swap together are twice the memory where only memory is named.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bastide.host import cgroups
from bastide.model.container import DeviceMapping, HostConfig, ThrottleDevice
from bastide.model.errors import InvalidArgument

_CPU_PERIOD = 100_000
"""Microseconds in which `NanoCpus` is counted."""
_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})\Z")

# What every container may use: moby oci/devices_linux.go and the runtime-spec's default devices.
_DEVICES = (
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)


def resources(host: HostConfig, rules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The whole section; `rules` are the device rules beyond those that every container has."""
    result = limits(host)
    if host.privileged:
        result["devices"] = [{"allow": True, "access": "rwm"}]
    else:
        basic = [_device_rule(*rule) for rule in _DEVICES]
        result["devices"] = [{"allow": False, "access": "rwm"}, *basic, *rules]
    return result


def limits(host: HostConfig) -> dict[str, Any]:
    """What can also be changed while the container runs."""
    sections = {
        "memory": _memory(host),
        "cpu": _cpu(host),
        "pids": {"limit": host.pids_limit} if host.pids_limit and host.pids_limit > 0 else {},
        "blockIO": _block_io(host),
    }
    return {name: section for name, section in sections.items() if section}


def _memory(host: HostConfig) -> dict[str, Any]:
    swap = host.memory_swap or (host.memory * 2 if host.memory else 0)
    section: dict[str, Any] = {
        "limit": host.memory,
        "reservation": host.memory_reservation,
        "swap": swap if cgroups.swap_counted() else 0,
        "kernelTCP": host.kernel_memory_tcp,
        "disableOOMKiller": bool(host.oom_kill_disable),
    }
    result = {name: value for name, value in section.items() if value}
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        result["swappiness"] = host.memory_swappiness
    return result


def _cpu(host: HostConfig) -> dict[str, Any]:
    quota, period = host.cpu_quota, host.cpu_period
    if host.nano_cpus:
        period, quota = _CPU_PERIOD, host.nano_cpus * _CPU_PERIOD // 1_000_000_000
    section: dict[str, Any] = {
        "shares": host.cpu_shares,
        "quota": quota,
        "period": period,
        "realtimePeriod": host.cpu_realtime_period,
        "realtimeRuntime": host.cpu_realtime_runtime,
        "cpus": host.cpuset_cpus,
        "mems": host.cpuset_mems,
    }
    return {name: value for name, value in section.items() if value}


def _block_io(host: HostConfig) -> dict[str, Any]:
    section: dict[str, Any] = {}
    if host.blkio_weight:
        section["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        section["weightDevice"] = [
            {**_numbers(entry.path), "weight": entry.weight} for entry in host.blkio_weight_device
        ]
    for name, entries in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if entries:
            section[name] = _throttles(entries)
    return section


def _throttles(entries: Iterable[ThrottleDevice]) -> list[dict[str, int]]:
    return [{**_numbers(entry.path), "rate": entry.rate} for entry in entries]


def _numbers(path: str) -> dict[str, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise InvalidArgument(f"no such device: {path}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"{path} is not a block device")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


def _device_rule(kind: str, major: int | None, minor: int | None, access: str) -> dict[str, Any]:
    numbers = {name: value for name, value in (("major", major), ("minor", minor)) if value is not None}
    return {"allow": True, "type": kind, **numbers, "access": access}


def custom_rules(rules: Iterable[str]) -> list[dict[str, Any]]:
    """`DeviceCgroupRules` (`c 1:3 rwm`, `*` for any number). Raises InvalidArgument in Docker's words."""
    result = []
    for text in rules:
        match = _RULE.match(text)
        if not match:
            raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
        major, minor = (None if word == "*" else int(word) for word in match.group(2, 3))
        result.append(_device_rule(match[1], major, minor, match[4]))
    return result


def devices(mappings: Iterable[DeviceMapping]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Device nodes to make and the rules that let them be used. A directory means all devices in it."""
    nodes: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for mapping in mappings:
        source = Path(mapping.path_on_host)
        target = Path(mapping.path_in_container or mapping.path_on_host)
        found = [source, *sorted(source.rglob("*"))] if source.is_dir() else [source]
        made = [_node(path, target / path.relative_to(source)) for path in found if not path.is_dir()]
        if not any(made):
            raise InvalidArgument(
                f'error gathering device information while adding custom device "{source}": no such file or directory'
            )
        for node in filter(None, made):
            nodes.append(node)
            rules.append(_device_rule(node["type"], node["major"], node["minor"], mapping.cgroup_permissions or "rwm"))
    return nodes, rules


def all_devices() -> list[dict[str, Any]]:
    """Every device node below the host's /dev, for a privileged container."""
    nodes = []
    for folder, names, files in os.walk("/dev"):
        names[:] = [name for name in names if f"{folder}/{name}" not in ("/dev/pts", "/dev/shm", "/dev/mqueue")]
        nodes += [_node(Path(folder, name), Path(folder, name)) for name in files if name != "console"]
    return [node for node in nodes if node]


def _node(source: Path, target: Path) -> dict[str, Any] | None:
    try:
        found = source.stat()
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        return None
    return {
        "path": str(target),
        "type": kind,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }
