"""Layers and blobs of all images: taken in once, kept while anything needs them, collected after."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bastide.engine.state import Store
from bastide.host.syscalls import blocking
from bastide.images.content import Content, Mismatch
from bastide.images.threads import Channel, in_thread
from bastide.images.unpack import Unpacked, unpack
from bastide.model.errors import InvalidArgument, NotFound
from bastide.model.image import Descriptor
from bastide.storage import Snapshotter

log = logging.getLogger("bastide.engine")

PARALLEL = 3
"""Layers that are taken in at once, as in Docker."""
_SETTLE_SECONDS = 2.0


class _Blob(msgspec.Struct, frozen=True):
    """What a compressed layer turned out to hold."""

    diff_id: str


class _Layer(msgspec.Struct, frozen=True):
    """An unpacked layer: the bytes of its files, and whether it is surely on disk."""

    size: int
    settled: bool = False


BlobSource = Callable[[int], AsyncIterator[bytes]]
"""Gives a blob's bytes from an offset on."""


class Lease:
    """Digests and diff ids that must not be collected while the block lasts."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.held: set[str] = set()

    async def add(self, *digests: str) -> None:
        """Hold more; waits for a collection under way."""
        async with self._leases.sweeping:
            self.held.update(digests)


class Leases:
    """Who holds what. A collection and a new hold never overlap."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self.sweeping = asyncio.Lock()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Lease]:
        """A lease for the block."""
        lease = Lease(self)
        self._leases.add(lease)
        try:
            yield lease
        finally:
            self._leases.discard(lease)

    def held(self) -> set[str]:
        """Everything that is held now."""
        return set().union(*(lease.held for lease in self._leases))


class Layers:
    """The content store and the unpacked layers, as one."""

    def __init__(self, root: Path, store: Store, snapshotter: Snapshotter) -> None:
        self.content = Content(root)
        self.leases = Leases()
        self._snapshotter = snapshotter
        self._store = store
        self._blobs = store.table("layer_blobs", _Blob)
        self._layers = store.table("layers", _Layer)
        self._slots = asyncio.Semaphore(PARALLEL)
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._settling: asyncio.Task[None] | None = None

    def has(self, descriptor: Descriptor, diff_id: str) -> bool:
        """Whether blob and layer are both here and known to belong together."""
        known = self._blobs.get(descriptor.digest)
        return (
            known is not None
            and known.diff_id == diff_id
            and self.content.has(descriptor.digest)
            and diff_id in self._layers
            and self._snapshotter.has(diff_id)
        )

    def size(self, diff_ids: Iterable[str]) -> int:
        """Bytes of the files in some layers."""
        return sum(row.size for diff_id in diff_ids if (row := self._layers.get(diff_id)))

    @asynccontextmanager
    async def _alone(self, digest: str) -> AsyncIterator[None]:
        """One taker for each blob at a time."""
        lock, users = self._locks.get(digest, (asyncio.Lock(), 0))
        self._locks[digest] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[digest]
            if users == 1:
                del self._locks[digest]
            else:
                self._locks[digest] = (lock, users - 1)

    async def ensure(
        self, descriptor: Descriptor, diff_id: str, source: BlobSource, begun: Callable[[bool], None] | None = None
    ) -> None:
        """Have a layer, blob and files. The caller's lease holds both digests.

        `begun` is told, once it is this layer's turn, whether it was there already. What a crash leaves is
        partial and is taken up again. Raises InvalidArgument (digest, diff id or archive is wrong), and
        what `source` raises.
        """
        async with self._alone(descriptor.digest):
            if self.has(descriptor, diff_id):
                if begun is not None:
                    begun(True)
                return
            async with self._slots:
                if begun is not None:
                    begun(False)
                await self._take(descriptor, diff_id, source)
        self.settle_later()

    async def _take(self, descriptor: Descriptor, diff_id: str, source: BlobSource) -> None:
        async with self._snapshotter.layer(diff_id) as directory:
            if self.content.has(descriptor.digest):
                result = await self._unpack_local(descriptor.digest, diff_id, directory)
            else:
                result = await self._receive(descriptor, diff_id, source, directory)
            self._note(descriptor.digest, diff_id, result if directory is not None else None)
        if diff_id not in self._layers:
            # A crash came between the layer and its record.
            usage = await self._snapshotter.usage(diff_id)
            self._layers.put(diff_id, _Layer(usage.size))

    async def _unpack_local(self, digest: str, diff_id: str, directory: Path | None) -> Unpacked:
        chunks = self.content.chunks(digest)
        result = await in_thread("unpack", unpack, chunks, None, directory, plain=digest == diff_id)
        check_diff_id(result, diff_id)
        return result

    async def _receive(
        self, descriptor: Descriptor, diff_id: str, source: BlobSource, directory: Path | None
    ) -> Unpacked:
        """Take a blob in and unpack it in the same pass."""
        if await self._resume(descriptor, source):
            return await self._unpack_local(descriptor.digest, diff_id, directory)
        ingest = self.content.ingest(descriptor.digest, descriptor.size)
        try:
            channel = Channel()
            plain = descriptor.digest == diff_id
            work = asyncio.create_task(in_thread("unpack", unpack, channel, ingest, directory, plain=plain))
            await channel.fill(source(0), work)
            result = await work
            await blocking(ingest.commit)
            check_diff_id(result, diff_id)
            return result
        except InvalidArgument:
            ingest.discard()
            raise
        finally:
            ingest.close()

    async def _resume(self, descriptor: Descriptor, source: BlobSource) -> bool:
        """Complete what an earlier try left; False when there is nothing, or nothing of use."""
        ingest = self.content.ingest(descriptor.digest, descriptor.size)
        try:
            if not ingest.offset:
                return False
            await blocking(lambda: [None for _ in ingest.earlier()])
            if ingest.offset != ingest.size:
                async for chunk in source(ingest.offset):
                    await blocking(ingest.write, chunk)
            await blocking(ingest.commit)
        except Mismatch as error:
            log.warning("an earlier try left bad bytes, beginning again: %s", error)
            return False
        finally:
            ingest.close()
        return True

    def _note(self, digest: str, diff_id: str, result: Unpacked | None) -> None:
        with self._store.transaction():
            self._blobs.put(digest, _Blob(diff_id))
            if result is not None:
                self._layers.put(diff_id, _Layer(result.size))

    async def adopt(self, descriptor: Descriptor, diff_id: str, spooled: Path, upper: Path, size: int) -> None:
        """Have a layer that was made here: its blob in the file `spooled`, its files in the directory `upper`.

        Both are moved away, or left where they are when the layer is known. `size` is the bytes of its files.
        The caller's lease holds both digests.
        """
        async with self._alone(descriptor.digest):
            if self.has(descriptor, diff_id):
                return
            if not self.content.has(descriptor.digest):
                await blocking(self.content.adopt, spooled, descriptor.digest)
            async with self._snapshotter.layer(diff_id) as directory:
                if directory is not None:
                    await blocking(upper.rename, directory)
            self._note(descriptor.digest, diff_id, Unpacked(diff_id, 0, size))
        self.settle_later()

    async def add_blob(self, digest: str, size: int, source: BlobSource) -> None:
        """Have a blob that is no layer."""
        async with self._alone(digest):
            if self.content.has(digest):
                return
            ingest = self.content.ingest(digest, size)
            try:
                ingest.restart()
                async for chunk in source(0):
                    await blocking(ingest.write, chunk)
                await blocking(ingest.commit)
            finally:
                ingest.close()

    # -- collection ----------------------------------------------------------------------------

    async def collect(self, roots: Callable[[], set[str]], *, partials: bool = False) -> int:
        """Remove what is neither among the roots nor held nor below a snapshot; gives the bytes freed.

        `partials`: unfinished blobs that nobody writes go as well.
        """
        async with self.leases.sweeping:
            # Asked for at one moment, while nobody can add to a lease: what a pull under way
            # records later is held now.
            keep = roots() | self.leases.held()
            keep_layers = set(keep)
            gone = []
            present = []
            async for info in self._snapshotter.walk():
                if info.committed:
                    present.append(info.key)
                else:
                    keep_layers.update(info.layers)
            freed = 0
            for diff_id in present:
                if diff_id not in keep_layers:
                    row = self._layers.get(diff_id)
                    freed += row.size if row else 0
                    self._layers.delete(diff_id)
                    await self._snapshotter.remove(diff_id)
            for digest in await blocking(self.content.digests):
                if digest not in keep:
                    gone.append(digest)
                    self._blobs.delete(digest)
            freed += sum([await blocking(self.content.remove, digest) for digest in gone])
            if partials:
                freed += await blocking(self.content.clear_partials, keep)
            return freed

    # -- power loss ----------------------------------------------------------------------------

    def settle_later(self) -> None:
        """Have everything that was taken in written to disk, soon."""
        if self._settling is None or self._settling.done():
            self._settling = asyncio.create_task(self._settle(), name="settle-content")

    async def _settle(self) -> None:
        """Write to disk what was taken in, once it has been quiet for a moment."""
        while True:
            await asyncio.sleep(_SETTLE_SECONDS)
            fresh = [(diff_id, row) for diff_id, row in self._layers.items() if not row.settled]
            if await in_thread("syncfs", self.content.settle):
                break
        with self._store.transaction():
            for diff_id, row in fresh:
                if self._layers.get(diff_id) is row:
                    self._layers.put(diff_id, _Layer(row.size, settled=True))

    async def recover(self) -> None:
        """After a power loss: drop broken blobs, and layers that may be broken, for `missing` to bring back."""
        if not self.content.suspects:
            return
        log.warning("the power failed while images were written: checking every blob")
        for digest in await in_thread("verify", self.content.verify):
            log.warning("blob %s is broken and was removed", digest)
            self._blobs.delete(digest)
        in_use: set[str] = set()
        present = []
        async for info in self._snapshotter.walk():
            in_use.update(info.layers)
            if info.committed:
                present.append(info.key)
        for diff_id in present:
            row = self._layers.get(diff_id)
            if (row is None or not row.settled) and diff_id not in in_use:
                self._layers.delete(diff_id)
                await self._snapshotter.remove(diff_id)

    async def restore(self, descriptor: Descriptor, diff_id: str) -> None:
        """Unpack a layer again from its blob. Raises NotFound when the blob is gone too."""
        if not self.content.has(descriptor.digest):
            raise NotFound(f"No such blob: {descriptor.digest}")
        await self.ensure(descriptor, diff_id, no_source)

    async def close(self) -> None:
        """Stop settling; the marker stays until the next time."""
        if self._settling is not None:
            self._settling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._settling


async def no_source(offset: int) -> AsyncIterator[bytes]:
    """The source of what is here already."""
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk


def local_source(chunks: Callable[[], Iterator[bytes]]) -> BlobSource:
    """A source that reads pieces of something local, in threads."""

    async def source(offset: int) -> AsyncIterator[bytes]:
        pieces = chunks()
        while chunk := await blocking(gather, pieces):
            skipped = min(offset, len(chunk))
            offset -= skipped
            if skipped < len(chunk):
                yield chunk[skipped:]

    return source


def gather(pieces: Iterator[bytes], wanted: int = 1 << 20) -> bytes:
    """Some pieces as one, b"" at the end: small ones would cost a thread's turn each."""
    found, size = [], 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size >= wanted:
            break
    return found[0] if len(found) == 1 else b"".join(found)


def check_diff_id(result: Unpacked, diff_id: str) -> None:
    """Docker's answer to a layer that is not what the configuration says."""
    if result.diff_id not in ("", diff_id):
        raise InvalidArgument(
            f"layers from manifest don't match image configuration: {diff_id} was announced, {result.diff_id} came"
        )
