"""`bastide stats`."""

from __future__ import annotations

import os

from bastide.cli.grammar import SWITCH, Command, Options
from bastide.cli.show import text, units
from bastide.cli.show.table import Listing
from bastide.cli.verbs.formats import FORMAT, NO_TRUNC
from bastide.client.codec import decode
from bastide.model.errors import BastideError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from bastide.client import Client, Connection, Object

_CLEAR = "\x1b[2J\x1b[H"
_MISSING = "--"
_CHUNK_END = 2  # bytes after a chunk's data: not yet the next sample

TITLES = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_SHOWN = tuple(TITLES)[1:]


def stats(client: Client, options: Options) -> int:
    """Show what containers use, once or every second."""
    names, every = options.arguments, options.on("all")
    if options.on("no-stream"):
        samples = []
        for name in names or _names(client, every=every):
            try:
                samples.append((name, decode(client.containers.stats(name, stream=False).read())))
            except NotFound:
                if names:
                    raise
        _print(options, samples)
        return 0
    _Board(client, options).run()
    return 0


def _names(client: Client, *, every: bool) -> list[str]:
    return [str(item["Id"]) for item in client.containers.list(every)]


def _print(options: Options, samples: list[tuple[str, Object]]) -> None:
    whole = options.on("no-trunc")
    rows = [fields(name, sample, whole=whole) for name, sample in samples]
    Listing("formatter.statsContext", TITLES, _SHOWN).print(options.text("format"), rows)


class _Board:
    """Follows many containers at once and draws their latest samples."""

    def __init__(self, client: Client, options: Options) -> None:
        self._client, self._options = client, options
        self._sources: dict[int, tuple[str, Connection, Iterator[bytes]]] = {}
        self._latest: dict[str, Object] = {}
        self._order: list[str] = []

    def run(self) -> None:
        """Draw until interrupted, or until none of the named containers runs any more."""
        from select import POLLIN, poll
        from time import monotonic

        named = self._options.arguments
        waiter = poll()
        drawn = 0.0
        for name in named or _names(self._client, every=self._options.on("all")):
            waiter.register(self._follow(name), POLLIN)
        listener = None
        if not named:
            response = self._client.open("GET", "/events", {"filters": {"type": ["container"]}})
            listener = (response.connection, response.lines())
            waiter.register(response.connection.socket.fileno(), POLLIN)
        while self._sources or listener:
            ready = [d for d, (_, connection, _) in self._sources.items() if connection.held > _CHUNK_END]
            if listener and listener[0].held > _CHUNK_END:
                ready.append(listener[0].socket.fileno())
            ready = ready or [descriptor for descriptor, _ in waiter.poll(1000)]
            for descriptor in ready:
                if descriptor in self._sources:
                    self._sample(descriptor, waiter.unregister)
                elif listener:
                    started = self._event(decode(next(listener[1])))
                    if started is not None:
                        waiter.register(started, POLLIN)
            if monotonic() - drawn >= 0.5:
                drawn = monotonic()
                self._draw()

    def _follow(self, name: str) -> int:
        response = self._client.containers.stats(name)
        descriptor = response.connection.socket.fileno()
        self._sources[descriptor] = (name, response.connection, response.lines())
        if name not in self._order:
            self._order.append(name)
        return descriptor

    def _sample(self, descriptor: int, unregister: Callable[[int], None]) -> None:
        name, connection, lines = self._sources[descriptor]
        try:
            self._latest[name] = decode(next(lines))
        except (StopIteration, OSError, BastideError):
            unregister(descriptor)
            connection.close()
            del self._sources[descriptor]
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._latest.pop(name, None)
        if not self._options.on("all") and name in self._order:
            self._order.remove(name)

    def _event(self, event: Object) -> int | None:
        identity = str((event.get("Actor") or {}).get("ID", ""))
        if event.get("Action") == "start" and identity not in {name for name, _, _ in self._sources.values()}:
            try:
                return self._follow(identity)
            except BastideError:
                return None
        if event.get("Action") == "die":
            self._drop(identity)
        return None

    def _draw(self) -> None:
        if os.isatty(1):
            text.write(1, _CLEAR.encode())
        _print(self._options, [(name, self._latest.get(name, {})) for name in self._order])


def fields(name: str, sample: Object, *, whole: bool) -> dict[str, Callable[..., Any]]:
    """The fields of a row; dashes where there is no sample yet."""
    memory, limit = usage(sample), (sample.get("memory_stats") or {}).get("limit") or 0
    identity = str(sample.get("id") or name)
    networks = (sample.get("networks") or {}).values()
    received, sent = (sum(net.get(key, 0) for net in networks) for key in ("rx_bytes", "tx_bytes"))
    read, written = blocks(sample)
    pids = (sample.get("pids_stats") or {}).get("current") or 0
    known = bool(sample.get("read"))
    return {
        "Container": lambda: name,
        "ID": lambda: identity if whole else identity[:12],
        "Name": lambda: str(sample.get("name") or _MISSING).removeprefix("/"),
        "CPUPerc": lambda: f"{cpu_share(sample):.2f}%" if known else _MISSING,
        "MemUsage": lambda: f"{units.binary_size(memory)} / {units.binary_size(limit)}" if known else "-- / --",
        "MemPerc": lambda: f"{memory / limit * 100 if limit else 0:.2f}%" if known else _MISSING,
        "NetIO": lambda: f"{units.human_size(received, 3)} / {units.human_size(sent, 3)}" if known else _MISSING,
        "BlockIO": lambda: f"{units.human_size(read, 3)} / {units.human_size(written, 3)}" if known else _MISSING,
        "PIDs": lambda: str(pids) if known else _MISSING,
    }


def cpu_share(sample: Object) -> float:
    """Percent of one CPU since the sample before; docker's own formula."""
    now, before = sample.get("cpu_stats") or {}, sample.get("precpu_stats") or {}
    used = _total(now) - _total(before)
    passed = (now.get("system_cpu_usage") or 0) - (before.get("system_cpu_usage") or 0)
    cpus = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or [1])
    return used / passed * cpus * 100 if used > 0 and passed > 0 else 0.0


def _total(cpu: Object) -> int:
    return (cpu.get("cpu_usage") or {}).get("total_usage") or 0


def usage(sample: Object) -> int:
    """Memory in use without what the page cache could give back."""
    memory = sample.get("memory_stats") or {}
    used, details = memory.get("usage") or 0, memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return int(used - cache if cache < used else used)


def blocks(sample: Object) -> tuple[int, int]:
    """Bytes read from and written to block devices."""
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read, written = (sum(e["value"] for e in entries if e["op"].lower() == op) for op in ("read", "write"))
    return read, written


COMMAND = Command(
    stats,
    "[OPTIONS] [CONTAINER...]",
    (
        ("all", "a", SWITCH, "Show all containers (default shows just running)"),
        FORMAT,
        ("no-stream", "", SWITCH, "Show one sample and end"),
        NO_TRUNC,
    ),
)
