"""Containers, as the API sees them: find, make, run, look into, change, remove."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from bastide.engine import bundle as bundles
from bastide.engine import host_config as host_configs
from bastide.engine import log_options, logs
from bastide.engine.backends import Backends
from bastide.engine.create import Creator
from bastide.engine.files import FileAccess
from bastide.engine.identity import check_name
from bastide.engine.ledger import Condition, Ledger, Waited, not_running
from bastide.engine.lifecycle import Lifecycle
from bastide.engine.logs import LogQuery
from bastide.engine.networks import Networks
from bastide.model.config import Settings
from bastide.model.container import Config, Container, HostConfig, Status
from bastide.model.errors import Conflict, InvalidArgument, NotModified, Unsupported
from bastide.model.network import EndpointSettings
from bastide.model.process import Stats, TerminalSize
from bastide.runtime import Feature, Listing, Measuring, Stdio, Stream, Updating
from bastide.storage import Usage


class Containers:
    """One method for each thing a user can ask of a container; `reference` is a name, id or unique prefix.

    Every method raises NotFound ("No such container: …") for an unknown reference.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        backends: Backends,
        networks: Networks,
        creator: Creator,
        lifecycle: Lifecycle,
        files: FileAccess,
    ) -> None:
        self._settings, self._ledger, self._backends = settings, ledger, backends
        self._networks, self._creator, self._lifecycle = networks, creator, lifecycle
        self.files = files

    # -- find and make -------------------------------------------------------------------------

    def get(self, reference: str) -> Container:
        """The container's record."""
        return self._ledger.find(reference)

    def list(self) -> Sequence[Container]:
        """Every container, the newest first."""
        return sorted(self._ledger.all(), key=lambda container: container.created, reverse=True)

    async def create(
        self,
        name: str,
        config: Config,
        host_config: HostConfig,
        endpoints: dict[str, EndpointSettings] | None = None,
        platform: str = "",
    ) -> tuple[Container, Sequence[str]]:
        """A new container and warnings; see `Creator.create` for the errors."""
        return await self._creator.create(name, config, host_config, endpoints or {}, platform)

    # -- run -----------------------------------------------------------------------------------

    async def start(self, reference: str) -> None:
        """Start it. Raises NotModified when it runs already."""
        await self._lifecycle.start(self.get(reference))

    async def stop(self, reference: str, timeout: float | None = None, signal: str | None = None) -> None:
        """Stop it within `timeout` seconds. Raises NotModified when it does not run."""
        await self._lifecycle.stop(self.get(reference), timeout, signal)

    async def restart(self, reference: str, timeout: float | None = None, signal: str | None = None) -> None:
        """Stop and start."""
        await self._lifecycle.restart(self.get(reference), timeout, signal)

    async def kill(self, reference: str, signal: str = "SIGKILL") -> None:
        """Send a signal. Raises Conflict when it does not run, InvalidArgument for an unknown signal."""
        await self._lifecycle.kill(self.get(reference), signal)

    async def pause(self, reference: str) -> None:
        """Freeze it."""
        await self._lifecycle.pause(self.get(reference))

    async def unpause(self, reference: str) -> None:
        """Let it go on."""
        await self._lifecycle.unpause(self.get(reference))

    def waiter(self, reference: str, condition: str = "not-running") -> asyncio.Future[Waited]:
        """A future of its end that counts from now. Raises InvalidArgument for an unknown condition."""
        try:
            return self._ledger.waiter(reference, Condition(condition or "not-running"))
        except ValueError as error:
            raise InvalidArgument(f"invalid condition: {condition!r}") from error

    async def wait(self, reference: str, condition: str = "not-running") -> Waited:
        """Wait for its end."""
        return await self.waiter(reference, condition)

    # -- streams -------------------------------------------------------------------------------

    async def attach(self, reference: str) -> Stdio:
        """Its streams; before a start they wait for it. Raises Conflict when it is paused."""
        container = self.get(reference)
        if container.state.status is Status.PAUSED:
            raise Conflict(f"container {container.name} is paused, unpause the container before attach")
        stdio = await self._lifecycle.attachments.attach(container)
        self._ledger.event(container, "attach")
        return stdio

    def detached(self, reference: str) -> None:
        """A client let go of its streams by the keys for it."""
        self._ledger.event(self.get(reference), "detach")

    def logs(self, reference: str, query: LogQuery) -> AsyncIterator[tuple[Stream, bytes]]:
        """Its output so far, and with `follow` until it ends. Raises Unsupported when none is kept."""
        container = self.get(reference)
        if container.host_config.log_config.type == "none":
            raise Unsupported("configured logging driver does not support reading")
        alive = container.state.running or container.state.status is Status.RESTARTING
        ended = self._ledger.waiter(container.id, Condition.NOT_RUNNING) if alive and query.follow else None
        log = bundles.Paths(self._settings, container.id).log
        return logs.read(log, query, ended, log_options.details(container))

    async def resize(self, reference: str, size: TerminalSize) -> None:
        """Tell its terminal the new size. Raises Conflict when it does not run."""
        container = self._running(reference)
        await self._backends.runtime(container.runtime).resize(container.id, size)
        self._ledger.event(container, "resize", height=str(size.rows), width=str(size.columns))

    def _running(self, reference: str) -> Container:
        container = self.get(reference)
        if not container.state.running:
            raise not_running(container)
        return container

    # -- look into -----------------------------------------------------------------------------

    async def top(self, reference: str, arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Titles and rows of `ps ARGUMENTS` for its processes."""
        container = self._running(reference)
        runtime = self._backends.runtime(container.runtime)
        if not isinstance(runtime, Listing) or Feature.TOP not in runtime.features:
            raise Unsupported(f"isolation {container.isolation} cannot list processes")
        found = await runtime.top(container.id, arguments)
        self._ledger.event(container, "top")
        return found

    async def stats(self, reference: str) -> Stats:
        """Resource use now; zeros when it does not run."""
        container = self.get(reference)
        runtime = self._backends.runtime(container.runtime)
        if not container.state.running:
            return Stats()
        if not isinstance(runtime, Measuring) or Feature.STATS not in runtime.features:
            raise Unsupported(f"isolation {container.isolation} cannot measure a container")
        return await runtime.stats(container.id)

    async def changes(self, reference: str) -> Sequence[tuple[int, str]]:
        """What differs from the image: `(0 changed | 1 added | 2 deleted, path)`."""
        return await self.files.changes(self.get(reference))

    async def size(self, reference: str) -> Usage:
        """What it holds on disk beyond its image."""
        container = self.get(reference)
        return await self._backends.snapshotter(container.snapshotter).usage(container.id)

    def export(self, reference: str) -> AsyncIterator[bytes]:
        """Its whole file system as a tar stream."""
        container = self.get(reference)
        self._ledger.event(container, "export")
        return self.files.archive(container, "/", whole=True)

    async def stat_path(self, reference: str, path: str) -> dict[str, Any]:
        """Name, size, mode, time and link target of a path in it."""
        return await self.files.stat(self.get(reference), path)

    def get_archive(self, reference: str, path: str) -> AsyncIterator[bytes]:
        """A path of it as a tar stream."""
        container = self.get(reference)
        self._ledger.event(container, "archive-path")
        return self.files.archive(container, path)

    async def put_archive(
        self,
        reference: str,
        path: str,
        data: AsyncIterator[bytes],
        *,
        no_overwrite_dir: bool = False,
        as_user: bool = False,
    ) -> None:
        """Unpack a tar stream into a directory of it; `as_user`: all of it belongs to its user."""
        container = self.get(reference)
        await self.files.unpack(container, path, data, no_overwrite_dir=no_overwrite_dir, as_user=as_user)
        self._ledger.event(container, "extract-to-dir")

    # -- change --------------------------------------------------------------------------------

    async def rename(self, reference: str, name: str) -> None:
        """Give it another name. Raises Conflict when it is taken."""
        container = self.get(reference)
        if not name.strip():
            raise InvalidArgument("Neither old nor new names may be empty")
        new = check_name(name)
        if new == container.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        async with self._ledger.lock(container):
            self._ledger.reserve(new)
            try:
                renamed = self._ledger.change(container, name=new)
            finally:
                self._ledger.release(new)
        self._networks.renamed(renamed)
        self._ledger.event(renamed, "rename", oldName=f"/{container.name}")

    async def update(self, reference: str, changes: dict[str, Any]) -> Sequence[str]:
        """Change limits and the restart policy, live when it runs; `changes` are HostConfig fields."""
        container = self.get(reference)
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            host = host_configs.checked(msgspec.structs.replace(present.host_config, **changes))
            if present.host_config.auto_remove and host.restart_policy.name not in ("", "no"):
                raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
            runtime = self._backends.runtime(present.runtime)
            if present.state.running and set(changes) - {"restart_policy"}:
                if not isinstance(runtime, Updating) or Feature.UPDATE not in runtime.features:
                    raise Unsupported(
                        f"isolation {present.isolation} cannot change limits while running: stop it first"
                    )
                await runtime.update(present.id, host)
            updated = self._ledger.change(present, host_config=host)
        self._ledger.event(updated, "update")
        return []

    # -- remove --------------------------------------------------------------------------------

    async def remove(self, reference: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it. Raises Conflict when it runs and `force` is not given."""
        container = self.get(reference)
        live = container.state.running or container.state.status is Status.RESTARTING
        if live and not force:
            what = "paused" if container.state.status is Status.PAUSED else container.state.status.value
            hint = (
                "unpause and then stop the container before removal or force remove"
                if what == "paused"
                else "stop the container before removing or force remove"
            )
            raise Conflict(f'cannot remove container "{container.name}": container is {what}: {hint}')
        if live:
            await self._end_for_removal(container)
        async with self._ledger.lock(container):
            present = self._ledger.get(container.id)
            if present is not None:
                await self._lifecycle.discard(present, volumes=volumes)

    async def _end_for_removal(self, container: Container) -> None:
        try:
            await self._lifecycle.end(container)
        except NotModified:
            return

    async def prune(self, chosen: Sequence[Container]) -> tuple[Sequence[str], int]:
        """Remove those of `chosen` that do not run; gives their ids and the bytes that came free."""
        removed, freed = [], 0
        for container in chosen:
            present = self._ledger.get(container.id)
            if present is None or present.state.status not in (Status.CREATED, Status.EXITED, Status.DEAD):
                continue
            freed += (await self.size(present.id)).size
            await self.remove(present.id)
            removed.append(present.id)
        return removed, freed
