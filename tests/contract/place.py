"""A runtime with its snapshotter in private places, and the containers that a test makes with them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from tests.contract.busybox import diff_id, fill

from bastide import runtime as runtimes
from bastide import storage
from bastide.model.config import Settings
from bastide.model.container import HostConfig
from bastide.model.process import Bundle, Process
from bastide.runtime import Exit, Runtime, Stdio, Stream

CAPABILITIES = ("CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE", "CAP_SYS_RESOURCE")


class Place:
    """A runtime, its snapshotter, and the containers that a test makes with them."""

    def __init__(self, name: str, settings: Settings, architecture: str = "") -> None:
        self.settings, self.architecture, self.diff_id = settings, architecture, diff_id(architecture)
        self.runtime: Runtime = runtimes.load(name)(settings)
        self.overlay = storage.load("overlay")(settings)
        wanted = self.runtime.snapshotter
        self.snapshotter = self.overlay if wanted == "overlay" else storage.load(wanted)(settings, self.overlay)
        self._made: list[str] = []

    async def open(self) -> None:
        probe = await self.runtime.probe()
        assert probe.usable, probe.reason
        async with self.overlay.layer(self.diff_id) as folder:
            if folder is not None:
                fill(folder, self.architecture)

    async def close(self) -> None:
        for container in self._made:
            await self.runtime.delete(container)
            await self.snapshotter.remove(container)

    async def bundle(self, *args: str, host: HostConfig | None = None, **changes: Any) -> Bundle:
        """A bundle whose process is `args`; fields of Process and of Bundle may be given."""
        container = os.urandom(32).hex()
        self._made.append(container)
        of_process = {key: changes.pop(key) for key in list(changes) if key in Process.__struct_fields__}
        process = Process(**{"args": args, "env": ("PATH=/bin",), "capabilities": CAPABILITIES, **of_process})
        root = await self.snapshotter.prepare(container, [self.diff_id])
        made = Bundle(
            id=container,
            name="test",
            directory=self.settings.run_root / "containers" / container,
            root=root,
            process=process,
            architecture=self.architecture,
            hostname="testhost",
            host_config=host or HostConfig(),
            log_path=self.settings.data_root / f"{container}.log",
            cgroup_path=f"/{self.settings.cgroup_parent}/{container}",
        )
        return msgspec.structs.replace(made, **changes)

    async def start(self, *args: str, **changes: Any) -> tuple[str, Stdio]:
        """Create, attach, start."""
        bundle = await self.bundle(*args, **changes)
        await self.runtime.create(bundle)
        stdio = await self.runtime.attach(bundle.id)
        await self.runtime.start(bundle.id)
        return bundle.id, stdio

    async def run(self, *args: str, **changes: Any) -> tuple[Exit, str, str]:
        """Run to the end; gives the exit, stdout and stderr."""
        container, stdio = await self.start(*args, **changes)
        out, err = await read(stdio)
        ended = await self.runtime.wait(container)
        await stdio.close()
        await self.runtime.delete(container)
        return ended, out, err

    async def exec(self, container: str, *args: str, stdin: bytes = b"", **changes: Any) -> tuple[Exit, str, str]:
        """Run one more process to its end."""
        process = Process(
            **{"args": args, "env": ("PATH=/bin",), "capabilities": CAPABILITIES, "stdin": bool(stdin), **changes}
        )
        name = os.urandom(8).hex()
        stdio = await self.runtime.exec(container, name, process)
        feeding = asyncio.create_task(feed(stdio, stdin)) if stdin else None
        out, err = await read(stdio)
        if feeding:
            await feeding
        ended = await self.runtime.wait(container, name)
        await stdio.close()
        return ended, out, err


async def feed(stdio: Stdio, data: bytes) -> None:
    """Write and end the input."""
    await stdio.write(data)
    await stdio.close_stdin()


async def read(stdio: Stdio) -> tuple[str, str]:
    """All output, stdout and stderr apart."""
    pieces: dict[Stream, bytes] = {Stream.STDOUT: b"", Stream.STDERR: b""}
    async for stream, data in stdio.output():
        pieces[stream] += data
    return pieces[Stream.STDOUT].decode(), pieces[Stream.STDERR].decode()


async def line(output: AsyncIterator[tuple[Stream, bytes]]) -> bytes:
    """The first line; a terminal may hand it over in pieces."""
    data = b""
    while not data.endswith(b"\n"):
        data += (await anext(output))[1]
    return data
