"""Questions about what is inside a guest: files, processes, resource use. The agent's own functions answer them.

Guests lie: texts are parsed strictly and bounded, numbers are clamped.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from bastide.hypervisor.agent import Agent, Channel
from bastide.hypervisor.frames import Ask
from bastide.hypervisor.process import specification
from bastide.model.errors import GuestError, InvalidArgument, NotFound
from bastide.model.filemode import go_mode
from bastide.model.process import Process, Stats

_STAT_LIMIT = 64 << 10
_CHANGES_LIMIT, _PROCESSES_LIMIT = 32 << 20, 8 << 20
"""Bytes that an answer may have."""
_CHANGES_COUNT, _PROCESSES_COUNT = 500_000, 100_000
"""Texts, ended by NUL, that an answer may have: each costs this side far more than its bytes."""
_DIGITS = 15
_LARGEST = 1 << 63


async def _start(agent: Agent, *words: str, stdin: bool = False) -> Channel:
    return await agent.run(specification(Process(args=words, stdin=stdin), builtin=True))


async def _finish(channel: Channel, complaint: bytes, path: str) -> None:
    """Raise what the function's exit code means."""
    code, _ = await channel.ended
    text = complaint.decode(errors="replace").strip()[:500]
    if code == 2:
        raise NotFound(f"Could not find the file {path} in container")
    if code:
        raise InvalidArgument(text or f"the guest could not do it (exit status {code})")


async def _collect(agent: Agent, *words: str, limit: int = _STAT_LIMIT, count: int = 1) -> bytes:
    channel = await _start(agent, *words)
    output, complaint = bytearray(), bytearray()
    try:
        async for which, data in channel.output():
            target = output if which == 1 else complaint
            target += data
            if len(output) + len(complaint) > limit:
                output.clear()
                raise GuestError("the guest's answer is too long")
    finally:
        channel.detach()
    await _finish(channel, bytes(complaint), words[-1])
    if output.count(0) > count:
        raise GuestError("the guest's answer is too long")
    return bytes(output)


def _numbers(text: str, count: int) -> list[int]:
    words = text.split()
    try:
        found = [int(word) for word in words[:count]]
    except ValueError as error:
        raise GuestError("the guest agent answered with nonsense") from error
    if len(found) < count or any(not -_LARGEST < value < _LARGEST for value in found):
        raise GuestError("the guest agent answered with nonsense")
    return found


def _count(word: str) -> int | None:
    """A number that a guest wrote, None when it is none: neither other scripts' digits nor thousands of them."""
    return int(word) if word.isascii() and word.isdigit() and len(word) <= _DIGITS else None


def _counts(words: Sequence[str]) -> list[int]:
    """As `_count`, of all words; empty when one is no number."""
    found = [_count(word) for word in words]
    return [value for value in found if value is not None] if None not in found else []


async def stat_path(agent: Agent, path: str) -> dict[str, Any]:
    """As `Files.stat_path`. Raises NotFound."""
    answer = await _collect(agent, "stat", "/" + path.lstrip("/"))
    head, _, target = answer.partition(b"\0")
    mode, size, seconds, _, _, _ = _numbers(head.decode(errors="replace"), 6)
    try:
        stamp = datetime.fromtimestamp(seconds, tz=UTC)
    except (ValueError, OverflowError, OSError):
        stamp = datetime.fromtimestamp(0, tz=UTC)
    return {
        "name": os.path.basename(path.rstrip("/")) or "/",  # noqa: PTH119
        "size": size,
        "mode": go_mode(mode & 0xFFFF),
        "mtime": stamp.isoformat().replace("+00:00", "Z"),
        "linkTarget": target.decode(errors="replace"),
    }


async def warm(agent: Agent, path: str, program: str) -> None:
    """Read into memory what `program`, found by the variable PATH's value `path`, and a shell need to start."""
    await _collect(agent, "warm", path, program, "sh")


async def rehearse(agent: Agent, capabilities: tuple[str, ...]) -> None:
    """Start a program that does nothing, as one of a container is started."""
    process = Process(args=("rehearse", "/bin/sh", "/usr/bin/sh", "/nowhere/at/all"), capabilities=capabilities)
    channel = await agent.run(specification(process, builtin=True))
    channel.detach()
    await channel.ended


async def pack(agent: Agent, path: str, *, whole: bool = False, own: bool = False) -> AsyncIterator[bytes]:
    """As `Files.get_archive`. Raises NotFound before the first piece."""
    channel = await _start(agent, "pack", "/" + path.lstrip("/"), *["whole"] * whole, *["own"] * own)
    complaint = b""
    try:
        async for which, data in channel.output():
            if which == 1:
                yield data
            else:
                complaint = (complaint + data)[:1000]
    finally:
        channel.detach()
    await _finish(channel, complaint, path)


async def unpack(agent: Agent, path: str, data: AsyncIterator[bytes], *, keep: bool = False, owner: str = "") -> None:
    """As `Files.put_archive`. Raises NotFound, InvalidArgument."""
    words = ["keep"] * keep + ["owner", owner] * bool(owner)
    channel = await _start(agent, "unpack", "/" + path.lstrip("/"), *words, stdin=True)
    try:
        # A guest that refuses ends before it has read everything.
        with contextlib.suppress(NotFound):
            async for piece in data:
                await channel.write(piece)
            channel.close_stdin()
        complaint = b""
        async for _, text in channel.output():
            complaint = (complaint + text)[:1000]
    finally:
        channel.detach()
    await _finish(channel, complaint, path)


_CHANGES = {b"C": 0, b"A": 1, b"D": 2}
_OURS = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Places that every start makes to mount on: no change of the user's."""


async def changes(agent: Agent) -> list[tuple[int, str]]:
    """As `Files.changes`."""
    found = []
    for entry in (await _collect(agent, "changes", limit=_CHANGES_LIMIT, count=_CHANGES_COUNT)).split(b"\0"):
        kind, path = _CHANGES.get(entry[:1]), entry[1:].decode(errors="surrogateescape")
        if kind is not None and not (kind == 1 and path in _OURS):
            found.append((kind, path))
    paths = [path for _, path in found]
    idle = (0, "/etc") in found and not any(path.startswith("/etc/") for path in paths)
    return sorted((one for one in found if not (idle and one == (0, "/etc"))), key=lambda one: one[1])


# -- processes -------------------------------------------------------------------------------------

_TITLES = {
    "-ef": ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"),
    "aux": ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"),
}
_HEADINGS = {"ARGS": "COMMAND", "COMM": "COMMAND"}
_HERTZ, _PAGE = 100, 4
"""The guest kernel's clock ticks a second and kilobytes a page (x86-64, arm64)."""


def _row(uid: str, stat: str, command: str, uptime: float, now: float) -> dict[str, str]:
    """A process by ps's column names, from /proc/PID/stat (proc(5))."""
    head, _, rest = stat.rpartition(")")
    fields = rest.split()
    if len(fields) < 22:
        raise GuestError("the guest agent answered with nonsense")
    ticks = _numbers(f"{fields[11]} {fields[12]} {fields[19]} {fields[20]} {fields[21]} {fields[4]}", 6)
    seconds = (ticks[0] + ticks[1]) // _HERTZ
    age = max(uptime - ticks[2] / _HERTZ, 0.01)
    started = datetime.fromtimestamp(min(max(now - age, 0), 1 << 36), tz=UTC).strftime("%H:%M")
    share = min(int(100 * seconds / age), 99)
    name = head.partition("(")[2]
    user = {"UID": uid, "USER": uid, "RUSER": uid}
    times = {
        "TIME": f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
        "STIME": started,
        "START": started,
    }
    line = command or f"[{name}]"
    return {
        **user,
        **times,
        "PID": head.split(" ", 1)[0],
        "PPID": fields[1],
        "STAT": fields[0],
        "S": fields[0],
        "C": str(share),
        "%CPU": f"{share}.0",
        "%MEM": "0.0",
        "VSZ": str(ticks[3] // 1024),
        "RSS": str(ticks[4] * _PAGE),
        "TTY": f"pts/{ticks[5] & 0xFF}" if ticks[5] else "?",
        "CMD": line,
        "COMMAND": line,
        "ARGS": line,
        "COMM": name,
    }


def _columns(arguments: Sequence[str]) -> tuple[str, ...]:
    words = list(arguments) or ["-ef"]
    if len(words) == 1 and words[0] in _TITLES:
        return _TITLES[words[0]]
    listed = [word for word in words if word not in ("-e", "-A", "-o", "-eo")]
    if any(word in ("-o", "-eo") for word in words) and listed:
        return tuple(name.strip().upper() for word in listed for name in word.split(",") if name.strip())
    raise InvalidArgument(f"ps {' '.join(words)}: a VM knows -ef, aux and -o COLUMNS")


async def top(agent: Agent, arguments: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """As `Listing.top`, for the forms of ps that are known."""
    titles = _columns(arguments)
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    rows = []
    for row in await _processes(agent):
        if unknown := [title for title in titles if title not in row]:
            raise InvalidArgument(f"error: unknown user-defined format specifier {unknown[0].lower()!r}")
        rows.append([row[title] for title in titles])
    return [_HEADINGS.get(title, title) for title in titles], rows


async def pids(agent: Agent) -> list[int]:
    """As `Listing.processes`."""
    return [_numbers(row["PID"], 1)[0] for row in await _processes(agent)]


async def _processes(agent: Agent) -> list[dict[str, str]]:
    answer = await _collect(agent, "processes", limit=_PROCESSES_LIMIT, count=_PROCESSES_COUNT)
    parts = answer.decode(errors="replace").split("\0")
    try:
        uptime = float(parts[0].split()[0])
    except (IndexError, ValueError) as error:
        raise GuestError("the guest agent answered with nonsense") from error
    if not math.isfinite(uptime):
        raise GuestError("the guest agent answered with nonsense")
    now = datetime.now(tz=UTC).timestamp()
    groups = zip(parts[1::3], parts[2::3], parts[3::3], strict=False)
    return [_row(uid, stat, command, uptime, now) for uid, stat, command in groups if ")" in stat]


# -- resource use ----------------------------------------------------------------------------------


def _table(text: str) -> dict[str, int]:
    """`/proc/meminfo` in bytes."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if numbers := _counts(value.split()[:1]):
            found[name] = numbers[0] * 1024
    return found


def _interfaces(text: str) -> dict[str, dict[str, int]]:
    names = ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped"), ("tx_bytes", "tx_packets", "tx_errors", "tx_dropped")
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = _counts(rest.split())
        if name.strip() != "lo" and len(values) >= 12:
            found[name.strip()] = dict(zip(names[0] + names[1], values[:4] + values[8:12], strict=True))
    return found


def _disks(text: str) -> tuple[int, int]:
    """Bytes read and written (Documentation/admin-guide/iostats.rst: sectors of 512 bytes)."""
    read = written = 0
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[2].startswith("vd") and (sectors := _counts([fields[5], fields[9]])):
            read, written = read + sectors[0] * 512, written + sectors[1] * 512
    return read, written


def _tasks(text: str) -> int:
    """How many tasks the container has, from its cgroup's `pids.current`, which counts the agent, too."""
    return max((_count(text.strip()) or 0) - 1, 0)


def parse_stats(answer: bytes, limit: int) -> Stats:
    """The guest's own counters; `limit` is its memory in bytes."""
    parts: dict[str, str] = {}
    for block in answer.decode(errors="replace").split("=== ")[1:]:
        path, _, text = block.partition("\n")
        parts[path] = text
    tick = 1_000_000_000 // _HERTZ
    user = system = 0
    cores = []
    for line in parts.get("/proc/stat", "").splitlines():
        fields = line.split()
        if fields and fields[0].startswith("cpu") and len(own := _counts(fields[1:8])) == 7:
            mine = own[0] + own[1], own[2] + own[5] + own[6]
            if fields[0] == "cpu":
                user, system = (min(ticks * tick, _LARGEST >> 2) for ticks in mine)
            else:
                cores.append(min(sum(mine) * tick, _LARGEST >> 2))
    memory = _table(parts.get("/proc/meminfo", ""))
    cache = memory.get("Cached", 0) + memory.get("Buffers", 0)
    used = max(memory.get("MemTotal", 0) - memory.get("MemFree", 0), 0)
    read, written = _disks(parts.get("/proc/diskstats", ""))
    return Stats(
        cpu_total=user + system,
        cpu_user=user,
        cpu_system=system,
        cpu_per_core=tuple(cores),
        memory=used,
        memory_max=used,
        memory_limit=limit,
        memory_stats={"cache": cache, "inactive_file": memory.get("Inactive(file)", 0), "total_inactive_file": cache},
        pids=_tasks(parts.get("pids.current", "")),
        block_read=read,
        block_write=written,
        interfaces=_interfaces(parts.get("/proc/net/dev", "")),
    )


async def stats(agent: Agent, limit: int) -> Stats:
    """As `Measuring.stats`."""
    return parse_stats(await agent.ask(Ask.STATS), limit)
