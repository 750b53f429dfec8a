"""The engine, wired: one object over one data root, made by the daemon."""

from __future__ import annotations

import json
import logging
import platform

from bastide import storage
from bastide.engine.backends import Backends
from bastide.engine.build.builder import Builder
from bastide.engine.commit import Committer
from bastide.engine.containers import Containers
from bastide.engine.create import Creator
from bastide.engine.events import Events
from bastide.engine.execs import Execs
from bastide.engine.files import FileAccess
from bastide.engine.images import Images
from bastide.engine.ledger import Ledger
from bastide.engine.lifecycle import Lifecycle
from bastide.engine.manifest_lists import ManifestLists
from bastide.engine.networks import Networks
from bastide.engine.reach import Reach
from bastide.engine.recovery import Recovery
from bastide.engine.rotation import Rotation
from bastide.engine.snapshots import Snapshots
from bastide.engine.state import Store
from bastide.engine.system import System
from bastide.engine.tasks import Tasks
from bastide.engine.volumes import Volumes
from bastide.engine.warm import Warmth
from bastide.model.config import RELOADABLE, Settings
from bastide.model.errors import Unsupported

log = logging.getLogger("bastide.engine")


class Engine:
    """One engine over one data root. `open` before use, `close` after; containers go on without it.

    Raises, from the constructor, Conflict (another daemon has the data root) and Unavailable (a
    corrupt state file).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.data_root)
        self.events = Events()
        self.tasks = Tasks()
        self.backends = Backends(settings)
        self.ledger = Ledger(self.store, self.events)
        self.images = Images(
            settings,
            self.store,
            self.events,
            {name: self.backends.snapshotter(name) for name in storage.snapshotters()},
            self._images_in_use,
            self._running,
        )
        self.manifest_lists = ManifestLists(self.images, self.store)
        self.networks = Networks(settings, self.store, self.events, self.ledger, self.backends)
        self.volumes = Volumes(settings, self.store, self.events, self._volumes_in_use)
        self.lifecycle = Lifecycle(settings, self.ledger, self.backends, self.networks, self.volumes, self.tasks)
        creator = Creator(settings, self.ledger, self.backends, self.images, self.networks, self.volumes)
        reach = Reach(settings, self.ledger, self.backends, self.volumes)
        files = FileAccess(self.backends, reach)
        self.containers = Containers(
            settings, self.ledger, self.backends, self.networks, creator, self.lifecycle, files
        )
        self.builder = Builder(settings, self.store, self.images, self.containers, creator, self.ledger, self.backends)
        self.committer = Committer(self.ledger, self.backends, self.containers, self.images, reach)
        self.execs = Execs(self.ledger, self.backends, self.tasks)
        self.system = System(settings, self)
        self.snapshots = Snapshots(settings, self.store, self.ledger, self.backends, self.lifecycle)
        self.recovery = Recovery(settings, self.ledger, self.backends, self.networks, self.lifecycle, self.snapshots)
        self.warmth = Warmth(self.backends, self.images)
        self.rotation = Rotation(settings, self.ledger, self.backends, self.tasks)

    def _images_in_use(self) -> dict[str, list[str]]:
        used: dict[str, list[str]] = {}
        for container in self.ledger.all():
            used.setdefault(container.image_id, []).append(container.id)
        return used

    def _running(self) -> set[str]:
        return {container.id for container in self.ledger.all() if container.state.running}

    def _volumes_in_use(self) -> dict[str, list[str]]:
        used: dict[str, list[str]] = {}
        for container in self.ledger.all():
            for point in container.mounts:
                if point.type == "volume":
                    used.setdefault(point.name, []).append(container.id)
        return used

    async def open(self) -> None:
        """Take up what runs, mend what a crash left, start what should run."""
        await self.images.open()
        await self.recovery.run()
        await self.builder.open()
        self.rotation.begin()

    async def reload(self, settings: Settings) -> list[str]:
        """Take over what of these settings can change while it runs; gives the names of what differs and cannot."""
        former = self.settings
        self.settings, fixed = former.reloaded(settings)
        self.rotation.default = self.settings.log_max_size
        if self.settings.pool_memory != former.pool_memory:
            try:
                await self.warmth.resize(self.settings.pool_memory)
            except Unsupported as error:
                log.warning("pool_memory: %s", error)
        values = {name: json.dumps(getattr(self.settings, name)) for name in RELOADABLE}
        self.events.publish("daemon", "reload", self.system.id, {"name": platform.node(), **values})
        return fixed

    async def close(self) -> None:
        """Stop following; containers and VMs go on."""
        await self.tasks.close()
        await self.images.close()
        await self.networks.close()
        self.store.close()


__all__ = ["Engine"]
