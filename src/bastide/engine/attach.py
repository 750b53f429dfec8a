"""Connections to a main process that may not run yet.

Docker's clients attach first and start then. Such a connection waits for the container to be made,
and the start waits until every one of them is connected: no output is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from bastide.engine.backends import Backends
from bastide.model.container import Container
from bastide.model.errors import BastideError
from bastide.runtime import Runtime, Stdio, Stream


class Awaited(Stdio):
    """A Stdio that becomes real when its container starts; its output ends at once if the start fails."""

    def __init__(self) -> None:
        self.real: asyncio.Future[Stdio] = asyncio.get_running_loop().create_future()

    async def _connected(self) -> Stdio:
        return await asyncio.shield(self.real)

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        try:
            connected = await self._connected()
        except BastideError:
            return
        async for piece in connected.output():
            yield piece

    async def write(self, data: bytes) -> None:
        await (await self._connected()).write(data)

    async def close_stdin(self) -> None:
        await (await self._connected()).close_stdin()

    async def close(self) -> None:
        if self.real.done() and not self.real.cancelled() and self.real.exception() is None:
            await self.real.result().close()
        else:
            self.real.cancel()


class Attachments:
    """Who waits for which container's start."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._waiting: dict[str, list[Awaited]] = {}

    async def attach(self, container: Container) -> Stdio:
        """Connect now when it runs, else at its next start."""
        if container.state.running:
            return await self._backends.runtime(container.runtime).attach(container.id)
        awaited = Awaited()
        self._waiting.setdefault(container.id, []).append(awaited)
        return awaited

    async def connect(self, container_id: str, runtime: Runtime) -> None:
        """Connect all who wait; the container is made and does not run yet."""
        for awaited in self._waiting.pop(container_id, []):
            if not awaited.real.done():
                awaited.real.set_result(await runtime.attach(container_id))

    def fail(self, container_id: str, error: BastideError) -> None:
        """Tell all who wait that there will be no start."""
        for awaited in self._waiting.pop(container_id, []):
            if not awaited.real.done():
                awaited.real.set_exception(error)
                awaited.real.exception()
