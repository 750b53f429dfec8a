"""After a start of the daemon: the records and the host are compared, and one of them is mended."""

from __future__ import annotations

import asyncio
import logging

from bastide import runtime, storage
from bastide.engine.backends import Backends
from bastide.engine.ledger import Ledger
from bastide.engine.lifecycle import Lifecycle, remove_files
from bastide.engine.networks import Networks
from bastide.engine.snapshots import Snapshots
from bastide.model.config import Settings
from bastide.model.container import Container
from bastide.model.errors import BastideError

log = logging.getLogger("bastide.engine")


class Recovery:
    """What runs is taken up, what ended unseen is ended, what has no record is removed."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        backends: Backends,
        networks: Networks,
        lifecycle: Lifecycle,
        snapshots: Snapshots,
    ) -> None:
        self._settings, self._ledger, self._backends = settings, ledger, backends
        self._networks, self._lifecycle, self._snapshots = networks, lifecycle, snapshots

    async def run(self) -> None:
        """Leave records and host in agreement. One broken container does not keep the others down."""
        await self._remove_strangers()
        containers = self._ledger.all()
        alive = {
            container.id for container, running in zip(containers, await self._each(containers), strict=True) if running
        }
        await self._networks.restore(alive)
        await self._snapshots.recover()
        for container in containers:
            try:
                await self._lifecycle.resume(container)
            except BastideError as error:
                log.error("container %s cannot be taken up: %s", container.name, error.message)
        await self._remove_strange_snapshots()

    async def _each(self, containers: list[Container]) -> list[bool]:
        async def one(container: Container) -> bool:
            try:
                return await self._lifecycle.take_up(container)
            except BastideError as error:
                log.error("state of container %s: %s", container.name, error.message)
                return False

        return list(await asyncio.gather(*map(one, containers)))

    async def _remove_strangers(self) -> None:
        """Processes and files of containers whose record is gone: a creation or removal that was cut off."""
        known = {container.id for container in self._ledger.all()}
        for root in (self._settings.run_root, self._settings.data_root):
            folder = root / "containers"
            if not folder.is_dir():
                continue
            for entry in sorted(folder.iterdir()):
                if entry.name not in known:
                    await self._remove_stranger(entry.name)

    async def _remove_stranger(self, container_id: str) -> None:
        for name in runtime.runtimes():
            try:
                if (await self._backends.runtime(name).probe()).usable:
                    await self._backends.runtime(name).delete(container_id)
            except BastideError as error:
                log.warning("remains of container %s: %s", container_id, error.message)
        await remove_files(self._settings, container_id)

    async def _remove_strange_snapshots(self) -> None:
        known = {container.id for container in self._ledger.all()} | self._snapshots.keys()
        for name in storage.snapshotters():
            snapshotter = self._backends.snapshotter(name)
            async for info in snapshotter.walk():
                if not info.committed and info.key not in known:
                    await snapshotter.remove(info.key)
