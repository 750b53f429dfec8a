"""Control groups, v1 and v2: where they are, what they say.

Kernel documentation: admin-guide/cgroup-v2, admin-guide/cgroup-v1/{memory,cpuacct,blkio-controller,pids}.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bastide.host.mounts import mounts
from bastide.model.errors import HostError
from bastide.model.process import Stats

ROOT = Path("/sys/fs/cgroup")
_V1_MEMORY = ("memory.usage_in_bytes", "memory.limit_in_bytes")
_EXPECTED_SECONDS = 0.012
_NOT_CONTROLLERS = ("rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode")
"""Words among a v1 hierarchy's mount options that name no controller."""


@functools.cache
def unified() -> bool:
    """Whether this host has v2 alone; else controllers are under v1, perhaps with v2 beside them."""
    return (ROOT / "cgroup.controllers").exists()


@functools.cache
def hierarchies() -> dict[str, Path]:
    """v1 controllers (and named hierarchies, as `name=systemd`) to where they are mounted."""
    return {
        word: Path(entry.target)
        for entry in mounts()
        # Whatever was mounted over it since is what is there now.
        if entry.kind == "cgroup" and (Path(entry.target) / "tasks").exists()
        for word in entry.options.split(",")
        if word not in _NOT_CONTROLLERS and not word.startswith("release_agent=")
    }


def controllers() -> frozenset[str]:
    """The controllers that limits can be set with here."""
    if unified():
        with contextlib.suppress(OSError):
            return frozenset((ROOT / "cgroup.controllers").read_text().split())
        return frozenset()
    return frozenset(name for name in hierarchies() if not name.startswith("name="))


def swap_counted() -> bool:
    """Whether memory and swap together can be limited."""
    if not unified():
        memory = hierarchies().get("memory")
        return memory is not None and (memory / "memory.memsw.limit_in_bytes").exists()
    return any(path.exists() for path in (ROOT / "memory.swap.max", *ROOT.glob("*/memory.swap.max")))


def weighs_block_io() -> bool:
    """Whether groups can have weights of block I/O (the scheduler bfq, or iocost)."""
    base = ROOT if unified() else hierarchies().get("blkio", ROOT / "blkio")
    kind = "io" if unified() else "blkio"
    return any(path.exists() for name in ("weight", "bfq.weight") for path in base.glob(f"*/{kind}.{name}"))


def expect_moves() -> None:
    """Make the next moves of processes between groups, within about 15 ms, cheap. Takes about 12 ms: call it
    in a thread, as early as it is known that a process will be started in a group.

    A move takes a lock for writing whose first taking waits for an RCU grace period (kernel/cgroup/cgroup.c,
    cgroup_threadgroup_rwsem); until the next one has passed, taking it again costs nothing. Moving a process
    to where it is already takes the lock and changes nothing.
    """
    name, path = _own_group()
    base = ROOT if unified() else hierarchies().get(name, ROOT / name)
    with contextlib.suppress(OSError):
        (base / path / "cgroup.procs").write_text("0")


class Moves:
    """Calls `expect_moves` in a thread of its own, as often as it helps."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="moves")
        self._expected = 0.0

    def expect(self) -> None:
        """A process will be moved soon. Returns at once."""
        now = time.monotonic()
        if now - self._expected > _EXPECTED_SECONDS:
            self._expected = now
            self._thread.submit(expect_moves)

    def close(self) -> None:
        """Return when what was asked for is done."""
        self._thread.shutdown()


@functools.cache
def _own_group() -> tuple[str, str]:
    """A controller and this process's group there."""
    for names, path in _own_groups():
        if (not names) if unified() else (names and not names.startswith("name=")):
            return names.split(",")[0], path
    return "", ""


def _own_groups() -> list[tuple[str, str]]:
    """Controllers (with commas, empty for v2) and this process's group there, for each hierarchy: cgroups(7)."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return [(names, path.strip("/")) for _, names, path in lines]


@functools.cache
def _own_tasks() -> frozenset[Path]:
    """The `tasks` files of this process's own groups, in the version 1 hierarchies that are mounted."""
    known = hierarchies()
    return frozenset(
        known[first] / path / "tasks" for names, path in _own_groups() if (first := names.split(",")[0]) in known
    )


def _within_machine(limit: int) -> int:
    """What a group can really use: no limit (`max`, or v1's 63 bits of ones) means the machine's memory."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(limit, machine) if limit else machine


class Group:
    """One group of a container: the same path below every hierarchy."""

    def __init__(self, path: str) -> None:
        self.path = path.strip("/")

    def directory(self, controller: str) -> Path:
        """Where a controller's files are."""
        base = ROOT if unified() else hierarchies().get(controller, ROOT / controller)
        return base / self.path

    def directories(self) -> list[Path]:
        """Every directory of the group, in all hierarchies."""
        bases = {ROOT} if unified() else {*hierarchies().values(), ROOT / "unified"}
        return [base / self.path for base in sorted(bases)]

    def entrances(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The `tasks` files by which a thread moves itself in, and those by which it comes back to where we are.

        None on a version 2 host, and where there is no way back. Of a host with both versions, the version 2
        hierarchy is left out: it limits nothing.
        """
        if unified():
            return None
        into = [base / self.path / "tasks" for base in sorted({*hierarchies().values()})]
        found = tuple(str(file) for file in into if file.exists())
        back = tuple(str(file) for file in _own_tasks() if file.exists())
        return (found, back) if found and len(back) >= len(found) else None

    def has_room(self, pids: int, memory: int) -> bool:
        """Whether so many more processes and bytes fit below the limits (version 1), nothing being reclaimed."""
        pairs = (("pids", "pids.current", "pids.max", pids), ("memory", *_V1_MEMORY, memory))
        limits = [(self._number(kind, used), self._number(kind, most), more) for kind, used, most, more in pairs]
        return all(not most or used + more <= most for used, most, more in limits)

    def _read(self, controller: str, name: str) -> str:
        try:
            return (self.directory(controller) / name).read_text()
        except OSError:
            return ""

    def _number(self, controller: str, name: str) -> int:
        text = self._read(controller, name).strip()
        return int(text) if text.lstrip("-").isdigit() else 0

    def _table(self, controller: str, name: str) -> dict[str, int]:
        pairs = (line.split() for line in self._read(controller, name).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

    def processes(self) -> list[int]:
        """The pids in the group and in those below it."""
        start = self.directory("pids" if "pids" in controllers() else "memory")
        found: set[int] = set()
        for folder, _, files in os.walk(start):
            if "cgroup.procs" in files:
                with contextlib.suppress(OSError):
                    found.update(map(int, Path(folder, "cgroup.procs").read_text().split()))
        return sorted(found - {0})

    def holds(self, pid: int) -> bool:
        """Whether a process is in the group or below it."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return False
        paths = [line.split(":", 2)[2].strip("/") for line in lines]
        return any(path == self.path or path.startswith(f"{self.path}/") for path in paths)

    def oom_kills(self) -> int:
        """How many processes the kernel killed because the group was out of memory."""
        if unified():
            return self._table("memory", "memory.events").get("oom_kill", 0)
        return self._table("memory", "memory.oom_control").get("oom_kill", 0)

    def frozen(self) -> bool:
        """Whether the group is paused."""
        if unified():
            return self._read("", "cgroup.freeze").strip() == "1"
        return self._read("freezer", "freezer.state").strip() in ("FROZEN", "FREEZING")

    def freeze(self, frozen: bool) -> None:
        """Pause or resume. Raises OSError; FileNotFoundError when there is no such group."""
        if unified():
            (self.directory("") / "cgroup.freeze").write_text("1" if frozen else "0")
        else:
            (self.directory("freezer") / "freezer.state").write_text("FROZEN" if frozen else "THAWED")

    def exists(self) -> bool:
        """Whether any directory of the group is there."""
        return any(path.is_dir() for path in self.directories())

    def remove(self) -> bool:
        """Remove the empty directories of the group; says whether nothing of it is left."""
        gone = True
        for top in self.directories():
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    Path(folder).rmdir()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                        raise
                    gone = False
        return gone

    def stats(self) -> Stats:
        """Resource use now; zeros where a controller is missing."""
        return self._stats_v2() if unified() else self._stats_v1()

    def _stats_v2(self) -> Stats:
        cpu = self._table("cpu", "cpu.stat")
        memory = self._table("memory", "memory.stat")
        read, written = self._io_v2()
        return Stats(
            cpu_total=cpu.get("usage_usec", 0) * 1000,
            cpu_user=cpu.get("user_usec", 0) * 1000,
            cpu_system=cpu.get("system_usec", 0) * 1000,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_time=cpu.get("throttled_usec", 0) * 1000,
            memory=self._number("memory", "memory.current"),
            memory_max=self._number("memory", "memory.peak"),
            memory_limit=_within_machine(self._number("memory", "memory.max")),
            memory_stats=memory,
            pids=self._number("pids", "pids.current"),
            pids_limit=self._number("pids", "pids.max"),
            block_read=read,
            block_write=written,
        )

    def _io_v2(self) -> tuple[int, int]:
        read = written = 0
        for line in self._read("io", "io.stat").splitlines():
            for word in line.split()[1:]:
                key, _, value = word.partition("=")
                if key == "rbytes":
                    read += int(value)
                elif key == "wbytes":
                    written += int(value)
        return read, written

    def _stats_v1(self) -> Stats:
        times = self._table("cpuacct", "cpuacct.stat")
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        throttling = self._table("cpu", "cpu.stat")
        read, written = self._io_v1()
        return Stats(
            cpu_total=self._number("cpuacct", "cpuacct.usage"),
            cpu_user=times.get("user", 0) * tick,
            cpu_system=times.get("system", 0) * tick,
            cpu_per_core=tuple(map(int, self._read("cpuacct", "cpuacct.usage_percpu").split())),
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled_time=throttling.get("throttled_time", 0),
            memory=self._number("memory", "memory.usage_in_bytes"),
            memory_max=self._number("memory", "memory.max_usage_in_bytes"),
            memory_limit=_within_machine(self._number("memory", "memory.limit_in_bytes")),
            memory_stats=self._table("memory", "memory.stat"),
            pids=self._number("pids", "pids.current"),
            pids_limit=self._number("pids", "pids.max"),
            block_read=read,
            block_write=written,
        )

    def _io_v1(self) -> tuple[int, int]:
        totals = {"Read": 0, "Write": 0}
        for line in self._read("blkio", "blkio.throttle.io_service_bytes_recursive").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in totals:
                totals[words[1]] += int(words[2])
        return totals["Read"], totals["Write"]


def inherit_cpuset(directory: Path) -> None:
    """Give a version 1 cpuset and those above it, which begin empty, what their parents have. Raises HostError."""
    root = hierarchies()["cpuset"]
    for folder in reversed([directory, *directory.parents]):
        if folder != root and folder.is_relative_to(root):
            for name in ("cpuset.cpus", "cpuset.mems"):
                try:
                    if not (folder / name).read_text().strip():
                        (folder / name).write_text((folder.parent / name).read_text().strip())
                except OSError as error:
                    raise HostError("write", error.errno or 5, folder / name) from error
