"""The background work of the engine: every task has an owner, an end and somebody who hears its error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("bastide.engine")


class Tasks:
    """Tasks that live as long as the engine. A failed one is logged, never lost, and ends no other."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._named: dict[str, asyncio.Task[Any]] = {}

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start `work`. A running task of the same name is left alone and `work` runs beside it."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        self._named[name] = task
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if self._named.get(task.get_name()) is task:
            del self._named[task.get_name()]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", task.get_name(), error, exc_info=error)

    def cancel(self, name: str) -> None:
        """Cancel the task of that name, if it runs."""
        if task := self._named.get(name):
            task.cancel()

    async def settle(self, prefix: str) -> None:
        """Wait for every task whose name begins with `prefix`."""
        while waiting := [task for task in self._running if task.get_name().startswith(prefix)]:
            await asyncio.wait(waiting)

    async def close(self) -> None:
        """Cancel everything and wait for the end of it."""
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running), timeout=10)
