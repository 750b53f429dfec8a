"""Volumes: directories that outlive containers, made by the one driver `local`.

A volume's data is `<data root>/volumes/<name>/_data`. With the driver's options (`type`, `o`, `device`:
tmpfs, nfs, a bind of another directory, any file system) that directory is where it gets mounted.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from bastide.engine.clock import now
from bastide.engine.events import Events
from bastide.engine.state import Store
from bastide.host.syscalls import blocking, run
from bastide.model.config import Settings
from bastide.model.container import Container, MountPoint
from bastide.model.errors import BastideError, Conflict, HostError, InvalidArgument, NotFound
from bastide.model.volume import Volume

log = logging.getLogger("bastide.engine")

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
"""What Docker marks volumes without a name of the user's with."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}")
_REMOVED = ".removed-"
# Which option asks for which others: moby volume/local, "mandatoryOpts".
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_OPTIONS = frozenset(("type", "o", "device"))


class Volumes:
    """The volumes of this daemon. `used` tells which containers (ids) use which volume (name)."""

    def __init__(
        self, settings: Settings, store: Store, events: Events, used: Callable[[], dict[str, list[str]]]
    ) -> None:
        self._root = settings.data_root / "volumes"
        self._table = store.table("volumes", Volume)
        self._events, self._used = events, used
        # Which containers hold a volume up. After a restart, until they end or go, all that name it may.
        self._holders = {name: set(ids) for name, ids in used().items()}
        self._clear_removed()

    def _clear_removed(self) -> None:
        """Finish removals that a crash broke off."""
        for left in self._root.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)

    def get(self, name: str) -> Volume:
        """The volume of that name. Raises NotFound."""
        found = self._table.get(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    def list(self) -> list[Volume]:
        """Every volume, by name."""
        return sorted(self._table.values(), key=lambda volume: volume.name)

    def anonymous(self, name: str) -> bool:
        """Whether the volume exists and has a made-up name."""
        found = self._table.get(name)
        return found is not None and found.anonymous

    def users(self) -> dict[str, Sequence[str]]:
        """Ids of the containers that use each volume, running or not."""
        return dict(self._used())

    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
        anonymous: bool = False,
    ) -> Volume:
        """A new volume, or the one of that name; without a name it is anonymous.

        Raises InvalidArgument (name, options), NotFound (driver), HostError, ResourceExhausted.
        """
        anonymous = anonymous or not name
        name = name or secrets.token_hex(32)
        if not _NAME.fullmatch(name):
            raise InvalidArgument(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        if (driver or "local") != "local":
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        _check_options(name, options or {})
        if (existing := self._table.get(name)) is not None:
            return existing
        data = self._root / name / "_data"
        await blocking(_make_directory, self._root, data)
        marks = {ANONYMOUS_LABEL: ""} if anonymous else {}
        volume = Volume(
            name=name,
            mountpoint=str(data),
            created_at=now(),
            labels=(labels or {}) | marks,
            options=options or None,
            anonymous=anonymous,
        )
        # Two creations of one name may both have come here: the first one's record stands.
        if (existing := self._table.get(name)) is not None:
            return existing
        self._table.put(name, volume)
        self._publish(volume, "create")
        return volume

    async def mount(self, name: str) -> Path:
        """Bring a volume up and give its directory; repeatable. Raises NotFound, HostError."""
        volume = self.get(name)
        path = Path(volume.mountpoint)
        if not path.is_dir():
            await blocking(_make_directory, self._root, path)
        options = volume.options or {}
        if options and not await blocking(is_mount_point, path):
            await _mount(options, path)
        return path

    async def unmount(self, name: str) -> None:
        """Take down what the options of a volume mounted; absent is no error. Raises HostError when it is busy."""
        volume = self._table.get(name)
        if volume is None or not volume.options:
            return
        path = Path(volume.mountpoint)
        if await blocking(is_mount_point, path):
            done = await run(["umount", "--", path])
            if done.code:
                raise HostError("umount", 16, f"{path} ({done.complaint})")

    def taken(self, container: Container) -> None:
        """A container has its volumes and is about to run."""
        for point in _volume_points(container):
            self._holders.setdefault(point.name, set()).add(container.id)
            self._tell(container, point, "mount")

    async def given_back(self, container: Container) -> None:
        """A container has ended: what only it held up is taken down."""
        for point in _volume_points(container):
            self._tell(container, point, "unmount")
        await self.let_go(container)

    async def let_go(self, container: Container) -> None:
        """Take down what only this container, which does not run, has brought up."""
        for point in _volume_points(container):
            holders = self._holders.get(point.name, set())
            holders.discard(container.id)
            if not holders:
                self._holders.pop(point.name, None)
                try:
                    await self.unmount(point.name)
                except HostError as error:
                    log.warning("volume %s stays mounted: %s", point.name, error.message)

    def _tell(self, container: Container, point: MountPoint, action: str) -> None:
        attributes = {"container": container.id, "driver": point.driver or "local"}
        if action == "mount":
            attributes |= {
                "destination": point.destination,
                "propagation": point.propagation,
                "read/write": "true" if point.rw else "false",
            }
        self._events.publish("volume", action, point.name, attributes)

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data; `force` takes an unknown name as removed. Raises NotFound, Conflict."""
        volume = self._table.get(name)
        if volume is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        if users := self._used().get(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        await self.unmount(name)
        aside = self._root / f"{_REMOVED}{secrets.token_hex(8)}"
        await blocking(_move_aside, self._root / name, aside)
        self._table.delete(name)
        self._publish(volume, "destroy")
        await blocking(shutil.rmtree, aside, ignore_errors=True)

    async def prune(self, chosen: Sequence[Volume]) -> tuple[Sequence[str], int]:
        """Remove those of `chosen` that no container uses; gives their names and the bytes that came free."""
        removed, freed = [], 0
        for volume in chosen:
            if self._used().get(volume.name) or volume.name not in self._table:
                continue
            size = await self.size(volume.name)
            await self.remove(volume.name)
            removed.append(volume.name)
            freed += size
        self._events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return removed, freed

    async def size(self, name: str) -> int:
        """Bytes of a volume's files; 0 for one that is mounted from elsewhere."""
        volume = self.get(name)
        return 0 if volume.options else await blocking(tree_size, Path(volume.mountpoint))

    def _publish(self, volume: Volume, action: str) -> None:
        self._events.publish("volume", action, volume.name, {"driver": volume.driver})


def _volume_points(container: Container) -> list[MountPoint]:
    return [point for point in container.mounts if point.type == "volume"]


def _check_options(name: str, options: dict[str, str]) -> None:
    """Raise InvalidArgument for options that the local driver does not know or that lack others."""
    for option, value in options.items():
        if option not in _OPTIONS:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
        if "\0" in value or "\n" in value:
            raise InvalidArgument(f'create {name}: invalid value of option "{option}"')
        for needed in _NEEDS[option]:
            if not options.get(needed):
                raise InvalidArgument(f'create {name}: missing required option: "{needed}"')


def _make_directory(root: Path, data: Path) -> None:
    root.mkdir(mode=0o711, exist_ok=True)
    data.parent.mkdir(mode=0o711, exist_ok=True)
    data.mkdir(mode=0o755, exist_ok=True)


def _move_aside(path: Path, aside: Path) -> None:
    if path.exists():
        path.rename(aside)


def is_mount_point(path: Path) -> bool:
    """Whether something is mounted at `path`; sees binds within one file system too (proc(5), mountinfo)."""
    wanted = os.path.realpath(path).encode()
    with open("/proc/self/mountinfo", "rb") as table:
        return any(_unescape(line.split(b" ", 5)[4]) == wanted for line in table)


def _unescape(field: bytes) -> bytes:
    """Spaces and the like are written as octal numbers in mountinfo."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)


async def _mount(options: dict[str, str], path: Path) -> None:
    argv: list[str | Path] = ["mount", "--types", options.get("type") or "none"]
    if words := options.get("o"):
        argv += ["--options", words]
    done = await run([*argv, "--", options["device"], path])
    if done.code:
        # The first line is what mount(8) has to say, a hint at the kernel's log may follow.
        said = done.stderr.decode(errors="replace").partition("\n")[0].removeprefix(f"mount: {path}: ").rstrip(".")
        # The options stay out of it: cifs takes a password there.
        what = f"mount {options['device']} as type {options.get('type') or 'none'}"
        raise BastideError(f"error while mounting volume '{path}': {what}: {said or done.complaint}")


def tree_size(path: Path) -> int:
    """Bytes of the files below a directory, as their sizes say; links are not followed, hard links count once."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(path)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif found.st_nlink < 2 or (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        total += found.st_size
        except FileNotFoundError:
            continue
    return total
