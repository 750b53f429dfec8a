"""What keeps a QEMU process in its place on the host: a uid of its own and a cgroup with limits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bastide.host import cgroups
from bastide.model.errors import HostError, ResourceExhausted, Unsupported

_OVERHEAD = 256 << 20
"""Bytes that QEMU may use beyond the guest's memory: translated code, buffers, the disks' page cache."""
_THREADS = 64
_UIDS = 100_000
_PERIOD = 100_000
"""CFS period in microseconds."""


class Uids:
    """Hands out uids from `first` + 1 on; `first` itself is for templates. A file for each in use.

    The folder is in the run root: it is gone after a reboot, as the processes are.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self._folder, self._first = folder, first

    def take(self, owner: str) -> int:
        """The lowest uid that nobody uses. Raises ResourceExhausted."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        taken = {int(name) for name in os.listdir(self._folder) if name.isdigit()}
        for number in range(1, _UIDS):
            if number in taken:
                continue
            with contextlib.suppress(FileExistsError):
                with (self._folder / str(number)).open("x") as file:
                    file.write(owner)
                return self._first + number
        raise ResourceExhausted(f"all {_UIDS} uids for VMs are in use")

    def pass_on(self, uid: int, owner: str) -> None:
        """Write down a new owner."""
        (self._folder / str(uid - self._first)).write_text(owner)

    def keep(self, alive: Callable[[str], bool]) -> None:
        """Give back those whose owners are gone."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if not alive(path.read_text() or "-"):
                    path.unlink(missing_ok=True)

    def free(self, uid: int) -> None:
        """Give one back. Repeatable."""
        (self._folder / str(uid - self._first)).unlink(missing_ok=True)


Limits = dict[str, dict[str, list[str]]]
"""By controller: file to what is written to it, one write after the other."""


def _limits(memory: int, resources: dict[str, Any], *, unified: bool) -> Limits:
    """`resources` are the OCI runtime-spec's `linux.resources` (config-linux.md): `cpu`, `blockIO` and
    `memory.reservation` of it are the host's business, the rest the guest's. Kernel documentation:
    admin-guide/cgroup-v2 and admin-guide/cgroup-v1."""
    cpu, io = resources.get("cpu", {}), resources.get("blockIO", {})
    quota, period = cpu.get("quota", 0), cpu.get("period", 0) or _PERIOD
    reservation = resources.get("memory", {}).get("reservation", "")
    shares = cpu.get("shares", 0)
    if unified:
        values: dict[str, dict[str, Any]] = {
            "memory": {"memory.max": memory + _OVERHEAD, "memory.low": reservation},
            "pids": {"pids.max": _THREADS},
            "cpu": {"cpu.max": f"{quota} {period}" * (quota > 0), "cpu.weight": shares and _weight(shares)},
            "cpuset": {"cpuset.cpus": cpu.get("cpus", ""), "cpuset.mems": cpu.get("mems", "")},
            "io": {"io.bfq.weight": io.get("weight", 0)},
        }
    else:
        values = {
            "memory": {"memory.limit_in_bytes": memory + _OVERHEAD, "memory.soft_limit_in_bytes": reservation},
            "pids": {"pids.max": _THREADS},
            "cpu": {"cpu.cfs_period_us": quota > 0 and period, "cpu.cfs_quota_us": quota, "cpu.shares": shares},
            "cpuset": {"cpuset.cpus": cpu.get("cpus", ""), "cpuset.mems": cpu.get("mems", "")},
            "blkio": {"blkio.bfq.weight": io.get("weight", 0)},
        }
    limits = {
        controller: {name: [str(value)] for name, value in files.items() if value}
        for controller, files in values.items()
    }
    limits["io" if unified else "blkio"] |= _throttles(io, unified=unified)
    return limits


def _weight(shares: int) -> int:
    """Version 1's shares (2 to 262144) as version 2's weight (1 to 10000), by crun's and systemd's conversion."""
    return 1 + (shares - 2) * 9999 // 262142


_THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def _throttles(io: dict[str, Any], *, unified: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, (name, word) in _THROTTLES.items():
        for entry in io.get(kind, ()):
            device = f"{entry['major']}:{entry['minor']}"
            line = f"{device} {word}={entry['rate']}" if unified else f"{device} {entry['rate']}"
            found.setdefault("io.max" if unified else name, []).append(line)
    for entry in io.get("weightDevice", ()):
        name = "io.bfq.weight" if unified else "blkio.bfq.weight_device"
        found.setdefault(name, []).append(f"{entry['major']}:{entry['minor']} {entry['weight']}")
    return found


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except FileNotFoundError as error:
        raise Unsupported(f"this host's kernel has no limit {path.name}") from error
    except OSError as error:
        raise HostError("write", error.errno or 5, path) from error


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError("mkdir", error.errno or 5, directory) from error


def _enable(directory: Path, wanted: frozenset[str]) -> None:
    """Let the controllers reach `directory` from the root down (cgroup-v2, "Enabling and Disabling")."""
    for parent in reversed(directory.relative_to(cgroups.ROOT).parents):
        control = cgroups.ROOT / parent / "cgroup.subtree_control"
        with contextlib.suppress(OSError):
            if missing := wanted - set(control.read_text().split()):
                control.write_text(" ".join(f"+{name}" for name in sorted(missing)))


def confine(group: cgroups.Group, memory: int, resources: dict[str, Any]) -> Iterable[Path]:
    """Make the group with limits for a guest of `memory` bytes (and `resources`, see `_limits`).

    Gives the files that a process writes itself, or is written, into. Raises HostError, and Unsupported
    where the kernel has no such limit.
    """
    limits = _limits(memory, resources, unified=cgroups.unified())
    used = {name for name, files in limits.items() if files}
    if cgroups.unified():
        directory = group.directory("")
        _make(directory)
        _enable(directory, cgroups.controllers() & ({"memory", "pids", "cpu", "io"} | used))
        limit(group, memory, resources)
        return [directory / "cgroup.procs"]
    found: dict[Path, None] = {}
    for controller in ({"cpu", "cpuacct", "freezer"} | used) & cgroups.hierarchies().keys():
        directory = group.directory(controller)
        _make(directory)
        if controller == "cpuset":
            cgroups.inherit_cpuset(directory)
        found[directory / "cgroup.procs"] = None
    limit(group, memory, resources)
    return found


_ALWAYS = ("memory.max", "pids.max")
"""Limits of every VM, which a version 2 hierarchy may lack where it was not delegated."""


def limit(group: cgroups.Group, memory: int, resources: dict[str, Any]) -> None:
    """Write a group's limits. Raises as `confine`."""
    for controller, files in _limits(memory, resources, unified=cgroups.unified()).items():
        directory = group.directory(controller)
        if not directory.is_dir() and controller in ("memory", "pids"):
            continue
        for name, values in files.items():
            if name not in _ALWAYS or (directory / name).exists():
                for value in values:
                    _write(directory / name, value)
