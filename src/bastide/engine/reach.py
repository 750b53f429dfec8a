"""Files that only a runtime reaches (a VM's disks): the same questions whether the container runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bastide.engine import bundle as bundles
from bastide.engine import mounts
from bastide.engine.backends import Backends
from bastide.engine.ledger import Ledger
from bastide.engine.volumes import Volumes
from bastide.model.config import Settings
from bastide.model.container import Container, HostConfig, Status
from bastide.model.errors import Conflict
from bastide.model.process import Bundle, Root
from bastide.runtime import Feature, Files


class Reach:
    """Who answers for the files of a container, and what keeps it from starting or ending meanwhile."""

    def __init__(self, settings: Settings, ledger: Ledger, backends: Backends, volumes: Volumes) -> None:
        self._settings, self._ledger, self._backends, self._volumes = settings, ledger, backends, volumes

    def guest(self, container: Container) -> Files | None:
        """The runtime, when only it reaches the files; to be asked while `reached` is open."""
        runtime = self._backends.runtime(container.runtime)
        return runtime if Feature.FILES in runtime.features and isinstance(runtime, Files) else None

    @asynccontextmanager
    async def held(self, container: Container) -> AsyncIterator[Container]:
        """The record as it is now; one that does not run is neither started nor taken down meanwhile."""
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            if not present.state.running:
                yield present
                return
        yield present

    @asynccontextmanager
    async def volumes(self, container: Container) -> AsyncIterator[None]:
        """The volumes of a container are on the host meanwhile."""
        try:
            for point in container.mounts:
                if point.type == "volume":
                    await self._volumes.mount(point.name)
            yield
        finally:
            if not container.state.running:
                await self._volumes.let_go(container)

    @asynccontextmanager
    async def root(self, container: Container) -> AsyncIterator[Root]:
        """A container's root on the host; for one that does not run, while it is held."""
        snapshotter = self._backends.snapshotter(container.snapshotter)
        try:
            yield await snapshotter.mount(container.id)
        finally:
            if not container.state.running:
                await snapshotter.unmount(container.id)

    @asynccontextmanager
    async def reached(self, container: Container, guest: Files) -> AsyncIterator[None]:
        """Meanwhile the files can be asked for. One that does not run starts when the block has ended.

        Raises Conflict (it is paused), and what a start without its process raises.
        """
        async with self.held(container) as present:
            if present.state.status is Status.PAUSED:
                raise Conflict(
                    f"container {present.name} is paused, and its files are behind its wall: unpause it first"
                )
            if present.state.running:
                yield
                return
            async with self._at_rest(present, guest):
                yield

    @asynccontextmanager
    async def _at_rest(self, container: Container, guest: Files) -> AsyncIterator[None]:
        paths = bundles.Paths(self._settings, container.id)
        hosts, hostname, resolv_conf = (
            path if path.exists() else None for path in (paths.hosts, paths.hostname, paths.resolv_conf)
        )
        async with self.root(container) as root, self.volumes(container):
            bundle = Bundle(
                id=container.id,
                name=container.name,
                directory=paths.run,
                root=root,
                process=bundles.main_process(container),
                hostname=bundles.hostname(container),
                host_config=HostConfig(),
                # What lies below a tmpfs is gone with the container: such a path means the files beneath it.
                mounts=tuple(
                    mount for mount in await mounts.for_bundle(container, self._volumes) if mount.kind == "bind"
                ),
                hosts=hosts,
                hostname_file=hostname,
                resolv_conf=resolv_conf,
                cgroup_path=bundles.cgroup_path(self._settings, container),
                image=container.config.image,
                architecture=container.architecture,
            )
            async with guest.at_rest(bundle):
                yield
