"""What images and artifacts take on disk: layers, blobs and disks for VMs, each byte counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from bastide.engine.images import Images, blobs_of
from bastide.host.syscalls import blocking
from bastide.model.image import Artifact, Image

Parts = Mapping[tuple[str, str], int]
"""Bytes by kind and name: a layer by its diff id, a blob by its digest, a disk by the diff ids it is made of."""


class Use(NamedTuple):
    """Bytes that something takes, and how many of them others take too."""

    size: int
    shared: int


class DiskUsage(msgspec.Struct, frozen=True, kw_only=True):
    """`total`: the bytes of all images, and of blobs that are only half here.

    Artifacts have the bytes of what no image and no artifact before them has.
    """

    total: int
    images: Sequence[tuple[Image, Use]]
    artifacts: Sequence[tuple[Artifact, int]]


async def measure(images: Images) -> DiskUsage:
    """Measure everything."""
    found, disks = images.list(), images.disks
    blobs, partial = await blocking(images.content.sizes)
    drawn = await blocking(lambda: [disks.disk_size(image.diff_ids) if disks else 0 for image in found])
    parts: list[Parts] = [
        {("layer", diff_id): images.layers.size([diff_id]) for diff_id in image.diff_ids}
        | {("blob", digest): blobs.get(digest, 0) for digest in blobs_of(image)}
        | {("disk", " ".join(image.diff_ids)): size}
        for image, size in zip(found, drawn, strict=True)
    ]
    union = {key: size for part in parts for key, size in part.items()}
    taken = {name for kind, name in union if kind == "blob"}
    artifacts = []
    for artifact in images.artifacts.all():
        own = {digest: blobs.get(digest, 0) for digest in artifact.digests if digest not in taken}
        artifacts.append((artifact, sum(own.values())))
        taken.update(own)
    return DiskUsage(
        total=sum(union.values()) + partial, images=[*zip(found, _uses(parts), strict=True)], artifacts=artifacts
    )


def _uses(parts: Sequence[Parts]) -> Sequence[Use]:
    owners = Counter(key for part in parts for key in part)
    return [Use(sum(part.values()), sum(size for key, size in part.items() if owners[key] > 1)) for part in parts]
