"""Manifest lists (OCI: indexes) put together from images that registries hold, and pushed there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bastide.engine.pull import explain, open_repository
from bastide.engine.state import Store
from bastide.images import manifest as documents
from bastide.images.auth import Credentials
from bastide.images.digest import digest_of
from bastide.images.manifest import Manifest, MediaType
from bastide.images.reference import Reference, parse
from bastide.images.registry import Connection, RegistryError, Repository
from bastide.model.errors import Conflict, InvalidArgument, NotFound
from bastide.model.image import Descriptor
from bastide.model.wire import Wire

if TYPE_CHECKING:
    from bastide.engine.images import Images


class Entry(Wire, frozen=True, kw_only=True):
    """An image of a list: its manifest, and the full reference that it was found by."""

    descriptor: Descriptor
    source: str


class ManifestList(Wire, frozen=True, kw_only=True):
    """A list as it is here."""

    entries: list[Entry]

    @property
    def document(self) -> bytes:
        """The list as registries keep it: of Docker's kind where all of its images are."""
        entries = [entry.descriptor for entry in self.entries]
        docker = all(entry.media_type == MediaType.DOCKER_MANIFEST for entry in entries)
        return documents.make_index(entries, MediaType.DOCKER_INDEX if docker else MediaType.OCI_INDEX)


class Annotation(Wire, frozen=True, kw_only=True):
    """What to say about an image of a list; what is empty stays as it is."""

    source: str
    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: list[str] = []


class ManifestLists:
    """The lists that were created here, by name."""

    def __init__(self, images: Images, store: Store) -> None:
        self._images = images
        self._lists = store.table("manifest_lists", ManifestList)

    def _get(self, name: str) -> ManifestList:
        found = self._lists.get(str(parse(name).tagged()))
        if found is None:
            raise NotFound(f"No such manifest: {name}")
        return found

    async def create(
        self, name: str, sources: Sequence[str], credentials: Credentials | None, *, amend: bool = False
    ) -> str:
        """Make a list of images that registries hold, or add them to one; gives its full name.

        Raises Conflict when it is there and `amend` was not asked for, NotFound, InvalidArgument, Unavailable.
        """
        key = str(parse(name).tagged())
        known = self._lists.get(key)
        if known is not None and not amend:
            raise Conflict(f"refusing to amend an existing manifest list with no --amend flag: {name}")
        entries = {entry.source: entry for entry in known.entries} if known is not None else {}
        for source in sources:
            entry = await self._entry(parse(source).tagged(), credentials)
            entries[entry.source] = entry
        if not entries:
            raise InvalidArgument("a manifest list needs at least one image")
        self._lists.put(key, ManifestList(entries=[*entries.values()]))
        return key

    async def _entry(self, source: Reference, credentials: Credentials | None) -> Entry:
        async with Connection(self._images.registries()) as connection:
            repository = await self._repository(connection, source, credentials)
            try:
                data, kind = await repository.manifest(source.digest or source.tag)
                document = documents.parse(data, kind)
                if not isinstance(document, Manifest):
                    raise InvalidArgument(f"{source.familiar} is a manifest list: name the images in it by digest")
                documents.check_runnable(document)
                size = min(document.config.size, documents.CONFIG_LIMIT)
                config = b"".join([chunk async for chunk in repository.blob(document.config.digest, size)])
            except RegistryError as error:
                raise explain(error, source) from error
        if digest_of(config) != document.config.digest:
            raise InvalidArgument(f"configuration of {source.familiar} does not match its digest")
        platform = documents.parse_config(config).platform
        named = {"architecture": platform.architecture, "os": platform.os}
        descriptor = msgspec.structs.replace(
            documents.make_descriptor(data),
            platform=named | ({"variant": platform.variant} if platform.variant else {}),
        )
        return Entry(descriptor=descriptor, source=str(source))

    async def _repository(
        self, connection: Connection, reference: Reference, credentials: Credentials | None, *, push: bool = False
    ) -> Repository:
        endpoint = self._images.registries().endpoints(reference, push=push)[-1]
        return await open_repository(connection, endpoint, reference, credentials)

    def annotate(self, name: str, wanted: Annotation) -> None:
        """Say of an image in a list what it runs on. Raises NotFound."""
        found, source = self._get(name), str(parse(wanted.source).tagged())
        said = {
            "os": wanted.os,
            "architecture": wanted.architecture,
            "variant": wanted.variant,
            "os.version": wanted.os_version,
            "os.features": wanted.os_features,
        }
        entries = []
        for entry in found.entries:
            if entry.source == source:
                platform = (entry.descriptor.platform or {}) | {key: value for key, value in said.items() if value}
                entry = msgspec.structs.replace(
                    entry, descriptor=msgspec.structs.replace(entry.descriptor, platform=platform)
                )
            entries.append(entry)
        if source not in {entry.source for entry in entries}:
            raise NotFound(f"manifest for image {wanted.source} does not exist in {name}")
        self._lists.put(str(parse(name).tagged()), ManifestList(entries=entries))

    async def inspect(self, name: str, credentials: Credentials | None) -> dict[str, Any]:
        """A list that is here, or else what the registry has under the name. Raises NotFound, Unavailable."""
        reference = parse(name).tagged()
        known = self._lists.get(str(reference))
        if known is not None:
            return msgspec.json.decode(known.document, type=dict[str, Any])
        async with Connection(self._images.registries()) as connection:
            repository = await self._repository(connection, reference, credentials)
            try:
                data, kind = await repository.manifest(reference.digest or reference.tag)
            except RegistryError as error:
                raise explain(error, reference) from error
        documents.parse(data, kind)
        return msgspec.json.decode(data, type=dict[str, Any])

    async def push(self, name: str, credentials: Credentials | None, *, purge: bool = False) -> str:
        """Bring a list, and the images that its repository does not have, to its registry; gives the digest.

        Raises NotFound, InvalidArgument (an image lies on another registry), Unauthorized, Unavailable.
        """
        reference, found = parse(name).tagged(), self._get(name)
        async with Connection(self._images.registries()) as connection:
            target = await self._repository(connection, reference, credentials, push=True)
            try:
                for entry in found.entries:
                    source = parse(entry.source)
                    if source.domain != reference.domain:
                        raise InvalidArgument(
                            "cannot use source images from a different registry than the target image: "
                            f"{source.domain} != {reference.domain}"
                        )
                    if source.path != reference.path:
                        origin = await self._repository(connection, source, credentials)
                        await _carry(origin, target, source.path, entry.descriptor)
                await target.put_manifest(reference.tag, found.document, documents.parse(found.document).media_type)
            except RegistryError as error:
                raise explain(error, reference) from error
        if purge:
            self.remove(name)
        return digest_of(found.document)

    def remove(self, name: str) -> None:
        """Forget a list. Raises NotFound."""
        self._get(name)
        self._lists.delete(str(parse(name).tagged()))


async def _carry(origin: Repository, target: Repository, path: str, manifest: Descriptor) -> None:
    """Have an image in another repository of the same registry: its blobs mounted where the registry can."""
    data, _ = await origin.manifest(manifest.digest)
    document = documents.parse(data)
    assert isinstance(document, Manifest)
    for blob in {blob.digest: blob for blob in (document.config, *document.layers)}.values():
        if not await target.has_blob(blob.digest):
            await target.upload(blob.digest, blob.size, lambda blob=blob: origin.blob(blob.digest, blob.size), path)  # type: ignore[misc]
    await target.put_manifest(manifest.digest, data, document.media_type)
