"""Images in one archive: OCI image layouts and what `docker save` writes, in and out.

Out, both at once: an OCI layout with its bytes as they came, and a `manifest.json` over the same blobs
for those who read only that (Docker since version 25 does the same). In, an OCI layout is preferred.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bastide.images import pack
from bastide.images.archive import clean
from bastide.images.compression import kind_of
from bastide.images.content import Content
from bastide.images.decoding import decode
from bastide.images.digest import digest_of
from bastide.images.manifest import (
    CONFIG_LIMIT,
    DOCUMENT_LIMIT,
    Index,
    Manifest,
    MediaType,
    check_runnable,
    choose,
    parse,
    parse_config,
)
from bastide.images.tar import Kind, MalformedArchive, Reader
from bastide.model.errors import InvalidArgument, NotFound
from bastide.model.image import Descriptor, Platform

MEMBER_LIMIT = 100_000
IMAGE_LIMIT = 1000
_PIECE = 1 << 20
_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"


class Archive:
    """A tar file by its members' names. Close it after use."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if os.fstat(file.fileno()).st_size else b""
        self._members: dict[bytes, tuple[int, int]] = {}
        self._links: dict[bytes, bytes] = {}
        try:
            self._index()
        except BaseException:
            self.close()
            raise

    def _index(self) -> None:
        reader = Reader([self._map])  # type: ignore[list-item]  # it slices like bytes
        for entry in reader:
            name = clean(entry.name)
            if len(self._members) + len(self._links) > MEMBER_LIMIT:
                raise MalformedArchive(f"archive has more than {MEMBER_LIMIT} members")
            if entry.kind is Kind.FILE and entry.sparse is None:
                self._members[name] = (reader.source.offset, entry.size)
            elif entry.kind is Kind.SYMLINK:
                self._links[name] = clean(name.rpartition(b"/")[0] + b"/" + entry.link)
            elif entry.kind is Kind.LINK:
                self._links[name] = clean(entry.link)

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self._map, mmap.mmap):
            # While an error is on its way, its frames still look at the file; it goes with them.
            with contextlib.suppress(BufferError):
                self._map.close()

    def _find(self, name: str) -> tuple[int, int]:
        path = clean(name.encode())
        for _ in range(8):
            if path in self._members:
                return self._members[path]
            if path not in self._links:
                break
            path = self._links[path]
        raise InvalidArgument(f"archive does not contain {name[:200]!r}")

    def __contains__(self, name: str) -> bool:
        return clean(name.encode()) in self._members

    def size(self, name: str) -> int:
        """A member's size. Raises InvalidArgument when it is not there."""
        return self._find(name)[1]

    def read(self, name: str, limit: int) -> bytes:
        """A small member. Raises InvalidArgument."""
        offset, size = self._find(name)
        if size > limit:
            raise InvalidArgument(f"{name[:200]!r} in the archive has {size} bytes, more than {limit}")
        return self._map[offset : offset + size]

    def start(self, name: str) -> bytes:
        """The first bytes of a member."""
        offset, size = self._find(name)
        return self._map[offset : offset + min(size, 16)]

    def chunks(self, name: str) -> Iterator[bytes]:
        """A member in pieces."""
        offset, size = self._find(name)
        for at in range(offset, offset + size, _PIECE):
            yield self._map[at : min(at + _PIECE, offset + size)]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An image in an archive. `layers` are the members that hold them, `descriptors` what they are.

    A docker-archive names no digests: a descriptor's is "" where only reading the layer will tell.
    """

    names: list[str]
    config: bytes
    manifest: bytes
    target: bytes
    layers: list[str]
    descriptors: list[Descriptor]


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def read(archive: Archive, host: Platform) -> list[Found]:
    """The images of an archive. Raises InvalidArgument, Unsupported, NotFound."""
    if "index.json" in archive and "oci-layout" in archive:
        return _read_oci(archive, host)
    if "manifest.json" in archive:
        return _read_docker(archive)
    raise InvalidArgument(
        "archive is neither a docker-archive nor an OCI layout: it has no manifest.json and no index.json"
    )


def _checked(archive: Archive, descriptor: Descriptor, limit: int) -> bytes:
    data = archive.read(_blob(descriptor.digest), limit)
    if digest_of(data) != descriptor.digest:
        raise InvalidArgument(f"{descriptor.digest} in the archive does not match its digest")
    return data


def _read_oci(archive: Archive, host: Platform) -> list[Found]:
    index = parse(archive.read("index.json", DOCUMENT_LIMIT), MediaType.OCI_INDEX)
    assert isinstance(index, Index)
    if len(index.manifests) > IMAGE_LIMIT:
        raise InvalidArgument(f"archive has more than {IMAGE_LIMIT} images")
    by_target: dict[str, Found] = {}
    for descriptor in index.manifests:
        names = _names(descriptor)
        known = by_target.get(descriptor.digest)
        if known is not None:
            known.names.extend(name for name in names if name not in known.names)
            continue
        by_target[descriptor.digest] = _oci_image(archive, descriptor, host, names)
    return list(by_target.values())


def _names(descriptor: Descriptor) -> list[str]:
    notes = descriptor.annotations or {}
    if name := notes.get(_NAME):
        return [name]
    # A bare tag says nothing without a repository; a full name stands here when skopeo or buildah wrote it.
    short = notes.get(_REF_NAME, "")
    return [short] if ":" in short or "/" in short else []


def _oci_image(archive: Archive, descriptor: Descriptor, host: Platform, names: list[str]) -> Found:
    target = data = _checked(archive, descriptor, DOCUMENT_LIMIT)
    document = parse(data, descriptor.media_type)
    for _ in range(2):
        if isinstance(document, Index):
            present = [entry for entry in document.manifests if _blob(entry.digest) in archive]
            if not present:
                raise NotFound("archive holds none of the images that its index names")
            try:
                entry = choose(msgspec.structs.replace(document, manifests=present), host)
            except NotFound:
                entry = present[0]
            data = _checked(archive, entry, DOCUMENT_LIMIT)
            document = parse(data, entry.media_type)
    if isinstance(document, Index):
        raise InvalidArgument("archive has indexes in indexes in indexes")
    check_runnable(document)
    return Found(
        names=names,
        config=_checked(archive, document.config, CONFIG_LIMIT),
        manifest=data,
        target=target,
        layers=[_blob(layer.digest) for layer in document.layers],
        descriptors=document.layers,
    )


class _Item(msgspec.Struct, frozen=True):
    """An image in `manifest.json` (moby, image/tarexport)."""

    config: str = msgspec.field(name="Config")
    repo_tags: list[str] | None = msgspec.field(name="RepoTags", default=None)
    layers: list[str] | None = msgspec.field(name="Layers", default=None)


def _read_docker(archive: Archive) -> list[Found]:
    data = archive.read("manifest.json", DOCUMENT_LIMIT)
    items = decode(data, list[_Item], "manifest.json in the archive is malformed")
    if len(items) > IMAGE_LIMIT:
        raise InvalidArgument(f"archive has more than {IMAGE_LIMIT} images")
    found = []
    for item in items:
        config = archive.read(item.config, CONFIG_LIMIT)
        diff_ids = parse_config(config).rootfs.diff_ids
        layers = item.layers or []
        if len(layers) != len(diff_ids):
            raise InvalidArgument(
                f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(layers)}"
            )
        descriptors = []
        for name, diff_id in zip(layers, diff_ids, strict=True):
            plain = not kind_of(archive.start(name))
            descriptors.append(
                Descriptor(
                    media_type=_layer_type(archive.start(name)),
                    digest=diff_id if plain else "",
                    size=archive.size(name),
                )
            )
        found.append(
            Found(
                names=list(item.repo_tags or []),
                config=config,
                manifest=b"",
                target=b"",
                layers=layers,
                descriptors=descriptors,
            )
        )
    return found


def _layer_type(start: bytes) -> str:
    kind = kind_of(start)
    if kind == "zstd":
        return MediaType.OCI_LAYER_ZSTD
    return MediaType.DOCKER_LAYER_GZIP if kind else MediaType.DOCKER_LAYER


def make_manifest(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """A manifest for an image that came without one."""
    oci = any(layer.media_type.startswith("application/vnd.oci") for layer in layers)
    manifest = Manifest(
        media_type=MediaType.OCI_MANIFEST if oci else MediaType.DOCKER_MANIFEST,
        config=Descriptor(
            media_type=MediaType.OCI_CONFIG if oci else MediaType.DOCKER_CONFIG,
            digest=digest_of(config),
            size=len(config),
        ),
        layers=list(layers),
    )
    # `schemaVersion` equals its default, so that the encoder would leave it out.
    fields: dict[str, Any] = {"schemaVersion": 2} | msgspec.to_builtins(manifest)
    return msgspec.json.encode(fields)


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """An image to be written: its full tagged names, its manifest and what that stands on."""

    names: list[str]
    familiar: list[str]
    manifest: Descriptor
    config: str
    layers: list[str]


def write(content: Content, images: Sequence[Saved]) -> Iterator[bytes]:
    """An archive of images whose blobs are all in the content store. Blocks while it reads."""
    blobs: dict[str, None] = {}
    entries: list[dict[str, Any]] = []
    items = []
    for image in images:
        descriptor = {
            "mediaType": image.manifest.media_type,
            "digest": image.manifest.digest,
            "size": image.manifest.size,
        }
        for name in image.names:
            notes = {_NAME: name, _REF_NAME: name.rpartition(":")[2]}
            entries.append(descriptor | {"annotations": notes})
        if not image.names:
            entries.append(descriptor)
        blobs |= dict.fromkeys((image.manifest.digest, image.config, *image.layers))
        items.append(
            {
                "Config": _blob(image.config),
                "RepoTags": image.familiar or None,
                "Layers": [_blob(layer) for layer in image.layers],
            }
        )
    yield pack.directory("blobs") + pack.directory("blobs/sha256")
    for digest in sorted(blobs):
        yield from pack.file_of(_blob(digest), content.size(digest), content.chunks(digest))
    index = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": entries}
    yield pack.file("index.json", msgspec.json.encode(index))
    yield pack.file("manifest.json", msgspec.json.encode(items))
    yield pack.file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield pack.END
