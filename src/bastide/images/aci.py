"""App Container Images (`.aci`, rkt's format) as images of one layer: appc spec 0.8, "App Container Image".

An archive with the file `manifest` and the root file system below `rootfs/`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from bastide.images import pack
from bastide.images.archive import clean
from bastide.images.decoding import decode
from bastide.images.tar import Entry, Kind, MalformedArchive, Reader, shown
from bastide.model.errors import InvalidArgument, Unsupported

MANIFEST = "manifest"
_ROOT = b"rootfs"
_ZEROS = bytes(1 << 16)
_TYPES = {
    Kind.FILE: stat.S_IFREG,
    Kind.LINK: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}
_ARCHITECTURES = {
    "i386": ("386", ""),
    "aarch64": ("arm64", ""),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
}


class _Pair(msgspec.Struct, frozen=True):
    name: str
    value: str = ""


class _Port(msgspec.Struct, frozen=True):
    name: str = ""
    port: int = 0
    protocol: str = "tcp"


class _MountPoint(msgspec.Struct, frozen=True):
    name: str = ""
    path: str = ""


class _App(msgspec.Struct, frozen=True, rename="camel"):
    exec: list[str] | None = None
    user: str = ""
    group: str = ""
    environment: list[_Pair] | None = None
    working_directory: str = ""
    ports: list[_Port] | None = None
    mount_points: list[_MountPoint] | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """An image manifest of the appc specification; unknown fields are passed over, as it asks."""

    ac_kind: str
    name: str
    labels: list[_Pair] | None = None
    app: _App | None = None
    annotations: list[_Pair] | None = None
    dependencies: list[Any] | None = None
    path_whitelist: list[str] | None = None

    def label(self, name: str) -> str:
        """The value of a label, "" for none."""
        return next((pair.value for pair in self.labels or [] if pair.name == name), "")

    @property
    def reference(self) -> str:
        """The name to load it by."""
        return f"{self.name}:{self.label('version') or 'latest'}"


def parse(data: bytes) -> Manifest:
    """A manifest. Raises InvalidArgument, Unsupported for images that need others."""
    found = decode(data, Manifest, "manifest of the ACI is malformed")
    if found.ac_kind != "ImageManifest":
        raise InvalidArgument(f"manifest of the ACI is of kind {found.ac_kind[:100]!r}, not ImageManifest")
    if found.dependencies or found.path_whitelist:
        raise Unsupported(f"ACI {found.name} stands on other images: flatten it first")
    if found.app and any(who.startswith("/") for who in (found.app.user, found.app.group)):
        raise Unsupported(f"ACI {found.name} takes its user from a file's owner: name the user instead")
    return found


def configuration(manifest: Manifest) -> dict[str, Any]:
    """The image configuration but rootfs and history. Raises Unsupported for other systems than Linux."""
    if manifest.label("os") not in ("", "linux"):
        raise Unsupported(f"ACI {manifest.name} is for {manifest.label('os')}")
    architecture, variant = _ARCHITECTURES.get(manifest.label("arch"), (manifest.label("arch") or "amd64", ""))
    app = manifest.app or _App()
    labels = {pair.name: pair.value for pair in manifest.annotations or [] if pair.name not in ("created", "authors")}
    notes = {pair.name: pair.value for pair in manifest.annotations or []}
    config: dict[str, Any] = {
        "Entrypoint": app.exec,
        "User": f"{app.user}:{app.group}" if app.group and app.user else app.user,
        "Env": [f"{pair.name}={pair.value}" for pair in app.environment or []],
        "WorkingDir": app.working_directory,
        "ExposedPorts": {f"{port.port}/{port.protocol}": {} for port in app.ports or []} or None,
        "Volumes": {point.path: {} for point in app.mount_points or []} or None,
        "Labels": labels or None,
    }
    document: dict[str, Any] = {"architecture": architecture, "os": "linux", "config": config}
    if variant:
        document["variant"] = variant
    if "authors" in notes:
        document["author"] = notes["authors"]
    return document


def layer(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The root file system as a layer of its own, from the archive. Raises MalformedArchive."""
    reader = Reader(chunks)
    for entry in reader:
        name = _inside(entry.name)
        if name is None:
            continue
        link = entry.link
        if entry.kind is Kind.LINK:
            target = _inside(link)
            if not target:
                raise MalformedArchive(f"ACI has a hard link out of its root file system: {shown(entry.name)}")
            link = target
        yield pack.header(
            name or b"./",
            mode=_TYPES[entry.kind] | entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=entry.size,
            mtime=entry.mtime,
            link=link,
            hard=entry.kind is Kind.LINK,
            device=(entry.major, entry.minor),
            xattrs=reader.xattrs,
        )
        if entry.kind is Kind.FILE:
            yield from _data(entry, reader)
            yield pack.padding(entry.size)
    yield pack.END


def _inside(name: bytes) -> bytes | None:
    """A name below `rootfs/`; None for anything else."""
    path = clean(name)
    if path == _ROOT:
        return b""
    return path[len(_ROOT) + 1 :] if path.startswith(_ROOT + b"/") else None


def _data(entry: Entry, reader: Reader) -> Iterator[bytes]:
    if entry.sparse is None:
        yield from map(bytes, reader.pieces())
        return
    stored = b"".join(reader.pieces())
    position = taken = 0
    for offset, length in [*entry.sparse, (entry.size, 0)]:
        while position < offset:
            gap = min(offset - position, len(_ZEROS))
            yield _ZEROS[:gap]
            position += gap
        yield stored[taken : taken + length]
        position, taken = position + length, taken + length
