"""Pulling: a reference resolved once, then everything by digest, layers in parallel and unpacked as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from bastide.engine.archives import Progress
from bastide.engine.layers import BlobSource, Lease
from bastide.engine.trust import UNVERIFIED, Trust, check_words
from bastide.host.syscalls import blocking
from bastide.images import auth
from bastide.images import manifest as documents
from bastide.images.auth import Credentials
from bastide.images.digest import digest_of, short
from bastide.images.manifest import Index, Manifest
from bastide.images.reference import Reference
from bastide.images.registries import Endpoint, Registries
from bastide.images.registry import Connection, RegistryError, Repository
from bastide.model.errors import BastideError, InvalidArgument, NotFound, PermissionDenied, Unauthorized, Unavailable
from bastide.model.image import Artifact, Descriptor, Image, Platform

if TYPE_CHECKING:
    from bastide.engine.images import Images

_REPORT_SECONDS = 0.1
_NESTING = 2
"""Indexes in indexes that are followed."""


def explain(error: RegistryError, reference: Reference) -> BastideError:
    """A registry's refusal in the words that Docker's clients know."""
    if error.code == "MANIFEST_UNKNOWN" or (error.status == 404 and error.code != "NAME_UNKNOWN"):
        return NotFound(f"manifest for {reference.familiar} not found: {error}")
    if error.code in ("DENIED", "UNAUTHORIZED", "NAME_UNKNOWN"):
        return NotFound(
            f"pull access denied for {reference.familiar_name}, repository does not exist or may require "
            f"'docker login': {error}"
        )
    return Unavailable(f"registry {reference.domain}: {error}")


async def open_repository(
    connection: Connection, endpoint: Endpoint, reference: Reference, given: Credentials | None
) -> Repository:
    """A repository with the caller's credentials, or the daemon's own. The caller's are not for mirrors."""
    if given is not None and not endpoint.mirror:
        return Repository(connection, endpoint, given)
    return Repository(connection, endpoint, await auth.find(endpoint.host, endpoint.repository))


async def list_tags(
    reference: Reference, credentials: Credentials | None, registries: Registries
) -> Sequence[Reference]:
    """Every tag of a repository on its registry. Raises NotFound, Unauthorized, Unavailable."""
    async with Connection(registries) as connection:
        endpoint = registries.endpoints(reference)[-1]
        repository = await open_repository(connection, endpoint, reference, credentials)
        try:
            return [reference.with_tag(tag) for tag in await repository.tags()]
        except RegistryError as error:
            raise explain(error, reference) from error


class Pull:
    """One pull."""

    def __init__(
        self,
        images: Images,
        reference: Reference,
        platform: str,
        credentials: Credentials | None,
        progress: Progress,
        insecure: Sequence[str] = (),
        referrers: bool = False,
    ) -> None:
        self._images, self._reference, self._progress = images, reference.tagged(), progress
        self._referrers = referrers
        self._platform = documents.parse_platform(platform, images.host) if platform else images.host
        self._explicit = bool(platform)
        self._credentials = credentials
        self._registries = images.registries()
        check_words(insecure)
        self._insecure = [*insecure]
        self._trust = (
            Trust(self._reference, images.settings.containers_configuration) if UNVERIFIED not in insecure else None
        )

    async def run(self) -> Image:
        """Pull; gives the image. Raises NotFound, Unauthorized, PermissionDenied, Unavailable, InvalidArgument, …"""
        found = await self.run_any()
        if isinstance(found, Artifact):
            raise documents.no_image(self._reference.familiar, found.artifact_type)
        return found

    async def run_any(self) -> Image | Artifact:
        """As `run`, for images and for artifacts."""
        reference = self._reference
        async with Connection(self._registries) as connection, self._images.layers.leases.hold() as lease:
            repository, data, kind = await self._resolve(connection)
            shown = reference.tag or reference.digest
            self._progress({"status": f"Pulling from {reference.familiar_name}", "id": shown})
            try:
                return await self._fetch(repository, lease, data, kind)
            except RegistryError as error:
                raise explain(error, reference) from error

    async def _resolve(self, connection: Connection) -> tuple[Repository, bytes, str]:
        """The first endpoint that has the reference, and what it names there."""
        reference = self._reference
        problem: BastideError = NotFound(f"manifest for {reference.familiar} not found")
        for endpoint in self._registries.endpoints(reference):
            repository = await open_repository(connection, endpoint, reference, self._credentials)
            try:
                data, kind = await repository.manifest(reference.digest or reference.tag)
            except RegistryError as error:
                problem = explain(error, reference)
            except (Unavailable, Unauthorized, InvalidArgument) as error:
                problem = error
            else:
                return repository, data, kind
            if not endpoint.mirror:
                break
        raise problem

    async def _fetch(self, repository: Repository, lease: Lease, data: bytes, kind: str) -> Image | Artifact:
        target_bytes, manifest_bytes = data, data
        document = documents.parse(data, kind)
        for _ in range(_NESTING):
            if isinstance(document, Index):
                entry = documents.choose(document, self._platform)
                manifest_bytes = await self._document(repository, entry)
                document = documents.parse(manifest_bytes, entry.media_type)
        if isinstance(document, Index):
            raise InvalidArgument("manifest list is nested too deeply")
        image = documents.is_image(document)
        if image:
            documents.check_runnable(document)
        digests = [*dict.fromkeys((digest_of(manifest_bytes), digest_of(target_bytes)))]
        verified = await self._trust.check(repository, digests) if self._trust else ""
        found: Image | Artifact
        if image:
            found = await self._image(repository, lease, document, manifest_bytes, target_bytes, verified)
        else:
            found = await self._artifact(repository, lease, target_bytes)
        if self._referrers:
            count = await self._images.artifacts.take_referrers(repository, lease, digests, self._tell)
            self._progress({"status": f"Referrers: {count}"})
        return found

    async def _artifact(self, repository: Repository, lease: Lease, target: bytes) -> Artifact:
        found = await self._images.artifacts.take(repository, lease, target, self._reference, self._tell)
        self._progress({"status": f"Digest: {found.descriptor.digest}"})
        self._progress({"status": f"Status: Downloaded artifact {self._reference.familiar}"})
        return found

    async def _image(
        self,
        repository: Repository,
        lease: Lease,
        document: Manifest,
        manifest_bytes: bytes,
        target_bytes: bytes,
        verified: str,
    ) -> Image:
        await lease.add(digest_of(target_bytes), digest_of(manifest_bytes), document.config.digest)
        config_bytes = await self._config(repository, document)
        diff_ids = documents.parse_config(config_bytes).rootfs.diff_ids
        if len(diff_ids) != len(document.layers):
            raise InvalidArgument("layers from manifest don't match image configuration")
        if self._explicit:
            self._check_platform(documents.parse_config(config_bytes).platform)
        if verified:
            self._check_age(documents.parse_config(config_bytes).created or "", digest_of(target_bytes))
        await self._layers(repository, lease, document.layers, diff_ids)
        return await self._record(config_bytes, manifest_bytes, target_bytes, document, verified)

    def _check_platform(self, found: Platform) -> None:
        if documents.rank(self._platform, found) < 0:
            raise NotFound(
                f"image with reference {self._reference.familiar} was found but does not match the specified "
                f"platform: wanted {self._platform}, actual: {found}"
            )

    def _check_age(self, created: str, digest: str) -> None:
        """That a verified image under a tag is not older than the verified one that the tag names here.

        An old signature stays valid, so a registry can serve an old image under a tag for ever. The time is that of
        the configuration, which the signature covers. Raises PermissionDenied.
        """
        here = None if self._reference.digest else self._images.find(str(self._reference))
        if here is None or not here.verified or here.target.digest == digest:
            return
        if documents.instant(created) < documents.instant(here.created):
            name = self._reference.familiar
            raise PermissionDenied(
                f"{name} would be rolled back: its signed image was created at {created or 'no time'}, the one "
                f"verified here at {here.created}; `bastide rmi {name}` first, or pull "
                f"{self._reference.with_digest(digest).familiar}, if that is wanted"
            )

    async def _document(self, repository: Repository, entry: Descriptor) -> bytes:
        content = self._images.content
        if content.has(entry.digest):
            return await blocking(content.read, entry.digest)
        data, kind = await repository.manifest(entry.digest)
        if len(data) != entry.size:
            raise InvalidArgument(f"manifest {entry.digest} has {len(data)} bytes instead of {entry.size}")
        documents.parse(data, kind)
        return data

    async def _config(self, repository: Repository, manifest: Manifest) -> bytes:
        config, content = manifest.config, self._images.content
        if config.size > documents.CONFIG_LIMIT:
            raise InvalidArgument(f"image configuration has {config.size} bytes, more than {documents.CONFIG_LIMIT}")
        await self._images.layers.add_blob(config.digest, config.size, _source(repository, config, lambda _: None))
        return await blocking(content.read, config.digest)

    async def _layers(
        self, repository: Repository, lease: Lease, layers: Sequence[Descriptor], diff_ids: Sequence[str]
    ) -> None:
        """All layers, each once; the first error ends the others."""
        wanted: dict[str, tuple[Descriptor, str]] = {}
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            known = wanted.setdefault(layer.digest, (layer, diff_id))
            if known != (layer, diff_id) and (known[1], known[0].size) != (diff_id, layer.size):
                raise InvalidArgument("layers from manifest don't match image configuration")
        await lease.add(*wanted, *diff_ids)
        for layer, _ in wanted.values():
            self._tell(layer, "Pulling fs layer")
        try:
            async with asyncio.TaskGroup() as group:
                for layer, diff_id in wanted.values():
                    group.create_task(self._layer(repository, layer, diff_id))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    def _tell(self, layer: Descriptor, status: str, **more: Any) -> None:
        self._progress({"status": status, "progressDetail": {}, "id": short(layer.digest)} | more)

    async def _layer(self, repository: Repository, layer: Descriptor, diff_id: str) -> None:
        known = False

        def begun(already: bool) -> None:
            nonlocal known
            known = already

        def report(count: int) -> None:
            if count >= layer.size:
                self._tell(layer, "Download complete")
                return
            self._tell(
                layer,
                "Downloading",
                progressDetail={"current": count, "total": layer.size},
                progress=f"{count / 1e6:.1f}MB/{layer.size / 1e6:.1f}MB",
            )

        await self._images.layers.ensure(layer, diff_id, _source(repository, layer, report), begun)
        self._tell(layer, "Already exists" if known else "Pull complete")

    async def _record(self, config: bytes, manifest: bytes, target: bytes, document: Manifest, verified: str) -> Image:
        images, reference = self._images, self._reference
        for data in (manifest, target):
            await blocking(images.content.add, data)
        digest = digest_of(target)
        names = [reference.with_digest(digest)] + ([reference.with_tag(reference.tag)] if not reference.digest else [])
        before = images.find(str(reference))
        target_descriptor = documents.make_descriptor(target)
        image = images.build_record(
            config, documents.make_descriptor(manifest), target_descriptor, document.layers, verified, self._insecure
        )
        images.record(image, names)
        images.event("pull", reference.familiar, image)
        fresh = before is None or before.id != image.id or before.target.digest != digest
        self._progress({"status": f"Digest: {digest}"})
        verb = "Downloaded newer image" if fresh else "Image is up to date"
        self._progress({"status": f"Status: {verb} for {reference.familiar}"})
        return image


def _source(repository: Repository, blob: Descriptor, report: Callable[[int], None]) -> BlobSource:
    """A blob of a repository, told about a few times a second."""

    async def source(offset: int) -> AsyncIterator[bytes]:
        count, told = offset, time.monotonic()
        async for chunk in repository.blob(blob.digest, blob.size, offset):
            yield chunk
            count += len(chunk)
            now = time.monotonic()
            if now - told > _REPORT_SECONDS and count < blob.size:
                told = now
                report(count)
        report(count)

    return source
