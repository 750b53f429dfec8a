"""Images, in the terms of the OCI image specification 1.1."""

from __future__ import annotations

from typing import Any

import msgspec

from bastide.model.container import Config
from bastide.model.wire import Wire


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """`os/architecture[/variant]`, Go's names (`linux/amd64`, `linux/arm/v7`)."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        """As written in `--platform`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A content descriptor (image-spec `descriptor.md`): type, digest and size in bytes of a blob."""

    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str | None = None
    data: str | None = None
    platform: dict[str, Any] | None = None


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step in the making of an image (image-spec `config.md`, `history`)."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class Image(Wire, frozen=True, kw_only=True):
    """An image as the engine keeps it: one per config digest.

    `id` is the config's digest; `manifest` the manifest it came with; `target` what its references
    point at (an index or the manifest itself); `diff_ids` are the layers uncompressed, lowest first;
    `size` is the unpacked size in bytes; `verified` says which signature was checked, if one was.
    """

    id: str
    manifest: Descriptor
    target: Descriptor
    layers: list[Descriptor]
    diff_ids: list[str]
    platform: Platform
    created: str
    config: Config
    author: str = ""
    history: list[History] = []
    size: int = 0
    verified: str = ""
    insecure_options: list[str] = []


class Artifact(Wire, frozen=True, kw_only=True):
    """What a registry holds that is no container image, as the engine keeps it.

    `documents` are manifests, those before that others name, `descriptor` the last of them; `blobs` is what they
    stand on. `subject` is the digest of the manifest that it says something about, "" for none.
    """

    descriptor: Descriptor
    artifact_type: str = ""
    subject: str = ""
    documents: list[Descriptor]
    blobs: list[Descriptor]
    annotations: dict[str, str] = {}

    @property
    def size(self) -> int:
        """All its bytes."""
        return sum(part.size for part in (*self.documents, *self.blobs))

    @property
    def digests(self) -> list[str]:
        """Every blob that it stands on."""
        return [part.digest for part in (*self.documents, *self.blobs)]
