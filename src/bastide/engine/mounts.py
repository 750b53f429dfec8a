"""Mounts of a container: what was asked for in three notations, resolved once, made anew at each start."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from bastide.engine.identity import new_id
from bastide.engine.volumes import Volumes
from bastide.model import process
from bastide.model.container import Config, Container, HostConfig, Mount, MountPoint, VolumeOptions
from bastide.model.errors import Conflict, InvalidArgument, NotFound

_PROPAGATION = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_MODES = {"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"}


def _target(path: str) -> str:
    """A mount's target, cleaned. Raises InvalidArgument for a relative one or the root."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"invalid mount config: mount path must be absolute: {path!r}")
    clean = posixpath.normpath(path).replace("//", "/")
    if clean == "/":
        raise InvalidArgument("invalid mount config: destination can't be '/'")
    return clean


def parse_bind(text: str) -> Mount:
    """`SOURCE:TARGET[:OPTIONS]` as a Mount; a source that is no path is a volume's name."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target, options = parts[0], parts[1], parts[2].split(",") if len(parts) == 3 else []
    if unknown := [word for word in options if word not in _PROPAGATION | _MODES]:
        raise InvalidArgument(f"invalid mode: {','.join(unknown)}")
    read_only = "ro" in options
    if not source.startswith("/"):
        if set(options) & _PROPAGATION:
            raise InvalidArgument(f"invalid volume specification: '{text}': propagation is for bind mounts")
        return Mount(
            type="volume",
            source=source,
            target=target,
            read_only=read_only,
            volume_options=VolumeOptions(no_copy="nocopy" in options),
        )
    return Mount(type="bind", source=source, target=target, read_only=read_only, consistency=",".join(options))


class Resolver:
    """Turns a container's wishes into mount points; makes the volumes that they need."""

    def __init__(self, volumes: Volumes, find: Callable[[str], Container]) -> None:
        self._volumes, self._find = volumes, find

    async def resolve(self, config: Config, host: HostConfig, made: list[str]) -> list[MountPoint]:
        """The mount points, the user's before the image's. Names of volumes made here are added to `made`."""
        points: dict[str, MountPoint] = {}
        for wanted in host.volumes_from or []:
            for point in self._inherited(wanted):
                points[point.destination] = point
        asked: set[str] = set()
        binds = [(parse_bind(text), True) for text in host.binds or []]
        for mount, from_bind in binds + [(mount, False) for mount in host.mounts or []]:
            target = _target(mount.target)
            if target in asked:
                raise InvalidArgument(f"Duplicate mount point: {target}")
            asked.add(target)
            points[target] = await self._point(mount, target, host, made, create_source=from_bind)
        for target in config.volumes or {}:
            clean = _target(target)
            if clean not in points and clean not in (host.tmpfs or {}):
                points[clean] = await self._volume(Mount(type="volume"), clean, host, made)
        return list(points.values())

    def _inherited(self, wanted: str) -> Iterable[MountPoint]:
        """The volumes and binds of another container (`ID[:ro|rw]`)."""
        name, _, mode = wanted.partition(":")
        if mode not in ("", "ro", "rw", "z", "Z"):
            raise InvalidArgument(f"invalid mode: {mode}")
        for point in self._find(name).mounts:
            if point.type in ("bind", "volume"):
                yield point if mode != "ro" else _replace(point, rw=False, mode="ro")

    async def _point(
        self, mount: Mount, target: str, host: HostConfig, made: list[str], *, create_source: bool
    ) -> MountPoint:
        if mount.type == "bind":
            return _bind_point(mount, target, create_source=create_source)
        if mount.type == "volume":
            return await self._volume(mount, target, host, made)
        if mount.type == "tmpfs":
            if mount.source:
                raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
            return MountPoint(type="tmpfs", destination=target, rw=not mount.read_only)
        raise InvalidArgument(f'invalid mount config for type "{mount.type}": mount type unknown')

    async def _volume(self, mount: Mount, target: str, host: HostConfig, made: list[str]) -> MountPoint:
        options = mount.volume_options or VolumeOptions()
        driver = options.driver_config
        name = mount.source or new_id()
        known = True
        try:
            volume = self._volumes.get(name)
        except NotFound:
            known = False
            volume = await self._volumes.create(
                name,
                driver=(driver.name if driver else "") or host.volume_driver or "local",
                options=(driver.options if driver else None) or {},
                labels=options.labels or {},
                anonymous=not mount.source,
            )
        if not known:
            made.append(volume.name)
        return MountPoint(
            type="volume",
            name=volume.name,
            source=volume.mountpoint,
            destination=target,
            driver=volume.driver,
            mode="" if not mount.read_only else "ro",
            rw=not mount.read_only,
        )


def _bind_point(mount: Mount, target: str, *, create_source: bool) -> MountPoint:
    source = Path(mount.source)
    if not source.is_absolute():
        raise InvalidArgument(
            f"invalid mount config for type \"bind\": invalid mount path: '{source}' must be absolute"
        )
    options = mount.bind_options
    if not source.exists():
        if not create_source and not (options and options.create_mountpoint):
            raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {source}')
        source.mkdir(parents=True, exist_ok=True)
    words = mount.consistency.split(",") if mount.consistency else []
    propagation = (options.propagation if options else "") or next(
        (word for word in words if word in _PROPAGATION), "rprivate"
    )
    if propagation not in _PROPAGATION:
        raise InvalidArgument(f'invalid mount config for type "bind": invalid propagation mode: {propagation}')
    return MountPoint(
        type="bind",
        source=str(source),
        destination=target,
        mode=",".join(word for word in words if word not in _PROPAGATION),
        rw=not mount.read_only,
        propagation=propagation,
    )


def _replace(point: MountPoint, *, rw: bool, mode: str) -> MountPoint:
    return msgspec.structs.replace(point, rw=rw, mode=mode)


def _tmpfs(target: str, options: str) -> process.Mount:
    words = [word for word in options.split(",") if word]
    defaults = [word for word in ("noexec", "nosuid", "nodev") if word.removeprefix("no") not in words]
    return process.Mount(
        kind="tmpfs",
        target=_target(target),
        options=tuple(dict.fromkeys(defaults + [word for word in words if word not in ("ro", "rw")])),
        read_only="ro" in words,
    )


def _tmpfs_mount(mount: Mount, target: str) -> process.Mount:
    options = mount.tmpfs_options
    words = ["noexec", "nosuid", "nodev"]
    if options and options.size_bytes:
        words.append(f"size={options.size_bytes}")
    if options and options.mode:
        words.append(f"mode={options.mode:o}")
    for pair in (options.options if options else None) or []:
        words.append("=".join(pair))
    return process.Mount(kind="tmpfs", target=target, options=tuple(words), read_only=mount.read_only)


async def for_bundle(container: Container, volumes: Volumes) -> tuple[process.Mount, ...]:
    """The mounts to make now, parents before children. Volumes are brought up on the host.

    Raises NotFound or Conflict when a source has gone since the container was made.
    """
    host = container.host_config
    asked = {_target(mount.target): mount for mount in host.mounts or []}
    mounts = [_tmpfs(target, options) for target, options in (host.tmpfs or {}).items()]
    for point in container.mounts:
        wish = asked.get(point.destination)
        if point.type == "tmpfs":
            mounts.append(_tmpfs_mount(wish or Mount(), point.destination))
            continue
        options: tuple[str, ...] = ("rbind",)
        if point.type == "volume":
            source = await volumes.mount(point.name)
            subpath = wish.volume_options.subpath if wish and wish.volume_options else ""
            if subpath:
                options = ("rbind", f"x-subpath={subpath}")
        else:
            source = Path(point.source)
            if not source.exists():
                raise Conflict(f"bind source path does not exist: {source}")
            if wish and wish.bind_options and wish.bind_options.non_recursive:
                options = ("bind",)
            if wish and wish.bind_options and wish.bind_options.read_only_non_recursive:
                options = (*options, "ro-non-recursive")
        mounts.append(
            process.Mount(
                kind="bind",
                target=point.destination,
                source=source,
                options=options,
                read_only=not point.rw,
                propagation=point.propagation,
            )
        )
    return tuple(sorted(mounts, key=lambda mount: mount.target.count("/")))
