"""Log rotation: a log over its limit is moved aside and the monitor opens a new one."""

from __future__ import annotations

import asyncio

from bastide.engine import bundle as bundles
from bastide.engine.backends import Backends
from bastide.engine.ledger import Ledger
from bastide.engine.tasks import Tasks
from bastide.model.config import Settings
from bastide.model.container import Container
from bastide.model.errors import BastideError, InvalidArgument
from bastide.runtime import Reopening

INTERVAL = 1.0
"""Seconds between two looks at the sizes: a log may exceed its limit by what is written meanwhile."""
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(text: str) -> int:
    """`10m` as bytes; -1 for no limit. Raises InvalidArgument."""
    word = text.strip().lower()
    if word == "-1":
        return -1
    number = word.rstrip("bkmg")
    unit = word[len(number) :].removesuffix("b") if len(word) > len(number) + 1 else word[len(number) :]
    if not number.replace(".", "", 1).isdigit() or unit not in _UNITS:
        raise InvalidArgument(f"invalid size: {text!r}")
    return int(float(number) * _UNITS[unit])


class Rotation:
    """Keeps the logs of running containers within their limits (`max-size`, `max-file`)."""

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
        options = container.host_config.log_config.config or {}
        limit = parse_size(options["max-size"]) if "max-size" in options else self._settings.log_max_size
        try:
            if limit < 0 or log.stat().st_size <= limit:
                return
        except FileNotFoundError:
            return
        runtime = self._backends.runtime(container.runtime)
        if not isinstance(runtime, Reopening):
            return
        keep = max(1, int(options.get("max-file", "2")))
        for number in range(keep - 1, 0, -1):
            older = log.with_name(f"{log.name}.{number}")
            newer = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)
        if keep == 1:
            log.unlink(missing_ok=True)
        try:
            await runtime.reopen_log(container.id)
        except BastideError:
            return
