"""Files in and out of a container (`cp`, `export`, `diff`): by descriptors below its root, never by host names."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from bastide.engine.backends import Backends
from bastide.engine.reach import Reach
from bastide.host.paths import open_in, root_of
from bastide.host.syscalls import blocking, stream
from bastide.images.archive import Owner, unpack_into
from bastide.model.container import Container
from bastide.model.errors import HostError, InvalidArgument, NotFound, Unsupported
from bastide.model.filemode import go_mode
from bastide.model.process import DirectoryRoot
from bastide.runtime import Feature, Files, users
from bastide.storage import Trees

_CHUNK = 256 << 10
_CHANGED, _ADDED = 0, 1

MOUNT_TARGETS = frozenset(
    ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/dev/console", "/dev/pts", "/dev/shm", "/proc", "/sys")
)
"""Made in a container's own layer by its start where the image has none; no change of the user's."""


def _missing(container: Container, path: str) -> NotFound:
    return NotFound(f"Could not find the file {path} in container {container.name}")


class FileAccess:
    """The same four calls for every wall: through the host's view of the root, or through the guest."""

    def __init__(self, backends: Backends, reach: Reach) -> None:
        self._backends, self._reach = backends, reach

    @asynccontextmanager
    async def _root(self, container: Container, path: str, *, image_only: bool) -> AsyncIterator[tuple[Path, str]]:
        """The tree that holds `path`, and the path in it.

        A running container shows its own view, mounts included; a stopped one its root or, below a
        volume or bind mount, that mount's source.
        """
        clean = "/" + str(PurePosixPath("/" + path)).lstrip("/")
        runtime = self._backends.runtime(container.runtime)
        async with self._reach.held(container) as present:
            if present.state.running and not image_only and Feature.HOST_VIEW in runtime.features:
                yield Path(f"/proc/{present.state.pid}/root"), clean
                return
            for point in [] if image_only else sorted(present.mounts, key=lambda p: -len(p.destination)):
                inside = clean == point.destination or clean.startswith(point.destination + "/")
                if inside and point.type in ("bind", "volume"):
                    async with self._reach.volumes(present):
                        yield Path(point.source), clean[len(point.destination) :] or "/"
                    return
            async with self._reach.root(present) as root:
                if not isinstance(root, DirectoryRoot):
                    raise Unsupported(f"isolation {present.isolation} keeps its files on a disk of its own")
                yield root.path, clean

    @asynccontextmanager
    async def _asked(self, container: Container, guest: Files, path: str) -> AsyncIterator[None]:
        """The guest can be asked; what it does not have is missed in Docker's words."""
        async with self._reach.reached(container, guest):
            try:
                yield
            except NotFound as error:
                raise _missing(container, path) from error

    async def stat(self, container: Container, path: str) -> dict[str, Any]:
        """`name`, `size`, `mode` (Go's), `mtime`, `linkTarget`. Raises NotFound."""
        if guest := self._reach.guest(container):
            async with self._asked(container, guest, path):
                return await guest.stat_path(container.id, path)
        async with self._root(container, path, image_only=False) as (root, inner):
            try:
                return await blocking(_describe, root, inner, path)
            except HostError as error:
                raise _missing(container, path) from error

    async def archive(self, container: Container, path: str, *, whole: bool = False) -> AsyncIterator[bytes]:
        """A tar stream of `path`, named by its last component; `whole`: the root's entries. Raises NotFound."""
        if guest := self._reach.guest(container):
            async with (
                self._asked(container, guest, path),
                aclosing(guest.get_archive(container.id, path)) as packed,  # type: ignore[type-var]
            ):
                async for piece in packed:
                    yield piece
            return
        async with self._root(container, path, image_only=whole) as (root, inner):
            parent, name = ("/", "") if inner == "/" else os.path.split(inner.rstrip("/"))
            try:
                handle = await blocking(open_in_root, root, parent, os.O_RDONLY | os.O_DIRECTORY)
            except HostError as error:
                raise _missing(container, path) from error
            try:
                if name and not await blocking(_exists, handle, name):
                    raise _missing(container, path)
                entries = [name] if name else (sorted(os.listdir(handle)) if whole else ["."])
                # Whoever leaves early ends the program, too.
                async with aclosing(_tar(handle, entries)) as packed:  # type: ignore[type-var]
                    async for piece in packed:
                        yield piece
            finally:
                os.close(handle)

    async def unpack(
        self,
        container: Container,
        path: str,
        data: AsyncIterator[bytes],
        *,
        no_overwrite_dir: bool,
        as_user: bool = False,
    ) -> None:
        """Unpack a tar stream into the directory `path`.

        `as_user`: all of it belongs to the container's user, where it names one. Raises NotFound, InvalidArgument.
        """
        _check_writable(container, path)
        user = container.config.user if as_user else ""
        if guest := self._reach.guest(container):
            async with self._asked(container, guest, path):
                await guest.put_archive(container.id, path, data, no_overwrite_dir=no_overwrite_dir, owner=user)
            return
        async with self._root(container, path, image_only=False) as (root, inner):
            try:
                handle = await blocking(open_in_root, root, inner, os.O_RDONLY)
            except HostError as error:
                raise _missing(container, path) from error
            try:
                if not stat.S_ISDIR(os.fstat(handle).st_mode):
                    raise InvalidArgument(f"extraction point is not a directory: {path}")
                owner = await blocking(_owner, root, user) if user else None
                await unpack_into(root, inner, data, no_overwrite_dir=no_overwrite_dir, owner=owner)
            finally:
                os.close(handle)

    async def changes(self, container: Container) -> list[tuple[int, str]]:
        """What differs from the image."""
        snapshotter = self._backends.snapshotter(container.snapshotter)
        if isinstance(snapshotter, Trees):
            return without_mount_targets(await snapshotter.changes(container.id))
        guest = self._reach.guest(container)
        if guest is None:
            raise Unsupported(f"isolation {container.isolation} cannot tell what changed")
        async with self._reach.reached(container, guest):
            return await guest.changes(container.id)


def without_mount_targets(found: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Changes less the places that every start makes to mount on, and the folders that only these changed."""
    own = [(kind, path) for kind, path in found if not (kind == _ADDED and path in MOUNT_TARGETS)]
    folders = {path.rpartition("/")[0] for path in MOUNT_TARGETS} & {path for kind, path in own if kind == _CHANGED}
    idle = {
        folder
        for folder in folders
        if (_CHANGED, folder) in own and not any(path.startswith(f"{folder}/") for _, path in own)
    }
    return [(kind, path) for kind, path in own if not (kind == _CHANGED and path in idle)]


def open_in_root(root: Path, path: str, flags: int) -> int:
    """Open `path` in the tree `root` as a process in it would see it. Raises OSError."""
    with root_of(root) as top:
        return open_in(top, path, flags)


def _owner(root: Path, user: str) -> Owner:
    """The ids of a container's user, by the container's own files."""
    with root_of(root) as top:
        found = users.resolve(top, user)
    return Owner(found.uid, found.gid)


def _check_writable(container: Container, path: str) -> None:
    """Whether a container may have files put at `path`. Raises InvalidArgument in Docker's words."""
    clean = "/" + str(PurePosixPath("/" + path)).lstrip("/")
    for point in sorted(container.mounts, key=lambda p: -len(p.destination)):
        if point.type in ("bind", "volume") and PurePosixPath(clean).is_relative_to(point.destination):
            if not point.rw:
                raise InvalidArgument("mounted volume is marked read-only")
            return
    if container.host_config.readonly_rootfs:
        raise InvalidArgument("container rootfs is marked read-only")


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _describe(root: Path, inner: str, shown: str) -> dict[str, Any]:
    parent, name = os.path.split(inner.rstrip("/")) if inner != "/" else ("/", ".")
    handle = open_in_root(root, parent or "/", os.O_PATH | os.O_DIRECTORY)
    try:
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        link = os.readlink(name, dir_fd=handle) if stat.S_ISLNK(found.st_mode) else ""
    finally:
        os.close(handle)
    if shown.endswith("/") and not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(20, os.strerror(20), shown)
    stamp = datetime.fromtimestamp(found.st_mtime, tz=UTC)
    return {
        "name": "/" if name == "." else name,
        "size": found.st_size,
        "mode": go_mode(found.st_mode),
        "mtime": stamp.isoformat().replace("+00:00", "Z"),
        "linkTarget": link,
    }


def _tar(directory: int, names: list[str]) -> AsyncIterator[bytes]:
    """GNU tar's stream of `names` below an open directory; it walks by descriptors and follows no link."""
    return stream(
        [
            "tar",
            "--create",
            "--file=-",
            "--format=pax",
            "--pax-option=delete=atime,delete=ctime",
            "--numeric-owner",
            "--xattrs",
            "--warning=none",
            f"--directory=/proc/self/fd/{directory}",
            "--",
            *names,
        ],
        pass_fds=[directory],
        chunk=_CHUNK,
    )
