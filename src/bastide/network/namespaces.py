"""A stock of network namespaces with nothing but loopback, for networks that have none prepared."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from bastide.host import netns
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.errors import BastideError
from bastide.network import prepared

log = logging.getLogger("bastide.network")

_STOCK = 2
_LATER_SECONDS = 0.3
"""How long background work waits: whatever is started or ended now needs the processors."""


class Namespaces:
    """Namespaces of one daemon, kept by files under its run root."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stock: list[Path] = []
        self._doomed: list[Path] = []
        self._later: asyncio.Task[None] | None = None
        self._wanted = min(_STOCK, settings.prepared_namespaces)

    async def open(self, used: Iterable[Path]) -> None:
        """Make the folder ready and let go of every namespace in it that is not `used`. Raises HostError."""
        await blocking(prepared.open_folder, self._settings)
        kept = {path.name for path in used}
        for path in prepared.folder(self._settings).iterdir():
            if path.name not in kept:
                await blocking(netns.unpin, path)

    async def take(self) -> Path:
        """A namespace that nobody else gets. Raises HostError."""
        self.tidy()
        if self._stock:
            return self._stock.pop(0)
        path = prepared.new_path(self._settings)
        await blocking(prepared.make, [path])
        return path

    def discard(self, path: Path) -> None:
        """Let go of a namespace, soon."""
        self._doomed.append(path)
        self.tidy()

    def tidy(self) -> None:
        """Fill the stock and let go of what is not used any more, in the background."""
        if self._later is None:
            self._later = asyncio.ensure_future(self._tidy())

    async def _tidy(self) -> None:
        await asyncio.sleep(_LATER_SECONDS)
        self._later = None
        doomed, self._doomed = self._doomed, []
        fresh = [prepared.new_path(self._settings) for _ in range(self._wanted - len(self._stock))]
        try:
            await blocking(_unpin_all, doomed)
            if fresh:
                await blocking(prepared.make, fresh)
                self._stock += fresh
        except BastideError as error:
            log.warning("network namespaces: %s", error.message)

    async def close(self) -> None:
        """Let go of what nobody took."""
        if self._later is not None:
            self._later.cancel()
        await blocking(_unpin_all, [*self._stock, *self._doomed])
        self._stock.clear()


def _unpin_all(paths: Iterable[Path]) -> None:
    for path in paths:
        netns.unpin(path)
