"""The erofs snapshotter: for walls that want disks. A list of layers becomes one read-only image.

Below `data_root/erofs`: `images/<digest of the diff ids>.erofs` is the joined view of the layers that the
base snapshotter unpacked; `snapshots/<key>/` holds `upper`, the VM's own writable ext4, and `layers`; `blank`
is that ext4 empty, copied for each snapshot; `staging` what is not finished, `trash` what is to be deleted.
All disks are sparse and have the sizes that VM templates are made with.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from bastide.host.syscalls import blocking, run
from bastide.host.trees import Trash
from bastide.hypervisor import disks
from bastide.model.config import Settings
from bastide.model.errors import HostError, InvalidArgument, NotFound, ResourceExhausted, Unsupported
from bastide.model.process import DiskRoot
from bastide.storage import Info, Snapshotter, Trees, Usage

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_SMALLEST = 16 << 20
"""The least that a writable file system is made with, in bytes."""
_NAMESPACE = uuid.UUID("6e9cbb8a-1d0e-5c7c-9d5c-b1d5a5d1f5e0")


class Erofs(Snapshotter, name="erofs"):
    """Snapshotter over the base's layers."""

    def __init__(self, settings: Settings, base: Snapshotter | None = None) -> None:
        super().__init__(settings, base)
        self._home = settings.data_root / "erofs"
        self._images, self._snapshots = self._home / "images", self._home / "snapshots"
        self._staging = self._home / "staging"
        self._trash = Trash(self._home / "trash")
        self._building: dict[str, asyncio.Task[None]] = {}
        self._blank: asyncio.Task[None] | None = None
        self._ready = False

    def _open(self) -> None:
        """Make the folders and sweep what a crash left; once a process."""
        if self._ready:
            return
        for folder in (self._images, self._snapshots, self._staging):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._trash.open()
        for path in self._staging.iterdir():
            self._trash.put(path)
        self._collect()
        self._ready = True

    @property
    def _layers(self) -> Snapshotter:
        """Who unpacks layers. Raises Unsupported when this object was made without one."""
        if self.base is None:
            raise Unsupported("the erofs snapshotter needs another one that unpacks layers")
        return self.base

    async def probe(self) -> str:
        """Looks for the two programs and asks the base."""
        for program, package in (("mkfs.erofs", "erofs-utils"), ("mke2fs", "e2fsprogs")):
            if shutil.which(program) is None:
                return f"{program} is not installed: apt-get install {package}"
        return await self._layers.probe() if self.base is not None else "no snapshotter that unpacks layers"

    # -- layers: the base's --------------------------------------------------------------------

    def layer(self, diff_id: str) -> AbstractAsyncContextManager[Path | None]:
        """See the contract; the base keeps layers."""
        return self._layers.layer(diff_id)

    def has(self, diff_id: str) -> bool:
        """See the contract; the base keeps layers."""
        return self._layers.has(diff_id)

    # -- images --------------------------------------------------------------------------------

    def image(self, layers: Sequence[str]) -> Path:
        """Where the image of these layers is, or would be."""
        return self._images / f"{hashlib.sha256(' '.join(layers).encode()).hexdigest()}.erofs"

    async def _image(self, layers: Sequence[str]) -> Path:
        """The image of these layers, made if need be; who asks meanwhile waits for the same making."""
        path = self.image(layers)
        if path.exists():
            return path
        task = self._building.get(path.name)
        if task is None:
            task = asyncio.create_task(self._build(path, layers))
            self._building[path.name] = task
            task.add_done_callback(lambda _: self._building.pop(path.name, None))
        await asyncio.shield(task)
        return path

    async def _build(self, path: Path, layers: Sequence[str]) -> None:
        base = self._layers
        if not isinstance(base, Trees):
            raise Unsupported(f"the erofs snapshotter cannot read layers of {base.name}")
        key = f"erofs-{path.stem[:16]}-{os.urandom(4).hex()}"
        made = self._staging / f"{path.stem}-{os.urandom(4).hex()}"
        try:
            tree = await base.view(key, layers)
            done = await run(
                [
                    "mkfs.erofs",
                    *("-U", str(uuid.uuid5(_NAMESPACE, path.stem))),
                    *("-x", "1"),
                    *("--preserve-mtime", "--quiet"),
                    made,
                    tree,
                ],
                timeout=1800,
            )
            if done.code:
                full = "No space left" in done.complaint
                kind = ResourceExhausted if full else Unsupported
                raise kind(f"mkfs.erofs cannot make the image's disk: {done.complaint}")
            await blocking(os.truncate, made, disks.BASE_SIZE)
            made.chmod(0o444)
            path.with_suffix(".layers").write_text("\n".join(layers) + "\n")
            made.rename(path)
        finally:
            made.unlink(missing_ok=True)
            await base.unmount(key)
            await base.remove(key)

    # -- snapshots -----------------------------------------------------------------------------

    def _snapshot(self, key: str) -> Path:
        if not _KEY.match(key):
            raise InvalidArgument(f"invalid snapshot name {key!r}")
        return self._snapshots / key

    def _below(self, key: str) -> list[str]:
        try:
            return (self._snapshot(key) / "layers").read_text().split()
        except FileNotFoundError as error:
            raise NotFound(f"no such snapshot: {key}") from error

    async def prepare(self, key: str, layers: Sequence[str], *, size: int = 0) -> DiskRoot:
        """See the contract. `size` bounds the writable file system."""
        place = self._snapshot(key)
        if size and not _SMALLEST <= size <= disks.UPPER_SIZE:
            raise InvalidArgument(f"storage option size must be between 16 MB and 64 GB for a VM, not {size}")
        if missing := [diff_id for diff_id in layers if not self.has(diff_id)]:
            raise NotFound(f"layer {missing[0]} is not there: pull the image again")
        await blocking(self._open)
        base = await self._image(layers)
        if place.exists():
            return DiskRoot(base=base, upper=place / "upper")
        if self._blank is None:
            self._blank = asyncio.create_task(self._format())
        await asyncio.shield(self._blank)
        staged = self._staging / f"{key}-{os.urandom(4).hex()}"
        try:
            await blocking(lambda: staged.mkdir(mode=0o700))
            (staged / "layers").write_text("\n".join(layers) + "\n")
            if size:
                await disks.format_upper(staged / "upper", size)
                await blocking(os.truncate, staged / "upper", disks.UPPER_SIZE)
            else:
                await blocking(disks.copy_sparse, self._home / "blank", staged / "upper")
                disks.mark_fresh(staged / "upper")
            await blocking(staged.rename, place)
        except BaseException:
            self._trash.put(staged)
            raise
        return DiskRoot(base=base, upper=place / "upper")

    async def _format(self) -> None:
        """The empty writable disk, once for ever."""
        blank = self._home / "blank"
        if blank.exists():
            return
        made = self._staging / f"blank-{os.urandom(4).hex()}"
        await disks.format_upper(made)
        await blocking(made.rename, blank)

    async def mount(self, key: str) -> DiskRoot:
        """See the contract: a hypervisor opens the disks itself, so that nothing is mounted."""
        layers = self._below(key)
        await blocking(self._open)
        return DiskRoot(base=await self._image(layers), upper=self._snapshot(key) / "upper")

    async def unmount(self, key: str) -> None:
        """See the contract: nothing is mounted."""

    async def remove(self, key: str) -> None:
        """See the contract. Disks whose layers are gone, whoever removed those, go too."""
        if key.startswith("sha256:"):
            await self._layers.remove(key)
        elif (place := self._snapshot(key)).exists():
            self._trash.put(place)
        await self.collect_disks()

    def disk_size(self, layers: Sequence[str]) -> int:
        """See Disks."""
        return _allocated(self.image(layers))

    async def collect_disks(self) -> int:
        """See Disks."""
        return await blocking(self._collect)

    def _collect(self) -> int:
        """Remove the disks that no snapshot stands on and whose layers are gone; `<disk>.layers` names those."""
        freed = 0
        used = {self.image(note.read_text().split()) for note in self._snapshots.glob("*/layers")}
        for note in self._images.glob("*.layers"):
            disk = note.with_suffix(".erofs")
            if disk not in used and not all(self.has(diff_id) for diff_id in note.read_text().split()):
                freed += _allocated(disk)
                disk.unlink(missing_ok=True)
                note.unlink(missing_ok=True)
        return freed

    async def duplicate(self, key: str, new: str) -> DiskRoot:
        """See Duplicating."""
        layers, place = self._below(key), self._snapshot(new)
        await blocking(self._open)
        staged = self._staging / f"{new}-{os.urandom(4).hex()}"
        try:
            await blocking(lambda: staged.mkdir(mode=0o700))
            (staged / "layers").write_text("\n".join(layers) + "\n")
            await blocking(disks.copy_sparse, self._snapshot(key) / "upper", staged / "upper")
            await blocking(staged.rename, place)
        except BaseException:
            self._trash.put(staged)
            raise
        return await self.mount(new)

    async def usage(self, key: str) -> Usage:
        """See the contract: the allocated bytes of the writable disk."""
        if key.startswith("sha256:"):
            return await self._layers.usage(key)
        self._below(key)
        try:
            info = (self._snapshot(key) / "upper").stat()
        except OSError as error:
            raise HostError("stat", error.errno or 5, self._snapshot(key) / "upper") from error
        return Usage(size=info.st_blocks * 512, inodes=1)

    async def walk(self) -> AsyncIterator[Info]:
        """See the contract: own snapshots; layers are the base's to list."""
        if self._snapshots.is_dir():
            for name in sorted(os.listdir(self._snapshots)):
                with contextlib.suppress(NotFound):
                    yield Info(key=name, committed=False, layers=tuple(self._below(name)))


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
