"""Log rotation: a log over its limit is moved aside and the monitor opens a new one."""

from __future__ import annotations

import asyncio
import gzip
import logging
import shutil
from contextlib import suppress
from pathlib import Path

from bastide.engine import bundle as bundles
from bastide.engine import log_options
from bastide.engine.backends import Backends
from bastide.engine.ledger import Ledger
from bastide.engine.logs import PACKED
from bastide.engine.tasks import Tasks
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.container import Container
from bastide.model.errors import BastideError
from bastide.runtime import Reopening

logger = logging.getLogger("bastide.engine")

INTERVAL = 1.0
"""Seconds between two looks at the sizes: a log may exceed its limit by what is written meanwhile."""


class Rotation:
    """Keeps the logs of running containers within their limits (`max-size`, `max-file`, `compress`)."""

    def __init__(self, settings: Settings, ledger: Ledger, backends: Backends, tasks: Tasks) -> None:
        self._settings, self._ledger, self._backends, self._tasks = settings, ledger, backends, tasks

    def begin(self) -> None:
        """Look from now on."""
        self._tasks.spawn(self._watch(), "log rotation")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            for container in self._ledger.all():
                if container.state.running:
                    await self._look(container)

    async def _look(self, container: Container) -> None:
        log = bundles.Paths(self._settings, container.id).log
        limits = log_options.limits(container.host_config.log_config, self._settings.log_max_size)
        try:
            size = log.stat().st_size
        except FileNotFoundError:
            return
        try:
            if limits.compress and (first := _numbered(log, 1)).exists():
                # The log is there again: the monitor writes to the one that was moved aside no more.
                await blocking(_pack, first)
            runtime = self._backends.runtime(container.runtime)
            if 0 <= limits.size < size and isinstance(runtime, Reopening):
                await blocking(_move_aside, log, limits.files)
                await runtime.reopen_log(container.id)
        except (BastideError, OSError) as error:
            if log.parent.exists():
                logger.warning("log of container %s: %s", container.name, error)


def _numbered(log: Path, number: int, packed: str = "") -> Path:
    return log.with_name(f"{log.name}.{number}{packed}")


def _move_aside(log: Path, keep: int) -> None:
    """Give every file of a log the next number; what would be more than `keep` files is removed."""
    for packed in ("", PACKED):
        _numbered(log, keep - 1, packed).unlink(missing_ok=True)
    for number in range(keep - 1, 1, -1):
        for packed in ("", PACKED):
            with suppress(FileNotFoundError):
                _numbered(log, number - 1, packed).rename(_numbered(log, number, packed))
    if keep == 1:
        log.unlink()
    else:
        log.rename(_numbered(log, 1))


def _pack(path: Path) -> None:
    """Put a packed file in the place of a file; readers see the one or the other, and what was cut off is done anew."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with path.open("rb") as source, gzip.open(unfinished, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.rename(path.with_name(path.name + PACKED))
    path.unlink()
