"""The Snapshotter contract: file system state over layers.

A layer is one uncompressed layer tarball unpacked into its own place and named by its diff id
(`sha256:…`); layers are shared by every image that has them. A snapshot is a writable file system
over a list of layers, named by the container's id; `prepare` makes it, `mount` brings it up (again
after a reboot), `unmount` takes it down, `remove` forgets it.

Unpacked form of a deletion is the overlay's own: a 0/0 character device for a whiteout,
`trusted.overlay.opaque=y` on a directory for an opaque one.

Rules that every snapshotter keeps, checked by `tests/contract/test_snapshotter.py`:
- what `layer` did not finish does not exist; what it finished survives SIGKILL and is never rewritten;
- every verb can be repeated; `unmount` and `remove` of something absent are no errors;
- `remove` is quick: trees are moved aside and deleted off the hot path.
"""

from __future__ import annotations

import abc
import importlib
import inspect
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from bastide.model.config import Settings
from bastide.model.errors import InvalidArgument
from bastide.model.process import Root, Struct


class Usage(Struct, frozen=True, kw_only=True):
    """Disk use: bytes allocated and inodes."""

    size: int = 0
    inodes: int = 0


class Info(Struct, frozen=True, kw_only=True):
    """A layer or snapshot that exists. `layers` are the diff ids below a snapshot."""

    key: str
    committed: bool
    layers: tuple[str, ...] = ()


_FILES = {"overlay": "overlay", "erofs": "erofs"}


class Snapshotter(abc.ABC):
    """Nine verbs; `base` gives the snapshotter that unpacks for those who build on unpacked layers."""

    name: ClassVar[str]
    registry: ClassVar[dict[str, type[Snapshotter]]] = {}

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name and not inspect.isabstract(cls):
            cls.name = name
            Snapshotter.registry[name] = cls

    def __init__(self, settings: Settings, base: Snapshotter | None = None) -> None:
        self.settings = settings
        self.base = base

    @abc.abstractmethod
    async def probe(self) -> str:
        """Empty when it works here, else one line that says why not and what to do."""

    @abc.abstractmethod
    def layer(self, diff_id: str) -> AbstractAsyncContextManager[Path | None]:
        """An empty directory to unpack the layer into; committed when the block ends well, gone when not.

        Gives None when the layer exists already (another pull finished it): nothing to unpack.
        """

    @abc.abstractmethod
    def has(self, diff_id: str) -> bool:
        """Whether the layer is there, whole."""

    @abc.abstractmethod
    async def prepare(self, key: str, layers: Sequence[str], *, size: int = 0) -> Root:
        """Make a writable snapshot and mount it. `size`: limit in bytes, 0 for none.

        Raises NotFound (a layer is missing), ResourceExhausted, HostError.
        """

    @abc.abstractmethod
    async def mount(self, key: str) -> Root:
        """Bring an existing snapshot up; gives the same root as `prepare`. Repeatable."""

    @abc.abstractmethod
    async def unmount(self, key: str) -> None:
        """Take a snapshot down; its content stays."""

    @abc.abstractmethod
    async def remove(self, key: str) -> None:
        """Forget a snapshot (by container id) or a layer (by diff id) that nothing uses."""

    @abc.abstractmethod
    async def usage(self, key: str) -> Usage:
        """What the snapshot holds beyond its layers, or what a layer holds."""

    @abc.abstractmethod
    def walk(self) -> AsyncIterator[Info]:
        """Every layer and snapshot that exists."""


@runtime_checkable
class Trees(Protocol):
    """Snapshotters whose snapshots are directories on the host."""

    async def changes(self, key: str) -> list[tuple[int, str]]:
        """What differs from the layers: `(0 changed | 1 added | 2 deleted, path)`, sorted by path."""

    async def view(self, key: str, layers: Sequence[str]) -> Path:
        """A read-only mount of `layers`; taken down by `unmount(key)`, forgotten by `remove(key)`."""

    def upper(self, key: str) -> Path:
        """The directory that holds what the snapshot changed, in the overlay's form."""


@runtime_checkable
class Duplicating(Protocol):
    """Snapshotters that can copy a snapshot."""

    async def duplicate(self, key: str, new: str) -> Root:
        """A second snapshot with the same layers and a copy of what `key` changed; mounted."""


@runtime_checkable
class Disks(Protocol):
    """Snapshotters that make one disk of some layers, for all snapshots of them."""

    def disk_size(self, layers: Sequence[str]) -> int:
        """Bytes allocated by the disk of these layers; 0 when there is none. Blocks."""

    async def collect_disks(self) -> int:
        """Remove the disks whose layers are gone; gives the bytes freed."""


def snapshotters() -> Sequence[str]:
    """The names of all snapshotters."""
    return tuple(_FILES)


def load(name: str) -> type[Snapshotter]:
    """The class of a snapshotter. Raises InvalidArgument for an unknown name."""
    if name not in _FILES:
        raise InvalidArgument(f"unknown snapshotter {name!r}: choose one of {', '.join(_FILES)}")
    if name not in Snapshotter.registry:
        importlib.import_module(f"bastide.storage.{_FILES[name]}")
    return Snapshotter.registry[name]
