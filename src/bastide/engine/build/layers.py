"""Layers that a build makes: a writable snapshot over the last one, filled, packed and put in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bastide.engine.guest_layer import write_guest
from bastide.engine.layers import Layers, Lease
from bastide.engine.new_layers import make_layer
from bastide.host.syscalls import blocking
from bastide.images.changes import LayerWriter, Packed, pack_changes
from bastide.images.threads import in_thread
from bastide.model.errors import Unsupported
from bastide.model.process import DirectoryRoot
from bastide.runtime import Files
from bastide.storage import Snapshotter, Trees


class Workshop:
    """Where one build makes its layers. Everything that it makes is held by the build's lease.

    `home` is its folder in the data root, `prefix` names its snapshots; what a crash leaves of them is removed
    at the daemon's next start.
    """

    def __init__(
        self, prefix: str, home: Path, layers: Layers, snapshotter: Snapshotter, lease: Lease, compression: str
    ) -> None:
        if not isinstance(snapshotter, Trees):
            raise Unsupported(f"snapshotter {snapshotter.name} cannot serve builds: its snapshots are not directories")
        self._prefix, self._layers, self._lease = prefix, layers, lease
        self._snapshotter, self._trees = snapshotter, snapshotter
        self._compression, self._home = compression, home
        self._count = 0
        self._views: dict[tuple[str, ...], str] = {}
        self._viewing = asyncio.Lock()

    def _key(self) -> str:
        self._count += 1
        return f"{self._prefix}-{self._count}"

    @asynccontextmanager
    async def snapshot(self, diff_ids: Sequence[str]) -> AsyncIterator[tuple[str, Path]]:
        """A writable snapshot over some layers, mounted: its key and its root. It is gone after the block."""
        key = self._key()
        try:
            root = await self._snapshotter.prepare(key, diff_ids)
            assert isinstance(root, DirectoryRoot)
            yield key, root.path
        finally:
            await self._snapshotter.remove(key)

    async def view(self, diff_ids: Sequence[str]) -> Path:
        """A read-only mount of some layers, until `close`."""
        wanted = tuple(diff_ids)
        async with self._viewing:
            if wanted not in self._views:
                key = self._key()
                await self._trees.view(key, wanted)
                self._views[wanted] = key
            return await self._root(self._views[wanted])

    async def _root(self, key: str) -> Path:
        root = await self._snapshotter.mount(key)
        assert isinstance(root, DirectoryRoot)
        return root.path

    async def take(self, key: str) -> Packed | None:
        """The changes of a snapshot as a layer of the store; None when it changed nothing.

        The snapshot is taken down and loses its changes to the layer.
        """
        await self._snapshotter.unmount(key)
        return await self.adopt(self._trees.upper(key))

    async def adopt(self, upper: Path) -> Packed | None:
        """A directory in the overlay's form as a layer of the store; the directory is gone after."""
        path, file = self._layers.content.spool()
        try:
            with file:
                packed = await in_thread("pack", pack_changes, upper, file, self._compression)
            if not packed.entries:
                return None
            await self._lease.add(packed.descriptor.digest, packed.diff_id)
            await self._layers.adopt(packed.descriptor, packed.diff_id, path, upper, packed.size)
            return packed
        finally:
            # It is a blob by now, unless something went wrong or the layer was known.
            await blocking(path.unlink, missing_ok=True)

    async def take_guest(self, guest: Files, container: str) -> Packed | None:
        """What changed in a running container that only its runtime reaches, as a layer of the store."""

        async def fill(writer: LayerWriter) -> None:
            await write_guest(guest, container, writer)

        return await make_layer(self._layers, self._lease, self._home, fill, self._compression)

    async def close(self) -> None:
        """Take the views down."""
        for key in self._views.values():
            await self._snapshotter.remove(key)
        self._views.clear()
