"""Snapshots and clones: save a container's state, go back to it, make a second container from it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec

from bastide.engine.backends import Backends
from bastide.engine.clock import now
from bastide.engine.identity import check_name, new_id, new_name
from bastide.engine.ledger import Ledger, not_running
from bastide.engine.lifecycle import Lifecycle, remove_files
from bastide.engine.state import Store
from bastide.host.syscalls import blocking
from bastide.model.config import Settings
from bastide.model.container import Container, State, Status
from bastide.model.errors import Conflict, InvalidArgument, NotFound, NotModified, Unsupported
from bastide.model.network import EndpointSettings
from bastide.model.snapshot import Snapshot
from bastide.runtime import Feature, Pausing, Snapshotting
from bastide.storage import Duplicating, Usage

_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")


class _Restore(msgspec.Struct, frozen=True):
    """A restore under way: `recover` finishes it after a crash."""

    snapshot: str


class Snapshots:
    """The snapshots of all containers. Names of containers are found as everywhere (name, id, prefix)."""

    def __init__(
        self, settings: Settings, store: Store, ledger: Ledger, backends: Backends, lifecycle: Lifecycle
    ) -> None:
        self._settings, self._store, self._ledger = settings, store, ledger
        self._backends, self._lifecycle = backends, lifecycle
        self._table = store.table("snapshots", Snapshot)
        self._restores = store.table("restores", _Restore)
        self._heads = store.table("snapshot_heads", _Restore)

    # -- look ----------------------------------------------------------------------------------

    def list(self, reference: str = "") -> Sequence[Snapshot]:
        """Every snapshot, or those of one container, oldest first."""
        owner = self._owner(reference) if reference else ""
        found = [snapshot for snapshot in self._table.values() if not owner or snapshot.container == owner]
        return sorted(found, key=lambda snapshot: snapshot.created)

    def get(self, reference: str, tag: str = "") -> Snapshot:
        """A container's snapshot by tag, the newest one without a tag. Raises NotFound."""
        owner = self._owner(reference)
        found = [snapshot for snapshot in self.list() if snapshot.container == owner]
        if tag:
            found = [snapshot for snapshot in found if snapshot.tag == tag]
        if not found:
            raise NotFound(f"No such snapshot: {reference}{':' + tag if tag else ''}")
        return found[-1]

    def _owner(self, reference: str) -> str:
        """The id of a container, also of one that is gone but left snapshots."""
        with suppress(NotFound):
            return self._ledger.find(reference).id
        owners = {s.container for s in self._table.values() if reference in (s.container, s.record.name)}
        if len(owners) != 1:
            raise NotFound(f"No such container: {reference}")
        return owners.pop()

    async def size(self, snapshot: Snapshot) -> Usage:
        """What the snapshot holds on disk, its memory included."""
        usage = await self._backends.snapshotter(snapshot.record.snapshotter).usage(snapshot.id)
        memory = self._memory(snapshot.id)
        files = (path.stat() for path in memory.rglob("*")) if memory.is_dir() else ()
        # The file that the memory began as is a template's, and other snapshots', as long as it has other names.
        extra = sum(file.st_blocks * 512 for file in files if file.st_nlink == 1)
        return Usage(size=usage.size + extra, inodes=usage.inodes)

    def keys(self) -> set[str]:
        """The snapshotter's keys that belong to snapshots."""
        return set(self._table.keys())

    def _memory(self, snapshot_id: str) -> Path:
        return self._settings.data_root / "snapshots" / snapshot_id

    # -- save ----------------------------------------------------------------------------------

    async def create(self, reference: str, tag: str = "", *, memory: bool | None = None) -> Snapshot:
        """Save a container's state. `memory` None: with it when the container runs and its wall can.

        A container that runs is frozen while its files are copied. Raises Conflict (tag taken, not
        running), Unsupported, ResourceExhausted.
        """
        container = self._ledger.find(reference)
        tag = tag or now()[:19].replace(":", "")
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"invalid snapshot tag {tag!r}: letters, digits, '_', '.' and '-' only")
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            if any(s.container == present.id and s.tag == tag for s in self._table.values()):
                raise Conflict(f"snapshot {present.name}:{tag} exists already: remove it or choose another tag")
            head = self._heads.get(present.id)
            snapshot = Snapshot(
                id=new_id(),
                container=present.id,
                tag=tag,
                created=now(),
                parent=head.snapshot if head else "",
                memory=self._with_memory(present, memory),
                record=present,
            )
            await self._save(present, snapshot)
            with self._store.transaction():
                self._table.put(snapshot.id, snapshot)
                self._heads.put(present.id, _Restore(snapshot.id))
        self._ledger.event(present, "snapshot", tag=tag)
        return snapshot

    def _with_memory(self, container: Container, wanted: bool | None) -> bool:
        able = Feature.SNAPSHOT in self._backends.runtime(container.runtime).features
        if wanted and not able:
            raise Unsupported(f"isolation {container.isolation} cannot save memory: leave out --memory")
        if wanted and not container.state.running:
            raise not_running(container)
        return able and container.state.running and wanted is not False

    async def _save(self, container: Container, snapshot: Snapshot, *, lasting: bool = True) -> None:
        """Save memory, if it has any, and files; of what is not `lasting` the memory alone, with its disk."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._discard, snapshot)
            if snapshot.memory:
                runtime = self._backends.runtime(container.runtime)
                assert isinstance(runtime, Snapshotting)
                folder = self._memory(snapshot.id)
                folder.mkdir(parents=True, mode=0o700)
                await runtime.save(container.id, folder, lasting=lasting)
            if lasting:
                await self._copy_frozen(container, snapshot.id)
            undo.pop_all()

    async def _copy_frozen(self, container: Container, key: str) -> None:
        """Copy the files while nothing writes to them."""
        live = container.state.status is Status.RUNNING
        runtime = self._backends.runtime(container.runtime)
        pausing = runtime if live and isinstance(runtime, Pausing) else None
        if pausing is not None:
            await pausing.pause(container.id)
        try:
            await self._duplicate(container.snapshotter, container.id, key)
        finally:
            if pausing is not None:
                await pausing.resume(container.id)
        await self._backends.snapshotter(container.snapshotter).unmount(key)

    async def _duplicate(self, snapshotter: str, key: str, new: str) -> None:
        backend = self._backends.snapshotter(snapshotter)
        if not isinstance(backend, Duplicating):
            raise Unsupported(f"snapshotter {snapshotter} cannot copy a container's files")
        await backend.duplicate(key, new)

    async def _discard(self, snapshot: Snapshot) -> None:
        await self._backends.snapshotter(snapshot.record.snapshotter).remove(snapshot.id)
        await blocking(shutil.rmtree, self._memory(snapshot.id), ignore_errors=True)

    async def remove(self, reference: str, tag: str) -> None:
        """Forget a snapshot; those made after it stay. Raises NotFound."""
        snapshot = self.get(reference, tag)
        self._table.delete(snapshot.id)
        for child in self._table.values():
            if child.parent == snapshot.id:
                self._table.put(child.id, msgspec.structs.replace(child, parent=snapshot.parent))
        head = self._heads.get(snapshot.container)
        if head and head.snapshot == snapshot.id:
            self._heads.put(snapshot.container, _Restore(snapshot.parent))
        await self._discard(snapshot)

    # -- go back -------------------------------------------------------------------------------

    async def restore(self, reference: str, tag: str = "", *, memory: bool = True) -> Snapshot:
        """Put a container back into a saved state. It runs afterwards if its memory was saved or it ran before.

        Without `memory` the files alone are put back. Raises NotFound, Unsupported, Conflict (the memory cannot be
        restored here; nothing was changed), and what starting raises.
        """
        container = self._ledger.find(reference)
        snapshot = self.get(reference, tag)
        with_memory = snapshot.memory and memory
        if with_memory:
            runtime = self._backends.runtime(container.runtime)
            assert isinstance(runtime, Snapshotting)
            await runtime.check_saved(self._memory(snapshot.id))
        ran = container.state.running
        if ran:
            with suppress(NotModified):
                await self._lifecycle.stop(container, 0, "SIGKILL")
        async with self._ledger.lock(container):
            present = self._ledger.fresh(container)
            self._restores.put(present.id, _Restore(snapshot.id))
            await self._put_back(present, snapshot)
            if with_memory:
                await self._lifecycle.start_saved(present, self._memory(snapshot.id))
        if ran and not with_memory:
            await self._lifecycle.start(present)
        self._ledger.event(present, "restore", tag=snapshot.tag)
        return snapshot

    async def _put_back(self, container: Container, snapshot: Snapshot) -> None:
        await self._backends.snapshotter(container.snapshotter).remove(container.id)
        await self._duplicate(container.snapshotter, snapshot.id, container.id)
        await self._backends.snapshotter(container.snapshotter).unmount(container.id)
        with self._store.transaction():
            self._heads.put(container.id, _Restore(snapshot.id))
            self._restores.delete(container.id)

    async def recover(self) -> None:
        """Finish the restores that a crash cut off; their containers were stopped."""
        for container_id, pending in self._restores.items():
            container, snapshot = self._ledger.get(container_id), self._table.get(pending.snapshot)
            if container is None or snapshot is None:
                self._restores.delete(container_id)
            else:
                await self._put_back(container, snapshot)

    # -- clone ---------------------------------------------------------------------------------

    async def clone(self, reference: str, name: str = "", *, tag: str = "") -> Container:
        """A second container like the first one, or like one of its snapshots: files, and memory where it runs.

        The clone of a running container behind a wall that can save memory runs at once, with another
        identity; every other clone is made and not started. Raises Conflict (name taken), Unsupported.
        """
        source = self._ledger.find(reference)
        taken = self.get(reference, tag) if tag else None
        new = check_name(name) if name else new_name(self._ledger.names())
        self._ledger.reserve(new)
        temporary: Snapshot | None = None
        try:
            if taken is None and self._with_memory(source, None):
                temporary = taken = await self._temporary(source)
            made = await self._copy(source, taken, new)
        finally:
            self._ledger.release(new)
            if temporary is not None:
                await self._discard(temporary)
        return made

    async def _temporary(self, source: Container) -> Snapshot:
        """A snapshot that no record mentions: it exists for one clone."""
        snapshot = Snapshot(
            id=new_id(), container=source.id, tag="", created=now(), parent="", memory=True, record=source
        )
        async with self._ledger.lock(source):
            await self._save(source, snapshot, lasting=False)
        return snapshot

    async def _copy(self, source: Container, taken: Snapshot | None, name: str) -> Container:
        record = taken.record if taken else source
        clone_id = new_id()
        hostname = record.config.hostname
        clone = msgspec.structs.replace(
            record,
            id=clone_id,
            name=name,
            created=now(),
            state=State(),
            restart_count=0,
            networks={key: _fresh_endpoint(value) for key, value in record.networks.items()},
            ports={},
            host_config=msgspec.structs.replace(record.host_config, port_bindings=None),
            config=msgspec.structs.replace(
                record.config, hostname=clone_id[:12] if hostname == source.id[:12] else hostname
            ),
            log_path=record.log_path.replace(source.id, clone_id),
        )
        async with AsyncExitStack() as undo:
            undo.push_async_callback(remove_files, self._settings, clone_id)
            undo.push_async_callback(self._backends.snapshotter(clone.snapshotter).remove, clone_id)
            if taken is None:
                await self._copy_frozen(source, clone_id)
            else:
                # A memory that was saved for this clone brings its disk along: what is copied here is its place.
                await self._duplicate(clone.snapshotter, taken.id if taken.tag else source.id, clone_id)
            self._ledger.save(clone)
            undo.pop_all()
        self._ledger.event(clone, "create")
        if taken is not None and taken.memory:
            async with self._ledger.lock(clone):
                await self._lifecycle.start_saved(clone, self._memory(taken.id))
        return self._ledger.fresh(clone)


def _fresh_endpoint(endpoint: EndpointSettings) -> EndpointSettings:
    """An endpoint as asked for, without what its first owner got."""
    return EndpointSettings(aliases=endpoint.aliases, links=endpoint.links, driver_opts=endpoint.driver_opts)
