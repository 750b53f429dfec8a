"""One pass over a layer: hash what comes, keep it, decompress, hash that, and unpack it.

Two threads share the work, one for hashing and decompressing, one for the files; neither holds the
interpreter's lock while it does the heavy part.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bastide.images.archive import unpack_layer
from bastide.images.compression import decompress
from bastide.images.content import Ingest
from bastide.images.threads import Channel, Closed
from bastide.model.errors import InvalidArgument

RATIO_LIMIT = 1000
"""How many times larger than its compressed form a layer may be, beyond `FREE_BYTES`; deflate's own limit is 1032."""
FREE_BYTES = 2 << 30


class Unpacked(msgspec.Struct, frozen=True):
    """What came out: the digest of the uncompressed layer, its length, the bytes of its files."""

    diff_id: str
    length: int
    size: int


class _Meter:
    """Counts what goes in, keeps it, and holds what comes out against it."""

    def __init__(self, chunks: Iterable[bytes], ingest: Ingest | None, *, hashed: bool) -> None:
        self._chunks, self._ingest, self._hashed = chunks, ingest, hashed
        self.taken = self.given = 0
        self._hash = hashlib.sha256()

    @property
    def diff_id(self) -> str:
        """The digest of what came out; "" where nobody counts on it."""
        return "sha256:" + self._hash.hexdigest() if self._hashed else ""

    def source(self) -> Iterator[bytes]:
        """What goes in."""
        ingest = self._ingest
        if ingest is not None:
            for chunk in ingest.earlier():
                self.taken += len(chunk)
                yield chunk
        for chunk in self._chunks:
            self.taken += len(chunk)
            if ingest is not None:
                ingest.write(chunk)
            yield chunk

    def give(self, piece: bytes) -> None:
        """What comes out. Raises InvalidArgument when it grows out of all proportion."""
        self.given += len(piece)
        if self.given > FREE_BYTES and self.given > self.taken * RATIO_LIMIT:
            raise InvalidArgument(f"layer expands to more than {RATIO_LIMIT} times its size: refused")
        if self._hashed:
            self._hash.update(piece)


def unpack(chunks: Iterable[bytes], ingest: Ingest | None, directory: Path | None, *, plain: bool = False) -> Unpacked:
    """Take a layer in: into `ingest` as it comes, into `directory` unpacked; either may be None.

    Neither is committed: the caller compares the diff id first. With `plain` it is no more than the blob's own
    digest, which is checked anyway: the layer is taken as it comes and no diff id is given. Blocks; run it in a
    thread. Raises InvalidArgument (damaged, hostile), OSError, and whatever `chunks` raises.
    """
    meter = _Meter(chunks, ingest, hashed=not plain)
    pieces = meter.source() if plain else decompress(meter.source())
    if directory is None:
        for piece in pieces:
            meter.give(piece)
        return Unpacked(meter.diff_id, meter.given, 0)
    channel = Channel()
    files = _Files(channel, directory)
    files.start()
    try:
        for piece in pieces:
            channel.put(piece)
            meter.give(piece)
        channel.end()
    except Closed:
        pass  # the other thread failed and says why below
    except BaseException as error:
        channel.end(error)
        files.join()
        raise
    files.join()
    if files.error is not None:
        raise files.error
    return Unpacked(meter.diff_id, meter.given, files.size)


class _Files(threading.Thread):
    """The thread that makes the files."""

    def __init__(self, channel: Channel, directory: Path) -> None:
        super().__init__(name="unpack-files", daemon=True)
        self._channel, self._directory = channel, directory
        self.error: BaseException | None = None
        self.size = 0

    def run(self) -> None:
        """Unpack until the channel ends."""
        try:
            self.size = unpack_layer(self._channel, self._directory).size
        except BaseException as error:
            self.error = error
        finally:
            self._channel.abandon()
