"""Log rotation: a log over its limit is moved aside and the monitor opens a new one."""

from __future__ import annotations

import asyncio
import gzip
import logging
import shutil
import time
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

INTERVAL = 0.25
"""Seconds between two looks at the sizes, where no log is about to be full: by what is written in them a log may exceed
its limit at first."""
SHORTEST = 0.02
"""Seconds between two looks at logs that are flooded."""


class Rotation:
    """Keeps the logs of running containers within their limits (`max-size`, `max-file`, `compress`)."""

    def __init__(self, settings: Settings, ledger: Ledger, backends: Backends, tasks: Tasks) -> None:
        self._settings, self._ledger, self._backends, self._tasks = settings, ledger, backends, tasks
        self.default = settings.log_max_size
        """Bytes of a log that has no limit of its own."""
        self._seen: dict[str, tuple[float, int]] = {}
        """When a container's log was looked at, and its size then."""

    def begin(self) -> None:
        """Look from now on."""
        self._tasks.spawn(self._watch(), "log rotation")

    async def _watch(self) -> None:
        pause = INTERVAL
        while True:
            await asyncio.sleep(pause)
            running = [container for container in self._ledger.all() if container.state.running]
            pause = min([INTERVAL, *[await self._look(container) for container in running]])
            present = {container.id for container in running}
            self._seen = {key: seen for key, seen in self._seen.items() if key in present}

    async def _look(self, container: Container) -> float:
        """Rotate its log where that is due; gives the seconds until it may be again."""
        log = bundles.Paths(self._settings, container.id).log
        limits = log_options.limits(container.host_config.log_config, self.default)
        try:
            size = log.stat().st_size
        except FileNotFoundError:
            # The monitor has not opened a new one yet, or there is none.
            return SHORTEST if self._seen.pop(container.id, None) else INTERVAL
        when, before = self._seen.get(container.id, (0.0, size))
        now = time.monotonic()
        rate = max(size - before, 0) / max(now - when, SHORTEST)
        try:
            if limits.compress and (first := _numbered(log, 1)).exists():
                # The log is there again: the monitor writes to the one that was moved aside no more.
                await blocking(_pack, first)
            runtime = self._backends.runtime(container.runtime)
            if not isinstance(runtime, Reopening):
                return INTERVAL
            if 0 <= limits.size < size:
                await blocking(_move_aside, log, limits.files)
                await runtime.reopen_log(container.id)
                size = 0
        except (BastideError, OSError) as error:
            if log.parent.exists():
                logger.warning("log of container %s: %s", container.name, error)
            return INTERVAL
        self._seen[container.id] = (now, size)
        return until_full(limits.size, size, rate)


def until_full(limit: int, size: int, rate: float) -> float:
    """Seconds that a log of `size` bytes which grows by `rate` a second can be left alone; `limit` below 0: always."""
    if limit < 0 or not rate:
        return INTERVAL
    return min(INTERVAL, max(SHORTEST, (limit - size) / rate))


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
