"""A server on a unix socket over an engine that is all in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
import pytest

from bastide.api.docker import absent, archive, containers, stats, streams, system, volumes
from bastide.api.docker import exec as execs
from bastide.api.server import Server
from bastide.engine.events import Events
from bastide.engine.execs import Exec, ExecConfig
from bastide.engine.ledger import Waited
from bastide.engine.logs import LogQuery
from bastide.engine.state import Store
from bastide.engine.volumes import Volumes
from bastide.model.config import Settings
from bastide.model.container import Config, Container, HostConfig, Isolation, State, Status
from bastide.model.errors import Conflict, NotFound, NotModified
from bastide.model.network import EndpointSettings
from bastide.model.process import Process, Stats, TerminalSize
from bastide.runtime import Stdio, Stream
from bastide.storage import Usage

NOUNS = (absent, archive, containers, execs, stats, streams, system, volumes)
ID = "ab" * 32
IMAGE_ID = "sha256:" + "cd" * 32


def make_container(number: int = 0, **fields: Any) -> Container:
    """A running container of `busybox`."""
    values: dict[str, Any] = {
        "id": f"{number:02x}" * 32 if number else ID,
        "name": f"c{number}" if number else "web",
        "created": f"2026-01-02T03:04:{number:02d}.000000000Z",
        "config": Config(image="busybox", cmd=["sleep", "1"], labels={"a": "b"}, env=["X=1"]),
        "host_config": HostConfig(network_mode="default"),
        "image_id": IMAGE_ID,
        "image_ref": "busybox",
        "layers": ["sha256:1"],
        "isolation": Isolation.CONTAINER,
        "runtime": "crun",
        "snapshotter": "overlay",
        "platform": "linux",
        "path": "sleep",
        "args": ["1"],
        "state": State(status=Status.RUNNING, pid=42, started_at="2026-01-02T03:04:05.000000000Z"),
        "networks": {"bridge": EndpointSettings(network_id="n" * 64, ip_address="10.88.0.2")},
        "log_path": "/data/containers/x/container.log",
    }
    return Container(**(values | fields))


class FakeStdio(Stdio):
    """Output is what the test puts into `pieces` (None ends it); input is kept, stdin echoes when asked."""

    def __init__(self, *, echo: bool = False) -> None:
        self.pieces: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue()
        self.received = bytearray()
        self.stdin_closed = asyncio.Event()
        self.closed = asyncio.Event()
        self.echo = echo
        self.slow = 0.0

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while (piece := await self.pieces.get()) is not None:
            yield piece

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(self.slow)
        self.received += data
        if self.echo:
            self.pieces.put_nowait((Stream.STDOUT, data))

    async def close_stdin(self) -> None:
        self.stdin_closed.set()
        if self.echo:
            self.pieces.put_nowait(None)

    async def close(self) -> None:
        self.closed.set()


class FakeContainers:
    """Containers in a dict; every call is noted in `calls`."""

    def __init__(self) -> None:
        self.all: dict[str, Container] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.stdio = FakeStdio()
        self.waiters: list[asyncio.Future[Waited]] = []
        self.fail: Exception | None = None
        self.pieces: list[tuple[Stream, bytes]] = []
        self.query: LogQuery | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    def add(self, container: Container) -> Container:
        self.all[container.id] = container
        return container

    def get(self, reference: str) -> Container:
        for container in self.all.values():
            if reference in (container.id, container.name) or container.id.startswith(reference):
                return container
        raise NotFound(f"No such container: {reference}")

    def list(self) -> list[Container]:
        return sorted(self.all.values(), key=lambda container: container.created, reverse=True)

    async def create(self, name: str, config: Config, host: HostConfig, endpoints: Any, platform: str) -> Any:
        if self.fail:
            raise self.fail
        if any(container.name == name for container in self.all.values()):
            raise Conflict(f'Conflict. The container name "/{name}" is already in use')
        made = make_container(len(self.all) + 1, name=name or "made", config=config, host_config=host)
        self.calls.append(("create", name, config, host, endpoints, platform))
        return self.add(made), ["careful"]

    def __getattr__(self, verb: str) -> Any:
        async def call(reference: str, *args: Any, **kwargs: Any) -> Any:
            container = self.get(reference)
            await self.hold.wait()
            if self.fail:
                raise self.fail
            if verb == "start" and container.state.running:
                raise NotModified("already running")
            self.calls.append((verb, reference, *args, *sorted(kwargs.items())))
            return []

        return call

    def waiter(self, reference: str, condition: str) -> asyncio.Future[Waited]:
        self.get(reference)
        future: asyncio.Future[Waited] = asyncio.get_running_loop().create_future()
        self.waiters.append(future)
        return future

    async def attach(self, reference: str) -> Stdio:
        self.get(reference)
        return self.stdio

    def detached(self, reference: str) -> None:
        self.calls.append(("detached", reference))

    async def logs(self, reference: str, query: LogQuery) -> AsyncIterator[tuple[Stream, bytes]]:
        self.query = query
        for piece in self.pieces:
            yield piece

    async def stats(self, reference: str) -> Stats:
        return Stats(cpu_total=5, memory=7, memory_limit=9, pids=2, interfaces={"eth0": {"rx_bytes": 3}})

    async def size(self, reference: str) -> Usage:
        return Usage(size=11)

    async def top(self, reference: str, arguments: list[str]) -> Any:
        self.calls.append(("top", arguments))
        return ["PID", "CMD"], [["1", "sleep 1"]]

    async def changes(self, reference: str) -> Any:
        return [(1, "/new"), (2, "/old")]

    async def stat_path(self, reference: str, path: str) -> Any:
        self.get(reference)
        return {"name": "f", "size": 3, "mode": 420, "mtime": "2026-01-02T03:04:05Z", "linkTarget": ""}

    async def get_archive(self, reference: str, path: str) -> AsyncIterator[bytes]:
        for piece in (b"tar", b"ball"):
            yield piece

    async def export(self, reference: str) -> AsyncIterator[bytes]:
        if self.fail:
            raise self.fail
        yield b"whole"

    async def put_archive(self, reference: str, path: str, data: AsyncIterator[bytes], **options: Any) -> None:
        self.calls.append(("put", path, b"".join([piece async for piece in data]), options))

    async def prune(self, chosen: list[Container]) -> Any:
        return [container.id for container in chosen], 5


class FakeExecs:
    """One exec at a time."""

    def __init__(self, containers: FakeContainers) -> None:
        self.containers = containers
        self.made: dict[str, Exec] = {}
        self.stdio = FakeStdio(echo=True)
        self.fail: Exception | None = None
        self.size: TerminalSize | None = None

    def create(self, reference: str, config: ExecConfig) -> str:
        container = self.containers.get(reference)
        self.made["e1"] = Exec(id="e1", container=container.id, config=config, process=Process(args=("x",)))
        return "e1"

    def get(self, exec_id: str) -> Exec:
        if exec_id not in self.made:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self.made[exec_id]

    async def start(self, exec_id: str, *, detach: bool, size: TerminalSize | None) -> Stdio | None:
        made = self.get(exec_id)
        self.size = size
        if self.fail:
            made.exit_code = 127
            raise self.fail
        made.running = True
        return None if detach else self.stdio

    def of(self, container_id: str) -> list[str]:
        return []

    async def resize(self, exec_id: str, size: TerminalSize) -> None:
        self.size = size


class FakeImages:
    """Knows busybox."""

    def list(self) -> list[Any]:
        return []

    def layers_size(self) -> int:
        return 0

    def get(self, reference: str) -> Any:
        if reference not in ("busybox", IMAGE_ID):
            raise NotFound(f"No such image: {reference}")
        return SimpleNamespace(id=IMAGE_ID, diff_ids=["sha256:1"], size=100, insecure_options=[])

    def find(self, reference: str) -> Any:
        return self.get(IMAGE_ID) if reference == IMAGE_ID else None


class FakeEngine:
    """The parts of an engine that the API's own routes need."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.events = Events()
        self.store = Store(settings.data_root)
        self.containers = FakeContainers()
        self.execs = FakeExecs(self.containers)
        self.images = FakeImages()
        self.volumes = Volumes(settings, self.store, self.events, lambda: {"used": [ID]})
        self.backends = SimpleNamespace(snapshotter=lambda name: None)
        self.system = SimpleNamespace(info=self._info, version=self._info)

    async def _info(self) -> dict[str, Any]:
        return {"Name": "fake"}


class Api:
    """A client of the served fake engine."""

    def __init__(self, engine: FakeEngine, path: Path, session: aiohttp.ClientSession, server: Server) -> None:
        self.engine, self.path, self.session, self.server = engine, path, session, server

    async def call(self, method: str, path: str, json: Any = None, **options: Any) -> tuple[int, Any]:
        """Status and decoded JSON (or the raw body)."""
        async with self.session.request(method, f"http://x{path}", json=json, **options) as answer:
            data = await answer.read()
            kind = answer.headers.get("Content-Type", "")
            return answer.status, msgspec.json.decode(data) if data and kind == "application/json" else data

    async def raw(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection on which `request` was sent as it is."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(request)
        await writer.drain()
        return reader, writer


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The API of a fake engine with one running container `web`."""
    settings = Settings(data_root=tmp_path / "data", run_root=tmp_path)
    engine = FakeEngine(settings)
    engine.containers.add(make_container())
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(settings.socket))
    listening.listen(16)
    routes = [route for noun in NOUNS for route in noun.routes()]
    server = Server(engine, settings, routes)  # type: ignore[arg-type]
    await server.start([listening])
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(settings.socket))) as session:
        yield Api(engine, settings.socket, session, server)
    await server.stop(0.5)
    engine.store.close()
