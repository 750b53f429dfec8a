"""Manifests, indexes and configurations: OCI image-spec 1.1 and Docker's schema 2, kept byte for byte.

A document that could be read as both a manifest and an index is refused, and so is one whose
`mediaType` differs from what the registry said it was (CVE-2021-41190).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from bastide.images.decoding import decode
from bastide.images.digest import check_digest, digest_of, is_digest
from bastide.model.container import NEVER, Config
from bastide.model.errors import InvalidArgument, NotFound, Unsupported
from bastide.model.image import Descriptor, History, Platform

DOCUMENT_LIMIT = 4 << 20
"""Bytes of a manifest or index (distribution-spec: at least 4 MiB)."""
CONFIG_LIMIT = 8 << 20
LAYER_LIMIT = 500
"""Layers of an image: what the kernel's overlay takes (Linux, fs/overlayfs/params.h)."""
ENTRY_LIMIT = 10_000
"""Entries of an index."""


class MediaType(enum.StrEnum):
    """Media types of documents and layers."""

    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    OCI_EMPTY = "application/vnd.oci.empty.v1+json"
    DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


INDEXES = (MediaType.OCI_INDEX, MediaType.DOCKER_INDEX)
MANIFESTS = (MediaType.OCI_MANIFEST, MediaType.DOCKER_MANIFEST)
CONFIGS = (MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG, "application/octet-stream", "text/plain", "")
_FOREIGN = ("nondistributable", "rootfs.foreign")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image manifest."""

    schema_version: int = 2
    media_type: str = ""
    artifact_type: str | None = None
    config: Descriptor
    layers: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image index (Docker: manifest list)."""

    schema_version: int = 2
    media_type: str = ""
    artifact_type: str | None = None
    manifests: list[Descriptor]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The layers of an image by their uncompressed digests, lowest first."""

    type: str = "layers"
    diff_ids: list[str] = []


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An image's configuration (image-spec, config.md); what is not named here stays in the bytes alone."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    author: str | None = None
    config: Config | None = None
    rootfs: RootFS = RootFS()
    history: list[History] | None = None
    docker_version: str = ""
    comment: str = ""
    container: str = ""
    container_config: Any = None
    parent: str = ""

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return Platform(os=self.os or "linux", architecture=self.architecture or "amd64", variant=self.variant)


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_CONFIG = msgspec.json.Decoder(ImageConfig)


def _fields(data: bytes, limit: int, what: str) -> dict[str, Any]:
    if len(data) > limit:
        raise InvalidArgument(f"{what} has {len(data)} bytes, more than {limit}")
    return decode(data, dict[str, Any], f"{what} is not valid JSON")


def parse(data: bytes, media_type: str = "") -> Manifest | Index:
    """A manifest or an index; `media_type` is what its sender called it.

    Raises InvalidArgument (malformed or ambiguous), Unsupported (schema 1 and unknown types).
    """
    fields = _fields(data, DOCUMENT_LIMIT, "manifest")
    own = fields.get("mediaType") or ""
    claimed = media_type.partition(";")[0].strip().lower()
    if claimed in ("application/json", "application/octet-stream", "text/plain"):
        claimed = ""
    if own and claimed and own != claimed:
        raise InvalidArgument(f"manifest says that it is {own!r}, its sender that it is {claimed!r}")
    if fields.get("schemaVersion") == 1 or "schema1" in claimed or "distribution.manifest.v1" in claimed:
        raise Unsupported("manifests of schema 1 are not supported: push the image again with a newer tool")
    listed = any(fields.get(name) is not None for name in ("manifests",))
    plain = any(fields.get(name) is not None for name in ("layers", "config", "fsLayers", "history"))
    if listed and plain:
        raise InvalidArgument("manifest is ambiguous: it holds both manifests and layers or a config")
    kind = str(own or claimed or (MediaType.OCI_INDEX if listed else MediaType.OCI_MANIFEST))
    if kind in INDEXES:
        return _index(data, kind)
    if kind in MANIFESTS:
        return _manifest(data, kind)
    raise Unsupported(f"manifest of the unknown type {kind[:200]!r}")


def _index(data: bytes, kind: str) -> Index:
    found = decode(data, Index, "index is malformed")
    if len(found.manifests) > ENTRY_LIMIT:
        raise InvalidArgument(f"index has {len(found.manifests)} entries, more than {ENTRY_LIMIT}")
    _check(found.manifests)
    return msgspec.structs.replace(found, media_type=kind)


def _manifest(data: bytes, kind: str) -> Manifest:
    found = decode(data, Manifest, "manifest is malformed")
    if len(found.layers) > LAYER_LIMIT:
        raise InvalidArgument(f"image has {len(found.layers)} layers, more than {LAYER_LIMIT}")
    _check([found.config, *found.layers])
    return msgspec.structs.replace(found, media_type=kind)


def _check(descriptors: Sequence[Descriptor]) -> None:
    for descriptor in descriptors:
        check_digest(descriptor.digest)
        if descriptor.size < 0:
            raise InvalidArgument(f"descriptor of {descriptor.digest} has a negative size")


def make_descriptor(document: bytes) -> Descriptor:
    """The descriptor of a manifest or an index. Raises as `parse`."""
    return Descriptor(media_type=parse(document).media_type, digest=digest_of(document), size=len(document))


def make_index(entries: Sequence[Descriptor], media_type: str = MediaType.OCI_INDEX) -> bytes:
    """An index of manifests."""
    found = Index(media_type=media_type, manifests=[*entries])
    # `schemaVersion` equals its default, so that the encoder would leave it out.
    fields: dict[str, Any] = {"schemaVersion": 2} | msgspec.to_builtins(found)
    return msgspec.json.encode(fields)


def is_image(manifest: Manifest) -> bool:
    """Whether a manifest is a container image; everything else that registries hold is an artifact."""
    return manifest.config.media_type in CONFIGS


def no_image(name: str, kind: str) -> Unsupported:
    """What is said when an artifact is used as an image."""
    return Unsupported(f"{name} is not an image but an artifact: {kind[:200]!r} (see 'bastide artifact')")


def artifact_type(document: Manifest | Index) -> str:
    """What an artifact is (image-spec, manifest.md, "Guidelines for Artifact Usage")."""
    if document.artifact_type or isinstance(document, Index):
        return document.artifact_type or ""
    return document.config.media_type


def check_runnable(manifest: Manifest) -> None:
    """That a manifest is an image with layers we can unpack. Raises Unsupported.

    Foreign layers would be fetched from wherever the manifest says, and are refused.
    """
    if manifest.config.media_type not in CONFIGS:
        raise Unsupported(f"not an image: its config is of type {manifest.config.media_type[:200]!r}")
    for layer in manifest.layers:
        if any(word in layer.media_type for word in _FOREIGN) or layer.urls:
            raise Unsupported(f"layer {layer.digest} lies outside the registry (foreign layers are refused)")
        if not layer.media_type.partition("+")[0].removesuffix(".gzip").endswith(".tar"):
            raise Unsupported(f"layer {layer.digest} is of the unknown type {layer.media_type[:200]!r}")


def parse_config(data: bytes) -> ImageConfig:
    """An image's configuration. Raises InvalidArgument."""
    try:
        found = _CONFIG.decode(data) if len(data) <= CONFIG_LIMIT else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = None
    if found is None:
        # Go takes a null for an absent field; so do we, where the strict reading fails.
        fields = _without_nulls(_fields(data, CONFIG_LIMIT, "image configuration"))
        try:
            found = msgspec.convert(fields, ImageConfig)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"image configuration is malformed: {error}") from error
    if found.rootfs.type != "layers" or not all(is_digest(diff_id) for diff_id in found.rootfs.diff_ids):
        raise InvalidArgument("image configuration has an invalid rootfs")
    # A time that nobody can read would spoil every list that the image is in.
    for stamp in (found.created, *(step.created for step in found.history or [])):
        instant(stamp or "")
    return found


@lru_cache(maxsize=1024)
def instant(text: str) -> int:
    """An RFC 3339 time in nanoseconds since the epoch; "" is the beginning of Go's time. Raises InvalidArgument."""
    found = _TIME.fullmatch(text or NEVER)
    try:
        if found is None:
            raise ValueError
        whole = datetime.fromisoformat(f"{found[1]}{found[3].replace('Z', '+00:00')}")
    except ValueError:
        raise InvalidArgument(f"image configuration has the invalid time {text[:60]!r}") from None
    return (whole - _EPOCH) // _SECOND * 1_000_000_000 + int((found[2] or "")[1:].ljust(9, "0"))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return value


# Which variants run on which, best first; source: containerd/platforms, compare.go.
_ARM = ("v8", "v7", "v6", "v5")
_AMD64 = ("v4", "v3", "v2", "v1")


def normal(platform: Platform) -> Platform:
    """A platform in the form that comparisons use: arm64 has no variant v8, amd64 no v1, arm is v7."""
    names = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
    architecture = names.get(platform.architecture, platform.architecture)
    variant = platform.variant
    if platform.architecture == "armel":
        variant = "v6"
    if (architecture, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
        variant = ""
    if architecture == "arm" and not variant:
        variant = "v7"
    return Platform(os=platform.os.lower(), architecture=architecture, variant=variant)


def parse_platform(text: str, host: Platform) -> Platform:
    """`os[/architecture[/variant]]` or an architecture alone. Raises InvalidArgument with Docker's text."""
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(part and part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise InvalidArgument(f'"{text}": invalid platform: unknown operating system or architecture')
    if len(parts) == 1:
        known = ("linux", "windows", "darwin", "freebsd")
        if parts[0] in known:
            return normal(Platform(os=parts[0], architecture=host.architecture, variant=host.variant))
        return normal(Platform(architecture=parts[0]))
    return normal(Platform(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) > 2 else ""))


def rank(wanted: Platform, offered: Platform) -> int:
    """How well an offer fits, 0 the best; -1 when it does not."""
    wanted, offered = normal(wanted), normal(offered)
    if (wanted.os, wanted.architecture) != (offered.os, offered.architecture):
        return -1
    order = {"arm": _ARM, "amd64": _AMD64}.get(wanted.architecture, ())
    ours, theirs = wanted.variant or "v1", offered.variant or "v1"
    if ours == theirs:
        return 0
    if ours in order and theirs in order and order.index(theirs) >= order.index(ours):
        return order.index(theirs) - order.index(ours)
    return -1


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The entry of an index that fits best. Raises NotFound with Docker's text."""
    best: tuple[int, Descriptor] | None = None
    for entry in index.manifests:
        if entry.media_type not in (*MANIFESTS, *INDEXES):
            continue
        offered = platform_of(entry)
        if (entry.annotations or {}).get("vnd.docker.reference.type"):
            continue
        fit = rank(wanted, offered) if offered else 1000
        if fit >= 0 and (best is None or fit < best[0]):
            best = (fit, entry)
    if best is None:
        raise NotFound(f"no matching manifest for {wanted} in the manifest list entries")
    return best[1]


def platform_of(entry: Descriptor) -> Platform | None:
    """The platform that an index names for an entry, None when it names none."""
    named = entry.platform
    if not named:
        return None
    words = {name: str(named.get(name) or "") for name in ("os", "architecture", "variant")}
    return Platform(**words)
