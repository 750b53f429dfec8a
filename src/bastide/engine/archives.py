"""Images as archives: `docker save` and OCI layouts, in and out, and root file systems imported."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bastide.engine.clock import now
from bastide.engine.layers import PARALLEL, Lease, gather, local_source
from bastide.host.syscalls import blocking
from bastide.images import aci, layout
from bastide.images.compression import Gzip, decompress
from bastide.images.digest import digest_of
from bastide.images.manifest import CONFIG_LIMIT, MediaType, make_descriptor, parse_config, parse_platform
from bastide.images.reference import Reference, parse
from bastide.images.threads import Channel, in_thread
from bastide.model.container import Config
from bastide.model.errors import InvalidArgument
from bastide.model.image import Descriptor, Image

if TYPE_CHECKING:
    from bastide.engine.images import Images

Progress = Callable[[dict[str, Any]], None]
"""Takes Docker's progress messages."""


class _Plain:
    """Writes what comes as it is."""

    def add(self, piece: bytes) -> bytes:
        """What to write for some bytes."""
        return piece

    def end(self) -> bytes:
        """What to write at the end."""
        return b""


class _Compressor:
    """Compresses a layer, and hashes it before and after."""

    def __init__(self) -> None:
        self._gzip = Gzip()
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()

    def _out(self, data: bytes) -> bytes:
        self._packed.update(data)
        return data

    def add(self, piece: bytes) -> bytes:
        """What to write for some bytes."""
        self._plain.update(piece)
        return self._out(self._gzip.add(piece))

    def end(self) -> bytes:
        """What to write at the end."""
        return self._out(self._gzip.end())

    @property
    def diff_id(self) -> str:
        """The digest of what came."""
        return "sha256:" + self._plain.hexdigest()

    @property
    def digest(self) -> str:
        """The digest of what was written."""
        return "sha256:" + self._packed.hexdigest()


_Coder = TypeVar("_Coder", _Plain, _Compressor)


@asynccontextmanager
async def _spool(images: Images, data: AsyncIterator[bytes], coder: _Coder) -> AsyncIterator[tuple[Path, _Coder]]:
    """A stream as a temporary file, its compression replaced by `coder`'s. Raises InvalidArgument when damaged."""
    path, file = images.content.spool()

    def write(channel: Channel) -> None:
        with file:
            for piece in decompress(channel):
                file.write(coder.add(piece))
            file.write(coder.end())

    try:
        channel = Channel()
        work = asyncio.create_task(in_thread("spool", write, channel))
        await channel.fill(data, work)
        await work
        yield path, coder
    finally:
        await blocking(path.unlink)


async def load(images: Images, data: AsyncIterator[bytes], progress: Progress) -> list[Image]:
    """Load every image of an archive. Raises InvalidArgument, Unsupported, ResourceExhausted; what was whole stays."""
    loaded = []
    async with _spool(images, data, _Plain()) as (path, _):
        archive = await in_thread("index", layout.Archive, path)
        try:
            if aci.MANIFEST in archive:
                images.check_archive("aci")
                return [await _load_aci(images, path, archive.read(aci.MANIFEST, CONFIG_LIMIT), progress)]
            found_images = await blocking(layout.read, archive, images.host)
            images.check_archive("oci-archive" if any(found.manifest for found in found_images) else "docker-archive")
            for found in found_images:
                loaded.append(await _load_one(images, archive, found, progress))
        finally:
            archive.close()
    return loaded


async def _load_aci(images: Images, path: Path, manifest_bytes: bytes, progress: Progress) -> Image:
    """An App Container Image as an image of one layer. Raises InvalidArgument, Unsupported."""
    manifest = aci.parse(manifest_bytes)
    # The same file gives the same image: it carries no time of its own.
    document = aci.configuration(manifest) | {"created": "1970-01-01T00:00:00Z"}
    name = parse(manifest.reference).tagged()
    layer = local_source(lambda: aci.layer(_pieces(path)))
    image = await _flat(images, layer(0), document, name, f"imported from the ACI {manifest.name}", "load")
    progress({"stream": f"Loaded image: {name.familiar}\n"})
    return image


async def _load_one(images: Images, archive: layout.Archive, found: layout.Found, progress: Progress) -> Image:
    config = parse_config(found.config)
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(found.descriptors):
        raise InvalidArgument("layers from manifest don't match image configuration")
    names = [parse(name).tagged() for name in found.names]
    async with images.layers.leases.hold() as lease:
        descriptors = await _take_layers(images, lease, archive, found, diff_ids, progress)
        manifest = found.manifest or layout.make_manifest(found.config, descriptors)
        target = found.target or manifest
        await lease.add(digest_of(found.config), digest_of(manifest), digest_of(target))
        for document in (found.config, manifest, target):
            await blocking(images.content.add, document)
        image = images.record(
            images.build_record(found.config, make_descriptor(manifest), make_descriptor(target), descriptors),
            names,
            "load",
        )
    for name in names:
        progress({"stream": f"Loaded image: {name.familiar}\n"})
    if not names:
        progress({"stream": f"Loaded image ID: {image.id}\n"})
    return image


async def _take_layers(
    images: Images,
    lease: Lease,
    archive: layout.Archive,
    found: layout.Found,
    diff_ids: Sequence[str],
    progress: Progress,
) -> list[Descriptor]:
    """Every layer of an archive's image taken in; the digests that it did not name are in the result."""

    async def take(member: str, descriptor: Descriptor, diff_id: str) -> Descriptor:
        if not descriptor.digest:
            async with hashing:
                digest = await in_thread("hash", _digest_of, archive.chunks(member))
            descriptor = msgspec.structs.replace(descriptor, digest=digest)
        total = archive.size(member)
        if descriptor.size != total and _blob_is_member(descriptor, member):
            raise InvalidArgument(f"layer {descriptor.digest} in the archive does not have its size")
        await lease.add(descriptor.digest, diff_id)

        def begun(known: bool) -> None:
            if not known:
                detail = {"current": total, "total": total}
                progress({"status": "Loading layer", "progressDetail": detail, "id": diff_id[7:19]})

        await images.layers.ensure(descriptor, diff_id, local_source(partial(archive.chunks, member)), begun)
        return descriptor

    hashing = asyncio.Semaphore(PARALLEL)
    layers = zip(found.layers, found.descriptors, diff_ids, strict=True)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(take(*layer)) for layer in layers]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _blob_is_member(descriptor: Descriptor, member: str) -> bool:
    return member.endswith(descriptor.digest[7:])


def _digest_of(chunks: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return "sha256:" + found.hexdigest()


def choose(images: Images, names: Sequence[str]) -> list[layout.Saved]:
    """What an archive of these images holds. Raises NotFound. A repository alone means its tag `latest`."""
    chosen: dict[str, tuple[Image, list[Reference]]] = {}
    for name in names:
        image = images.get(name)
        _, tags = chosen.setdefault(image.id, (image, []))
        if not images.is_id(name, image):
            reference = parse(name).tagged()
            if reference.tag and not reference.digest:
                tags.append(reference)
    return [
        layout.Saved(
            names=[str(tag) for tag in tags],
            familiar=[tag.familiar for tag in tags],
            manifest=image.manifest,
            config=image.id,
            layers=[layer.digest for layer in image.layers],
        )
        for image, tags in chosen.values()
    ]


async def save(images: Images, names: Sequence[str]) -> AsyncIterator[bytes]:
    """An archive of images. Raises NotFound before the first piece."""
    saved = choose(images, names)
    async with images.layers.leases.hold() as lease:
        for image in saved:
            await lease.add(image.manifest.digest, image.config, *image.layers)
        pieces = layout.write(images.content, saved)
        while piece := await blocking(gather, pieces):
            yield piece
    for image in saved:
        images.event("save", image.config, images.get(image.config))


class ImportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `docker import` asks for."""

    repository: str = ""
    tag: str = ""
    message: str = ""
    changes: list[str] = []
    platform: str = ""


def _import_name(request: ImportRequest) -> Reference | None:
    """The name of what is imported: clients send the tag with the repository or beside it. Raises InvalidArgument."""
    if not request.repository:
        return None
    given = parse(request.repository)
    if given.digest:
        raise InvalidArgument("cannot import digest reference")
    return given.with_tag(request.tag or given.tag or "latest")


async def import_root(images: Images, data: AsyncIterator[bytes], request: ImportRequest, progress: Progress) -> Image:
    """An image of one layer from the tar of a root file system, compressed or not.

    Raises InvalidArgument when it is no tar stream or a change is wrong.
    """
    name = _import_name(request)
    platform = parse_platform(request.platform, images.host) if request.platform else images.host
    config = images.changed(Config(), request.changes)
    created = now()
    document = {
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "os": platform.os,
        "created": created,
        "config": msgspec.to_builtins(config),
        "comment": request.message,
    }
    image = await _flat(images, data, document, name, request.message or "Imported from -", "import")
    progress({"status": image.id})
    return image


async def _flat(
    images: Images,
    data: AsyncIterator[bytes],
    document: dict[str, Any],
    name: Reference | None,
    comment: str,
    action: str,
) -> Image:
    """An image of one layer, which comes as a tar stream; `document` is its configuration but rootfs and history."""
    async with _spool(images, data, _Compressor()) as (path, layer), images.layers.leases.hold() as lease:
        size = (await blocking(path.stat)).st_size
        descriptor = Descriptor(media_type=MediaType.OCI_LAYER_GZIP, digest=layer.digest, size=size)
        await lease.add(layer.digest, layer.diff_id)
        await images.layers.ensure(descriptor, layer.diff_id, local_source(partial(_pieces, path)))
        made = document | {
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
            "history": [{"created": document["created"], "comment": comment}],
        }
        return await images.assemble(lease, made, [descriptor], [name] if name else [], action)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            yield chunk
