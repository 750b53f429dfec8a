"""What keeps a QEMU process in its place on the host: a uid of its own and a cgroup with limits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from bastide.host import cgroups
from bastide.model.errors import HostError, ResourceExhausted

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

    def keep(self, alive: Callable[[str], bool]) -> None:
        """Give back those whose owners are gone."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if not alive(path.read_text() or "-"):
                    path.unlink(missing_ok=True)

    def free(self, uid: int) -> None:
        """Give one back. Repeatable."""
        (self._folder / str(uid - self._first)).unlink(missing_ok=True)


def _limits_v1(memory: int, cpus: float) -> dict[str, dict[str, int]]:
    limits: dict[str, dict[str, int]] = {
        "memory": {"memory.limit_in_bytes": memory + _OVERHEAD},
        "pids": {"pids.max": _THREADS},
        "cpu": {},
        "cpuacct": {},
        "freezer": {},
    }
    if cpus:
        limits["cpu"] = {"cpu.cfs_period_us": _PERIOD, "cpu.cfs_quota_us": int(_PERIOD * cpus)}
    return limits


def _write(path: Path, value: object) -> None:
    try:
        path.write_text(str(value))
    except OSError as error:
        raise HostError("write", error.errno or 5, path) from error


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError("mkdir", error.errno or 5, directory) from error


def _enable(directory: Path) -> None:
    """Let the controllers reach `directory` from the root down (cgroup-v2, "Enabling and Disabling")."""
    wanted = cgroups.controllers() & {"memory", "pids", "cpu", "io"}
    for parent in reversed(directory.relative_to(cgroups.ROOT).parents):
        control = cgroups.ROOT / parent / "cgroup.subtree_control"
        with contextlib.suppress(OSError):
            if missing := wanted - set(control.read_text().split()):
                control.write_text(" ".join(f"+{name}" for name in sorted(missing)))


def confine(group: cgroups.Group, memory: int, cpus: float) -> Iterable[Path]:
    """Make the group with limits for a guest of `memory` bytes and (if not 0) `cpus` processors.

    Gives the files that a process writes itself into. Raises HostError.
    """
    if cgroups.unified():
        directory = group.directory("")
        _make(directory)
        _enable(directory)
        values = {"memory.max": str(memory + _OVERHEAD), "pids.max": str(_THREADS)}
        if cpus:
            values["cpu.max"] = f"{int(_PERIOD * cpus)} {_PERIOD}"
        for name, value in values.items():
            if (directory / name).exists():
                _write(directory / name, value)
        return [directory / "cgroup.procs"]
    found: dict[Path, None] = {}
    for controller, limits in _limits_v1(memory, cpus).items():
        if controller in cgroups.hierarchies():
            directory = group.directory(controller)
            _make(directory)
            for name, limit in limits.items():
                _write(directory / name, limit)
            found[directory / "cgroup.procs"] = None
    return found
