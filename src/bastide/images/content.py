"""The content store: blobs by digest, whole or not there.

`blobs/sha256/<hex>` is a blob; `ingest/<hex>` a partial one, taken up again after a crash. A blob's
name appears by a rename, after its digest and size were checked over every byte that was written.

A rename can outlive the bytes when the power fails, so writing begins with a marker, `unsynced`, that
holds the boot's id; `settle` writes everything to disk and takes it away. A store opened with the
marker of another boot checks every blob again (`suspects`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bastide.host.syscalls import libc_call
from bastide.images.digest import check_digest, digest_of
from bastide.model.errors import InvalidArgument, NotFound

_PIECE = 1 << 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Mismatch(InvalidArgument):
    """Bytes that do not match their digest or size."""


class Ingest:
    """A blob being written. Bytes that an earlier try left are kept: `offset` says how many there are."""

    def __init__(self, content: Content, digest: str, size: int | None) -> None:
        self._content, self.digest, self.size = content, digest, size
        self._path = content.partial(digest)
        self._hash = hashlib.sha256()
        self._file: BinaryIO = self._path.open("ab+")
        self.offset = self._file.seek(0, os.SEEK_END)
        if size is not None and self.offset > size:
            self.restart()

    def earlier(self) -> Iterator[bytes]:
        """The bytes of earlier tries, which are hashed while they are read; call it once, before `write`."""
        self._file.seek(0)
        left = self.offset
        while left and (chunk := self._file.read(min(_PIECE, left))):
            self._hash.update(chunk)
            left -= len(chunk)
            yield chunk

    def restart(self) -> None:
        """Forget the bytes of earlier tries."""
        self._file.truncate(0)
        self._hash = hashlib.sha256()
        self.offset = 0

    def write(self, chunk: bytes) -> None:
        """Append. Raises Mismatch when it gets longer than it may be."""
        self.offset += len(chunk)
        if self.size is not None and self.offset > self.size:
            self.discard()
            raise Mismatch(f"blob {self.digest} is longer than its {self.size} bytes")
        self._file.write(chunk)
        self._hash.update(chunk)

    def commit(self) -> None:
        """Check digest and size and make the blob exist. Raises Mismatch; the bytes are gone then."""
        found = "sha256:" + self._hash.hexdigest()
        if found != self.digest:
            self.discard()
            raise Mismatch(f"blob does not match its digest: {self.digest} was asked for, {found} came")
        if self.size is not None and self.offset != self.size:
            self.discard()
            raise Mismatch(f"blob {self.digest} has {self.offset} bytes instead of {self.size}")
        self._file.flush()
        self._path.rename(self._content.path(self.digest))
        self.close()

    def close(self) -> None:
        """Stop; what was written stays for the next try. Repeatable."""
        if not self._file.closed:
            self._file.close()
            self._content.release()

    def discard(self) -> None:
        """Stop and forget what was written."""
        self.close()
        self._path.unlink(missing_ok=True)


class Content:
    """The blobs of one daemon below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs, self._partial = root / "blobs" / "sha256", root / "ingest"
        self._marker = root / "unsynced"
        for folder in (self._blobs, self._partial):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._partial.iterdir():
            if path.name.startswith("spool-"):
                path.unlink()
        self._boot = _BOOT.read_text().strip()
        marked = self._marker.read_text().strip() if self._marker.exists() else ""
        self.suspects = bool(marked) and marked != self._boot
        """Whether the power failed while blobs were written: call `verify`."""
        self._marked = bool(marked)
        self._lock = threading.Lock()
        self._writers = self._generation = 0

    # -- look ----------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        """Where a blob lies, or would lie. Raises InvalidArgument for a digest that is none."""
        return self._blobs / check_digest(digest)[7:]

    def partial(self, digest: str) -> Path:
        """Where its unfinished form lies."""
        return self._partial / check_digest(digest)[7:]

    def has(self, digest: str) -> bool:
        """Whether the blob is here, whole."""
        return self.path(digest).exists()

    def size(self, digest: str) -> int:
        """Its size in bytes. Raises NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as error:
            raise NotFound(f"No such blob: {digest}") from error

    def read(self, digest: str, limit: int = 16 << 20) -> bytes:
        """A small blob. Raises NotFound, InvalidArgument above `limit`."""
        if self.size(digest) > limit:
            raise InvalidArgument(f"blob {digest} has more than {limit} bytes")
        return self.path(digest).read_bytes()

    def chunks(self, digest: str) -> Iterator[bytes]:
        """A blob in pieces. Raises NotFound."""
        self.size(digest)
        with self.path(digest).open("rb", buffering=0) as file:
            while chunk := file.read(_PIECE):
                yield chunk

    def digests(self) -> list[str]:
        """Every blob that is here."""
        return [f"sha256:{path.name}" for path in self._blobs.iterdir()]

    def sizes(self) -> tuple[dict[str, int], int]:
        """The bytes of every blob, and those of all that are not whole."""
        with os.scandir(self._blobs) as whole:
            found = {f"sha256:{entry.name}": entry.stat().st_size for entry in whole}
        with os.scandir(self._partial) as rest:
            return found, sum(entry.stat().st_size for entry in rest)

    # -- write ---------------------------------------------------------------------------------

    def ingest(self, digest: str, size: int | None = None) -> Ingest:
        """Begin, or go on, to write a blob. One writer at a time for each digest."""
        self.mark(writers=1)
        try:
            return Ingest(self, digest, size)
        except BaseException:
            self.release()
            raise

    def add(self, data: bytes) -> str:
        """Write a small blob; gives its digest. Many may write the same one at once."""
        digest = digest_of(data)
        if not self.has(digest):
            path, file = self.spool()
            with file:
                file.write(data)
            self.adopt(path, digest)
        return digest

    def spool(self) -> tuple[Path, BinaryIO]:
        """A temporary file beside the blobs; the caller removes it, a crash leaves it to the next start."""
        path = self._partial / f"spool-{os.urandom(8).hex()}"
        return path, path.open("xb+")

    def adopt(self, path: Path, digest: str) -> None:
        """Make a spooled file, whose digest the caller computed while writing it, a blob."""
        self.mark()
        path.rename(self.path(digest))

    def remove(self, digest: str) -> int:
        """Forget a blob; gives the bytes that are free now."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size

    def clear_partials(self, keep: set[str]) -> int:
        """Forget unfinished blobs but those in `keep`; gives the bytes that are free now."""
        freed = 0
        for path in self._partial.iterdir():
            if f"sha256:{path.name}" not in keep and not path.name.startswith("spool-"):
                with contextlib.suppress(FileNotFoundError):
                    freed += path.stat().st_size
                    path.unlink()
        return freed

    # -- power loss ----------------------------------------------------------------------------

    def mark(self, writers: int = 0) -> None:
        """Note, durably, that there are bytes which may not be on disk yet."""
        with self._lock:
            self._writers += writers
            self._generation += 1
            if self._marked:
                return
            with self._marker.open("w") as file:
                file.write(self._boot)
                file.flush()
                os.fsync(file.fileno())
            _sync_directory(self.root)
            self._marked = True

    def release(self) -> None:
        """A writer is done."""
        with self._lock:
            self._writers -= 1
            self._generation += 1

    def settle(self) -> bool:
        """Write the whole file system to disk and take the marker away; False when more was written meanwhile."""
        with self._lock:
            generation = self._generation
            if not self._marked or self._writers or self.suspects:
                return not self._marked
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc_call("syncfs", fd)
        finally:
            os.close(fd)
        with self._lock:
            if generation != self._generation:
                return False
            self._marker.unlink(missing_ok=True)
            self._marked = False
        return True

    def verify(self) -> list[str]:
        """Hash every blob and remove the broken ones; gives their digests. Blocks for as long as that takes."""
        broken = []
        for digest in self.digests():
            found = hashlib.sha256()
            for chunk in self.chunks(digest):
                found.update(chunk)
            if "sha256:" + found.hexdigest() != digest:
                self.remove(digest)
                broken.append(digest)
        shutil.rmtree(self._partial)
        self._partial.mkdir(mode=0o700)
        self.suspects = False
        return broken


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
