"""Resource use of a container, as the Docker Engine API 1.47 shows it (`ContainerStats`)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import web

from bastide.api.http import ENGINE, flag, reply, streaming, version
from bastide.api.json_stream import JsonStream
from bastide.engine.clock import now
from bastide.model.container import NEVER, Container
from bastide.model.process import Stats

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PERIOD = 1.0
"""Seconds between two samples, as Docker's."""


def host_cpu_time() -> int:
    """Time that all CPUs have spent, idle too, in ns: the first eight columns of /proc/stat (proc(5))."""
    with open("/proc/stat", "rb") as table:
        return sum(map(int, table.readline().split()[1:9])) * _TICK


def _cpu(stats: Stats, host: int) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "total_usage": stats.cpu_total,
        "usage_in_kernelmode": stats.cpu_system,
        "usage_in_usermode": stats.cpu_user,
    }
    if stats.cpu_per_core:
        usage["percpu_usage"] = stats.cpu_per_core
    return {
        "cpu_usage": usage,
        "system_cpu_usage": host,
        "online_cpus": len(stats.cpu_per_core) or os.cpu_count() or 1,
        "throttling_data": {
            "periods": stats.periods,
            "throttled_periods": stats.throttled_periods,
            "throttled_time": stats.throttled_time,
        },
    }


_NO_CPU = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_NO_BLKIO = dict.fromkeys(
    (
        "io_service_bytes_recursive",
        "io_serviced_recursive",
        "io_queue_recursive",
        "io_service_time_recursive",
        "io_wait_time_recursive",
        "io_merged_recursive",
        "io_time_recursive",
        "sectors_recursive",
    )
)


def _blkio(stats: Stats) -> dict[str, Any]:
    if not (stats.block_read or stats.block_write):
        return _NO_BLKIO
    entries = [
        {"major": 0, "minor": 0, "op": op, "value": value}
        for op, value in (("read", stats.block_read), ("write", stats.block_write))
    ]
    return {**_NO_BLKIO, "io_service_bytes_recursive": entries}


def _memory(stats: Stats) -> dict[str, Any]:
    shown: dict[str, Any] = {"usage": stats.memory, "stats": stats.memory_stats, "limit": stats.memory_limit}
    if stats.memory_max:
        shown["max_usage"] = stats.memory_max
    return shown


def _idle(container: Container) -> dict[str, Any]:
    """What is shown of a container that does not run."""
    return {
        "name": f"/{container.name}",
        "id": container.id,
        "read": NEVER,
        "preread": NEVER,
        "pids_stats": {},
        "blkio_stats": _NO_BLKIO,
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _NO_CPU,
        "precpu_stats": _NO_CPU,
        "memory_stats": {},
    }


def sample(container: Container, stats: Stats, host: int, before: dict[str, Any] | None, read: str) -> dict[str, Any]:
    """One sample; `before` is the one that was shown last, `host` all CPUs' time and `read` the time now."""
    shown: dict[str, Any] = {
        **_idle(container),
        "read": read,
        "preread": before["read"] if before else NEVER,
        "pids_stats": {"current": stats.pids, "limit": stats.pids_limit or (1 << 64) - 1},
        "blkio_stats": _blkio(stats),
        "cpu_stats": _cpu(stats, host),
        "precpu_stats": before["cpu_stats"] if before else _NO_CPU,
        "memory_stats": _memory(stats),
    }
    if stats.interfaces:
        shown["networks"] = stats.interfaces
    return shown


async def _take(request: web.Request, reference: str, before: dict[str, Any] | None) -> dict[str, Any]:
    containers = request.app[ENGINE].containers
    container = containers.get(reference)
    if not container.state.running:
        return _idle(container)
    return sample(container, await containers.stats(reference), host_cpu_time(), before, now())


@streaming
async def stats(request: web.Request) -> web.StreamResponse:
    """`GET /containers/{name}/stats`."""
    container = request.app[ENGINE].containers.get(request.match_info["name"])
    first = await _take(request, container.id, None)
    if not flag(request, "stream", default=True):
        once = flag(request, "one-shot") and version(request) >= (1, 41)
        if once or not container.state.running:
            return reply(first)
        await asyncio.sleep(_PERIOD)
        return reply(await _take(request, container.id, first))
    async with JsonStream(request) as stream:
        before: dict[str, Any] | None = None
        while True:
            before = await _take(request, container.id, before)
            await stream.send(before)
            await asyncio.sleep(_PERIOD)


def routes() -> list[web.RouteDef]:
    """What this module answers."""
    return [web.get("/containers/{name}/stats", stats, allow_head=False)]
